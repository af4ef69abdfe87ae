"""A child of the supervisor: its streams and limits, and how it ends."""

import atexit
import contextlib
import math
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MEMORY_CODE = 87  # exit code of a program that ran out of memory
_AS_IS = "surrogateescape"
_FIRST_FREE = 20  # file descriptors below are set up for a child


@dataclass(frozen=True)
class Limits:
    """What a child may use; `uid`: whom the supervisor becomes first, where it is root."""

    seconds: float
    wall_seconds: float
    memory_bytes: int
    output_bytes: int
    disk_bytes: int
    files: int
    open_files: int
    processes: int
    uid: int | None


def pipe() -> tuple[int, int]:
    """Both ends, above the descriptors that a child is given."""
    read, write = os.pipe()
    return _above(read), _above(write)


def null(flags: int) -> int:
    """/dev/null, above the descriptors that a child is given."""
    return _above(os.open(os.devnull, flags))


def _above(descriptor: int) -> int:
    import fcntl

    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _FIRST_FREE)
    os.close(descriptor)
    return int(moved)


def spawn(task: Callable[[], None], descriptors: Mapping[int, int], limits: Limits) -> int:
    """Run the task in a child that has these descriptors (its own -> ours) and no other; its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        for own, ours in descriptors.items():
            os.dup2(ours, own)
        os.closerange(max(descriptors) + 1, limits.open_files + 64)
        _limit(limits)
        _reopen()
        code = ended(task)
    finally:
        os._exit(code)


def ended(task: Callable[[], None]) -> int:
    """Run the task, then what Python runs at its end; the exit code, as of a program of its own."""
    code = _code_of(task)
    with contextlib.suppress(BaseException):
        threading._shutdown()  # type: ignore[attr-defined]  # joins the threads that are no daemons
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        code = code or 1
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    return code


def _code_of(task: Callable[[], None]) -> int:
    try:
        task()
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return (error.code or 0) & 0xFF
        print(error.code, file=sys.stderr)
        return 1
    except MemoryError:
        return MEMORY_CODE
    except BaseException as error:
        with contextlib.suppress(BaseException):
            traceback.print_exception(error, limit=-5)
        return 1
    return 0


def _limit(limits: Limits) -> None:
    seconds = math.ceil(limits.seconds)
    for what, soft, hard in (
        (resource.RLIMIT_CPU, seconds, seconds + 1),
        (resource.RLIMIT_AS, limits.memory_bytes, limits.memory_bytes),
        (resource.RLIMIT_FSIZE, limits.disk_bytes, limits.disk_bytes),
        (resource.RLIMIT_NOFILE, limits.open_files, limits.open_files),
        (resource.RLIMIT_NPROC, limits.processes, limits.processes),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
    ):
        _, most = resource.getrlimit(what)
        hard = hard if most == resource.RLIM_INFINITY else min(hard, most)
        resource.setrlimit(what, (min(soft, hard), hard))
    signal.signal(signal.SIGXCPU, signal.SIG_DFL)


def _reopen() -> None:
    """Python's own streams on the child's descriptors, as of a program of its own."""
    for own, (name, errors) in enumerate((("stdin", _AS_IS), ("stdout", _AS_IS), ("stderr", "backslashreplace"))):
        stream = open(own, "w" if own else "r", encoding="utf-8", errors=errors)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
