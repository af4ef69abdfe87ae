"""The first process of a sandbox: it runs each job in a fresh child and ends all that is left of it.

As process 1 of its namespace it cannot be killed or stopped by what it runs, and SIGKILL to all others is one call. A
request and a reply are a line of JSON each. What a test expects never comes here, but for assertions (`tests`).
"""

import json
import os
import selectors
import shutil
import signal
import sys
import time
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from dasd_resources.sandbox.inside import jobs, tests
from dasd_resources.sandbox.inside.children import Limits, null, pipe, spawn

_ERROR_BYTES = 2000  # of what a program writes to its standard error, the last
_CHUNK = 1 << 16
_POLL = 0.02  # seconds


@dataclass
class Watched:
    """A job's children: the one whose end is the job's end first; what is read of it, and what it is fed."""

    children: list[int]
    output: int
    errors: int
    feed: int | None = None
    to_feed: bytes = b""
    captured: bytearray = field(default_factory=bytearray)
    tail: bytes = b""
    status: str = "ended"
    codes: dict[int, int] = field(default_factory=dict)
    seconds: float = 0.0


def main() -> None:
    """Serve jobs until the other side is gone. Arguments: the limits, and modules to import first, as JSON."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 gets only what it handles, and Python handles this one
    settings = json.loads(sys.argv[1])
    limits = Limits(**settings["limits"])
    sys.path += settings["packages"]
    for module in settings["preload"]:
        __import__(module)
    if os.getpid() == 1:
        _empty("/tmp")
    _become(limits.uid)
    _reply({"ready": True})
    for line in sys.stdin.buffer:
        job = json.loads(line)
        _reply(_result(_watch(_start(job, limits), limits)))


def _empty(folder: str) -> None:
    """Remove what importing has left in it."""
    for name in os.listdir(folder):
        shutil.rmtree(os.path.join(folder, name))


def _become(uid: int | None) -> None:
    """Nobody in particular, where this was started by root."""
    if uid is not None:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    if os.getuid() == 0 and os.getpid() == 1:
        raise SystemExit("the sandbox must not run as root")


def _reply(message: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


def _start(job: dict, limits: Limits) -> Watched:
    if job["kind"] == "test":
        return _start_test(job, limits)
    output, to_output = pipe()
    errors, to_errors = pipe()
    is_program = job["kind"] == "program"
    feed, from_feed = _feeding() if is_program else (None, null(os.O_RDONLY))
    if is_program:
        descriptors = {0: from_feed, 1: to_output, 2: to_errors}
    else:
        descriptors = {0: from_feed, 1: null(os.O_WRONLY), 2: to_errors, jobs.RESULT: to_output}
    child = spawn(_task(job), descriptors, limits)
    _close(*descriptors.values())
    return Watched([child], output, errors, feed, job.get("input", "").encode("utf-8", "surrogateescape"))


def _feeding() -> tuple[int, int]:
    read, write = pipe()
    return write, read


def _task(job: dict) -> Callable[[], None]:
    if job["kind"] == "program":
        return lambda: jobs.run_program(job["program"])
    if job["kind"] == "call":
        return lambda: jobs.call_function(job["program"], job["name"], job["arguments"])
    return lambda: jobs.score_answer(job["dataset"], job["answer"], job["entry"])


def _start_test(job: dict, limits: Limits) -> Watched:
    """The test and the program, which have two pipes between them and nothing else."""
    output, to_output = pipe()
    errors, to_errors = pipe()
    asked, ask = pipe()
    answered, answer = pipe()
    nothing, nowhere = null(os.O_RDONLY), null(os.O_WRONLY)
    program = spawn(
        lambda: jobs.serve_calls(job["program"], 3, 4),
        {0: nothing, 1: nowhere, 2: to_errors, 3: asked, 4: answer},
        limits,
    )
    of_test = {0: nothing, 1: nowhere, 2: nowhere, jobs.RESULT: to_output, 4: ask, 5: answered}
    test = spawn(lambda: tests.run_test(job["test"], 4, 5), of_test, limits)
    _close(nothing, nowhere, to_errors, to_output, asked, ask, answered, answer)
    return Watched([test, program], output, errors)


def _watch(watched: Watched, limits: Limits) -> Watched:
    """Feed and read until the job ends or has used up what it may; then end all that is left.

    Whoever sent the job sends nothing more until the reply: what is to be read from him before is his end, and ours.
    The kernel's signal at a parent's death does not do: it may not reach the user that root has become.
    """
    deadline, most_files = time.monotonic() + limits.wall_seconds, limits.files + _num_files()
    first = os.pidfd_open(watched.children[0])
    with selectors.DefaultSelector() as selector:
        for descriptor in (watched.output, watched.errors):
            os.set_blocking(descriptor, False)
            selector.register(descriptor, selectors.EVENT_READ)
        selector.register(first, selectors.EVENT_READ)
        selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
        if watched.feed is not None:
            os.set_blocking(watched.feed, False)
            selector.register(watched.feed, selectors.EVENT_WRITE)
        going = True
        while going:
            ready = {key.fd for key, _ in selector.select(_POLL)}
            if sys.stdin.fileno() in ready:
                _kill(watched.children)
                raise SystemExit("whoever sent the job is gone")
            _exchange(watched, ready, selector, limits)
            if time.monotonic() > deadline:
                watched.status = "timed_out"
            elif _num_files() > most_files:
                watched.status = "too_much_output"
            going = watched.status == "ended" and first not in ready
    _end(watched, limits)
    _close(first, watched.output, watched.errors, *([] if watched.feed is None else [watched.feed]))
    return watched


def _exchange(watched: Watched, ready: set[int], selector: selectors.BaseSelector, limits: Limits) -> None:
    if watched.feed is not None and watched.feed in ready and not _fed(watched):
        selector.unregister(watched.feed)
        _close(watched.feed)
        watched.feed = None
    for descriptor in ready & {watched.output, watched.errors}:
        if not _read(watched, descriptor, limits):
            selector.unregister(descriptor)


def _fed(watched: Watched) -> bool:
    """Whether there is more to feed."""
    assert watched.feed is not None
    try:
        written = os.write(watched.feed, watched.to_feed[:_CHUNK])
    except BlockingIOError:
        return True
    except OSError:  # it does not read what is left
        return False
    watched.to_feed = watched.to_feed[written:]
    return bool(watched.to_feed)


def _read(watched: Watched, descriptor: int, limits: Limits) -> bool:
    """Whether there may be more to read."""
    try:
        found = os.read(descriptor, _CHUNK)
    except BlockingIOError:
        return True
    if descriptor == watched.errors:
        watched.tail = (watched.tail + found)[-_ERROR_BYTES:]
    elif watched.status == "ended":
        watched.captured += found
        if len(watched.captured) > limits.output_bytes:
            watched.status = "too_much_output"
    return bool(found)


def _end(watched: Watched, limits: Limits) -> None:
    """The first child's own end, if it came to one; then nobody is left, and what they wrote is read."""
    _reap(watched, os.WNOHANG)
    while True:
        _kill(watched.children)
        if not _reap(watched, 0):
            break
    for descriptor in (watched.output, watched.errors):
        while watched.status == "ended" and _read_left(watched, descriptor, limits):
            pass
    if watched.status == "ended" and watched.seconds > limits.seconds:
        watched.status = "timed_out"


