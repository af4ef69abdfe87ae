"""A sandbox that is open: jobs go in one after the other, and what came of each comes out.

All that decides is bounded here, outside: time, memory of the whole tree, bytes read. A sandbox that does not start is
`NoSandbox`, never a verdict.
"""

import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from base64 import b64decode
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from types import TracebackType
from typing import Literal, Self

from dasd_resources.errors import UserError
from dasd_resources.sandbox import bubblewrap
from dasd_resources.sandbox.confinement import (
    MAX_DISK_BYTES,
    MAX_FILES,
    MAX_OPEN_FILES,
    MAX_OUTPUT_BYTES,
    MAX_PROCESSES,
    SHARED_BYTES,
    WALL_FACTOR,
    Confinement,
)
from dasd_resources.sandbox.inside.children import MEMORY_CODE, Limits
from dasd_resources.sandbox.process_tree import resident_bytes
from dasd_resources.sandbox.seccomp import ARCHITECTURES, seccomp_filter

Status = Literal["ended", "timed_out", "out_of_memory", "too_much_output", "broken"]
Job = dict[str, object]  # see `inside.supervisor`
_MAX_REPLY_BYTES = 2 * MAX_OUTPUT_BYTES
_START_SECONDS, _GRACE_SECONDS, _POLL = 60.0, 5.0, 0.05
_PIPE = subprocess.PIPE
_SOURCE = str(bubblewrap.INSIDE.parents[2])
INSTALL = (
    "install the package bubblewrap (Debian, Ubuntu: apt-get install bubblewrap), or write `verification: {sandbox: "
    "unsafe}` in the recipe to run what models write with your own rights"
)


class NoSandbox(UserError):
    """There is no sandbox, and none may be done without; the message says what to install."""


@dataclass(frozen=True)
class Ended:
    """What came of a job. codes: exit codes (negative: a signal) of its processes. seconds: of computing.

    broken: the sandbox itself ended with it.
    """

    status: Status
    codes: tuple[int, ...] = ()
    output: bytes = b""
    errors: str = ""
    seconds: float = 0.0


