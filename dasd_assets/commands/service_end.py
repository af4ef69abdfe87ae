"""Ends a service in order: web UI, daemon, code servers, run workers, until nothing of it is left.

The daemon and the code servers would take the end of a run worker for a failure of its run, and begin it again. So they
go first, and the workers are killed: their runs stay as they are, and the next start goes on with them
(recovery.py). A part that does not end when it is asked to is killed.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil

from dasd_assets.records.dagster_internals import CODE_SERVERS, DAEMON, WEB_UI

PART_SECONDS = 4.0  # for the web UI, and for the daemon: a container has ten in all by default


def end_service(dagster: "subprocess.Popen[bytes]") -> int:
    """dagster: `dagster dev`, the leader of a session. Returns 0, the exit code of a service that was stopped."""
    with suppress(ProcessLookupError):
        os.kill(dagster.pid, signal.SIGSTOP)  # it would complain that its parts have ended
    present = members(dagster.pid)
    _end([one for one in present if is_of(one, WEB_UI)], psutil.Process.terminate, PART_SECONDS)
    _end([one for one in present if is_of(one, DAEMON)], psutil.Process.terminate, PART_SECONDS)
    _end([one for one in present if one.pid == dagster.pid or is_of(one, CODE_SERVERS)], psutil.Process.kill, 1.0)
    while left := members(dagster.pid, present):
        _end(left, psutil.Process.kill, 1.0)
    dagster.wait()
    return 0


def members(session: int, known: Sequence[psutil.Process] = ()) -> list[psutil.Process]:
    """What lives of a session, and of processes that one of it has started; and of those known before."""
    found = {one for one in psutil.process_iter() if _session(one) == session}
    for one in [*found, *known]:
        with suppress(psutil.Error):
            found.update(one.children(recursive=True))
    return [one for one in found.union(known) if not _has_ended(one)]


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except OSError:
        return -1


def is_of(process: psutil.Process, kinds: Sequence[str]) -> bool:
    """Whether its command line holds one of these words."""
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return any(kind in command for kind in kinds)


def _end(processes: Sequence[psutil.Process], ask: Callable[[psutil.Process], None], seconds: float) -> None:
    for one in processes:
        with suppress(psutil.Error):
            ask(one)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends and not all(map(_has_ended, processes)):
        time.sleep(0.02)
    for one in processes:
        with suppress(psutil.Error):
            if not _has_ended(one):
                one.kill()


def _has_ended(process: psutil.Process) -> bool:
    """Also if its parent has not taken notice, as the stopped one cannot."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