def _read_left(watched: Watched, descriptor: int, limits: Limits) -> bool:
    before = len(watched.captured), watched.tail
    return _read(watched, descriptor, limits) and before != (len(watched.captured), watched.tail)


def _kill(children: list[int]) -> None:
    """All processes but this one, in a namespace of our own; elsewhere the children's groups alone."""
    if os.getpid() == 1:
        with suppress(ProcessLookupError):
            os.kill(-1, signal.SIGKILL)
        return
    for child in children:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)


def _reap(watched: Watched, flags: int) -> bool:
    """Note how children ended; whether any was there."""
    try:
        child, status, usage = os.wait4(-1, flags)
    except ChildProcessError:
        return False
    if child:
        watched.codes[child] = os.waitstatus_to_exitcode(status)
        if child in watched.children:
            watched.seconds = max(watched.seconds, usage.ru_utime + usage.ru_stime)
        return True
    return False


def _num_files() -> int:
    """How many there are in the private folder, itself included."""
    if os.getpid() != 1:
        return 0
    found = os.statvfs("/tmp")
    return found.f_files - found.f_ffree


def _close(*descriptors: int) -> None:
    for descriptor in set(descriptors):
        os.close(descriptor)


def _result(watched: Watched) -> dict[str, object]:
    codes = [watched.codes.get(child, 0) for child in watched.children]
    return {
        "status": watched.status,
        "codes": codes,
        "output": b64encode(watched.captured).decode(),
        "errors": watched.tail.decode("utf-8", "backslashreplace"),
        "seconds": watched.seconds,
        "left": _num_files() > 1,
    }
