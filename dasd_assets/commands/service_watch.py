"""Notices that a service has lost its code or its daemon, of which Dagster takes no notice: nothing is ever made again.

`dagster dev` ends when its web UI or its daemon does, but not when the process that holds the code location is killed:
by the system, if memory runs out, as it is the largest. It does not start another, and every sensor fails from then on.
Nor does it notice a daemon that hangs: one that is sent SIGTERM alone ends its work, and then waits for ever for a
message of `dagster dev` (1.13.27).
"""

import subprocess
from collections.abc import Callable

from dasd_assets.commands.service_end import is_of, members
from dasd_assets.records.dagster_internals import CODE_SERVERS

LOOK_SECONDS = 5.0
LOOKS = 2  # at which it must be missing: the web UI's button "Reload" replaces the process
LOOKS_AT_START = 24  # a busy machine takes long to begin
# Two minutes. The daemon writes a heartbeat every 30 s. Looks are counted, not time: none is taken while the machine
# sleeps or all is stopped.
LOOKS_WITHOUT_HEARTBEAT = 24

CODE_LOST = "the process that holds the code was killed, perhaps for its memory"
DAEMON_LOST = "the daemon gives no sign of life: it hangs, or was asked to end"


def wait_for_end(
    dagster: "subprocess.Popen[bytes]", heartbeat: Callable[[], float | None], look_seconds: float = LOOK_SECONDS
) -> int | str:
    """Wait until `dagster dev` ends, and return its exit code; or, as soon as a part of it is lost, which one.

    heartbeat: the daemon's latest one, in any unit: what counts is that it changes; None if none is known.
    """
    num_missing, allowed = 0, LOOKS_AT_START
    latest, num_silent = heartbeat(), 0
    while num_missing < allowed and num_silent < LOOKS_WITHOUT_HEARTBEAT:
        try:
            return dagster.wait(look_seconds)
        except subprocess.TimeoutExpired:
            found = members(dagster.pid)
        if all(any(is_of(one, (kind,)) for one in found) for kind in CODE_SERVERS):
            num_missing, allowed = 0, LOOKS
        else:
            num_missing += 1
        if (beat := heartbeat()) in (None, latest):
            num_silent += 1
        else:
            latest, num_silent = beat, 0
    return CODE_LOST if num_missing >= allowed else DAEMON_LOST