class Session:
    """A started sandbox; use it as a context, for it ends with all in it.

    preload: installed modules to import first; installed packages can then be read inside. Such a sandbox serves many
    answers, and ends when a job has left a file, so that none leaves anything to the next. Raises NoSandbox.
    """

    def __init__(
        self, confinement: Confinement, preload: tuple[str, ...] = (), start_seconds: float = _START_SECONDS
    ) -> None:
        self._confinement, self._received, self._killed = confinement, bytearray(), False
        self._serves_many = bool(preload)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        packages = bubblewrap.packages_folders() if preload else ()
        found = packages if confinement.unsafe else bubblewrap.packages_inside(packages)
        settings = json.dumps({"limits": asdict(_limits(confinement)), "packages": found, "preload": preload})
        try:
            self._process = self._start(settings, packages)
        except BaseException:
            self._errors.close()
            raise
        try:
            if isinstance(self._hear(start_seconds, watch_memory=False), Ended):
                raise NoSandbox(
                    f"the sandbox did not start within {start_seconds:g} s; run again when the machine is less busy"
                )
        except BaseException:
            self.close()
            raise

    def _start(self, settings: str, packages: tuple[str, ...]) -> subprocess.Popen[bytes]:
        if self._confinement.unsafe:
            return self._start_unsafe(settings)
        program = bubblewrap.tool()
        if program is None:
            raise NoSandbox(f"a program of a model runs in a sandbox only, and bubblewrap is not there: {INSTALL}")
        with tempfile.TemporaryFile() as seccomp:
            seccomp.write(_filter())
            seccomp.seek(0)
            command = [*bubblewrap.sandboxed(program, packages, seccomp.fileno()), settings]
            return subprocess.Popen(
                command,
                env={},
                pass_fds=[seccomp.fileno()],
                start_new_session=True,  # Ctrl-C is for this process alone: a verdict must not come of it
                stdin=_PIPE,
                stdout=_PIPE,
                stderr=self._errors,
            )

    def _start_unsafe(self, settings: str) -> subprocess.Popen[bytes]:
        """The same without a sandbox: a folder and limits, which keep nobody from anything."""
        self._folder = tempfile.TemporaryDirectory(prefix="dasd-unsafe-")
        command = [sys.executable, *bubblewrap.flags(), "-c", bubblewrap.START.format(path=_SOURCE), settings]
        clean = {"PATH": os.defpath, "LANG": "C.UTF-8", "PYTHONHASHSEED": "0"}
        return subprocess.Popen(
            command,
            cwd=self._folder.name,
            env=clean,
            start_new_session=True,
            stdin=_PIPE,
            stdout=_PIPE,
            stderr=self._errors,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def usable(self) -> bool:
        """Whether another job can be run in it."""
        return not self._killed and self._process.poll() is None

    @property
    def process_id(self) -> int:
        """Of the process outside with which all inside ends."""
        return self._process.pid

    def run(self, job: Job) -> Ended:
        """Run one job. Some end the sandbox itself: see `usable`."""
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(job).encode() + b"\n")
            stdin.flush()
            found = self._hear(_wall_seconds(self._confinement) + _GRACE_SECONDS, watch_memory=True)
        except (BrokenPipeError, NoSandbox):
            self._kill()
            return Ended("broken")
        if isinstance(found, Ended):
            return found
        if found["left"] and self._serves_many:
            self._kill()
        return _ended(found)

    def close(self) -> None:
        """End it and all in it."""
        self._kill()
        self._process.wait()
        for stream in (self._process.stdout, self._errors):
            assert stream is not None
            stream.close()
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.close()
        if self._folder is not None:
            self._folder.cleanup()

    def _hear(self, seconds: float, watch_memory: bool) -> dict | Ended:
        """The next reply; an end if it does not come in time, or the tree takes too much memory meanwhile."""
        stdout, deadline = self._process.stdout, time.monotonic() + seconds
        assert stdout is not None
        most = self._confinement.memory_bytes + SHARED_BYTES
        with selectors.DefaultSelector() as selector:
            selector.register(stdout, selectors.EVENT_READ)
            while b"\n" not in self._received[-1:]:
                if selector.select(min(_POLL, seconds)):
                    self._receive(os.read(stdout.fileno(), 1 << 20))
                elif time.monotonic() > deadline:
                    self._kill()
                    return Ended("timed_out")
                elif watch_memory and resident_bytes(self._process.pid) > most:
                    self._kill()
                    return Ended("out_of_memory")
        reply, self._received = self._received, bytearray()
        found: dict = json.loads(reply)
        return found

    def _kill(self) -> None:
        """bubblewrap ends, and with it the first process inside, and with that all others."""
        self._killed = True
        self._process.kill()

    def _receive(self, part: bytes) -> None:
        if not part or len(self._received) > _MAX_REPLY_BYTES:
            raise self._broken()
        self._received += part

    def _broken(self) -> NoSandbox:
        self._kill()
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read(2000).decode("utf-8", "replace").strip().splitlines()
        why = f"code {self._process.returncode}: {said[-1] if said else 'it says nothing'}"
        return NoSandbox(
            f"the sandbox ended by itself with {why}; `dasd check` tries it, docs/verifiers.md says what it needs"
        )


def sandbox_fault(confinement: Confinement, preload: tuple[str, ...] = ()) -> str | None:
    """Why no program can be run so confined, found out by running one; None if it can. preload: as of a session."""
    job: Job = {"kind": "program", "program": "print(6 * 7)", "input": ""}
    try:
        with Session(confinement, preload) as session:
            found = session.run(job)
    except NoSandbox as error:
        return str(error)
    return (
        None if found.output == b"42\n" else f"the sandbox ran a program that prints 42, and this came of it: {found}"
    )


def _limits(confinement: Confinement) -> Limits:
    return Limits(
        seconds=confinement.seconds_per_test,
        wall_seconds=_wall_seconds(confinement),
        memory_bytes=confinement.memory_bytes,
        output_bytes=MAX_OUTPUT_BYTES,
        disk_bytes=MAX_DISK_BYTES,
        files=MAX_FILES,
        open_files=MAX_OPEN_FILES,
        processes=MAX_PROCESSES,
        uid=None if confinement.unsafe else bubblewrap.private_uid(),
    )


def _wall_seconds(confinement: Confinement) -> float:
    return WALL_FACTOR * confinement.seconds_per_test


def _filter() -> bytes:
    try:
        return seccomp_filter()
    except KeyError as error:
        raise NoSandbox(f"the sandbox knows no system calls of {error}, only of {', '.join(ARCHITECTURES)}") from None


def _ended(reply: dict) -> Ended:
    """A reply as what came of the job: the kernel's ways of saying no time and no memory have names."""
    found = Ended(
        reply["status"],
        tuple(reply["codes"]),
        b64decode(reply["output"]),
        str(reply["errors"]),
        float(reply["seconds"]),
    )
    if found.status != "ended":
        return found
    if -24 in found.codes:  # SIGXCPU
        return replace(found, status="timed_out")
    if MEMORY_CODE in found.codes or (any(found.codes) and "MemoryError" in found.errors[-200:]):
        return replace(found, status="out_of_memory")
    return found
