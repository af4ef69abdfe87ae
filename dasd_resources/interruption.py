"""How a command ends when a signal interrupts it: at once, from wherever it is, and with nothing begun after it.

The command works in a thread of its own, and the main thread only waits for signals. So nothing that the work does can
swallow an interruption or delay it: no handler of a library (Dagster sets some around each step, but in a main thread
only), no `except`, no `finally`, no query or model in the middle of a call. What must be done at the end is registered
by `at_interruption`: rows that are finished are committed, the run is marked, a training is ended. Then its children
are killed and the process ends without unwinding, which loses no more than a kill does. Left out: Windows.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from psutil import Process

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OF_TERMINAL = {signal.SIGINT, signal.SIGHUP}  # it sends them to all processes in it, each of which would complain
CLOSING_SECONDS = 5.0
LAST_SECONDS = 2.0
CHILDREN_SECONDS = 2.0  # until killed processes are gone
POLL_SECONDS = 0.2
TRACKER = "multiprocessing.resource_tracker"

Action = Callable[[], int | None]


@dataclass(eq=False)
class Closing:
    """What to do at an interruption, within so many seconds, and what once no other process is left.

    Either may return the command's exit code.
    """

    action: Action
    last: Action | None
    seconds: float


@dataclass
class State:
    """Of this process: whether it has been interrupted, and what is then to be done."""

    interrupted: bool = False
    closings: list[Closing] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)  # of `closings`


@dataclass
class Outcome:
    """What the work returned or raised."""

    code: int = 1
    error: BaseException | None = None


_state = State()


def interruptible(work: Callable[[], int], message: str) -> int:
    """Do the work in a thread and return its result; for a main thread, and for what its process is there for.

    At a signal the process ends with exit code 128 + its number and one line on standard error, `message`. A second
    signal ends it without waiting for anything.
    """
    error_output = os.dup(2)  # Dagster redirects the descriptor while a step runs

    def end(number: int, _: FrameType | None) -> None:
        _end(128 + number, message, error_output)

    for number in SIGNALS:
        if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:  # as `nohup` sets it
            signal.signal(number, end)
    outcome = Outcome()
    thread = threading.Thread(target=_work, args=(work, outcome), name="command", daemon=True)
    thread.start()
    while thread.is_alive():  # again and again, for a signal that the system gave to another thread
        thread.join(POLL_SECONDS)
    for number in SIGNALS:  # all is done: nothing but the interpreter's end is left to interrupt
        signal.signal(number, lambda *_: os._exit(outcome.code))
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    if outcome.error is not None:
        raise outcome.error
    return outcome.code


@contextmanager
def at_interruption(action: Action, last: Action | None = None, seconds: float = CLOSING_SECONDS) -> Iterator[None]:
    """Have `action` done if the process is interrupted within the block, and `last` when its children are gone."""
    closing = Closing(action, last, seconds)
    begin()
    with _state.lock:
        _state.closings.append(closing)
    try:
        yield
    finally:
        with _state.lock:
            _state.closings.remove(closing)


def begin() -> None:
    """To be called before anything is begun: in a process that has been interrupted it never returns."""
    if _state.interrupted:
        threading.Event().wait()


def _work(work: Callable[[], int], outcome: Outcome) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINAL)  # for the processes that this thread will start
    try:
        outcome.code = work()
    except BaseException as error:  # raised again in the main thread
        outcome.error = error


def _end(code: int, message: str, error_output: int) -> None:
    if _state.interrupted:
        kill_children(seconds=0)
        os._exit(code)
    _state.interrupted = True
    with _state.lock:
        closings = list(_state.closings)
    codes = _do([(closing.action, closing.seconds) for closing in closings])
    kill_children(CHILDREN_SECONDS)
    codes += _do([(closing.last, LAST_SECONDS) for closing in closings if closing.last is not None])
    with suppress(OSError):  # the terminal may be gone
        os.write(error_output, f"dasd: {message}\n".encode())
    os._exit(codes[0] if codes else code)


def _do(actions: Sequence[tuple[Action, float]]) -> list[int]:
    """All of it at once, each for so many seconds: what fails or takes longer is left undone. Returns exit codes."""
    codes: list[int] = []

    def act(action: Action) -> None:
        with suppress(Exception):
            code = action()
            if code is not None:
                codes.append(code)

    threads = [threading.Thread(target=act, args=(action,), daemon=True) for action, _ in actions]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    for thread, (_, seconds) in zip(threads, actions, strict=True):
        thread.join(max(0.0, began + seconds - time.monotonic()))
    return codes


def kill_children(seconds: float) -> None:
    """Kill every process that this one or a child of it has started, and wait so long until they are gone."""
    import psutil  # here, as it takes a moment that no other command needs to spend

    children = [child for child in psutil.Process().children(recursive=True) if not _is_tracker(child)]
    for child in children:
        with suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(children, timeout=seconds)


def _is_tracker(process: "Process") -> bool:
    """Whether it is Python's tracker of shared memory: that ends by itself, once it has freed what we leave."""
    try:
        return any(TRACKER in part for part in process.cmdline())
    except Exception:  # it has ended
        return True
