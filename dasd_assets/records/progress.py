"""Progress of long work in the run log: how much is done, how fast, and how long the rest will take.

A line every ten seconds at first; after ten minutes the pauses grow, to a minute after an hour: the log of a training
of days should not be ten thousand lines long.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from threading import Lock
from typing import TypeVar

from dasd_resources.sft.checkpoint import Pace, Progress

Item = TypeVar("Item")

LOG_SECONDS = 10.0  # between two lines, during the first ten minutes


@dataclass(frozen=True)
class Done:
    """How much of a step's work is done, of how much; pace: rate and time left, as they are shown."""

    done: int
    total: int
    unit: str
    pace: str = ""


_watcher: ContextVar[Callable[[Done], None] | None] = ContextVar("_watcher", default=None)


@contextmanager
def watched(watcher: Callable[[Done], None]) -> Iterator[None]:
    """Within, whoever shows progress is told of every item, not of those alone that are logged."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def _tell(done: int, total: int, unit: str, pace: Callable[[], str]) -> None:
    """Tell the watcher, if there is one; pace is asked for then alone: this is called for every item."""
    if (watcher := _watcher.get()) is not None:
        watcher(Done(done, total, unit, pace()))


def logged(
    items: Iterable[Item], total: int, unit: str, log: Callable[[str], None], interval: float = LOG_SECONDS
) -> Iterator[Item]:
    """Pass items on; at growing intervals (`pause`) and at the end, log how many of `total` are done and the time left.

    The rate counts from the first item: the time that an engine needs to load a model is not part of it.
    """
    if total:
        log(f"0/{total:,} {unit}: the engine starts")
        _tell(0, total, unit, lambda: "(the engine starts)")
    began = first = logged_at = time.monotonic()
    for done, item in enumerate(items, start=1):
        now = time.monotonic()
        _tell(done, total, unit, partial(pace_of, done, total, now - first, done - 1))
        if done == 1:
            first = logged_at = now
        if done == total:
            log(progress_line(done, total, unit, now - began, done))
        elif now - logged_at >= pause(now - first, interval):
            log(progress_line(done, total, unit, now - first, done - 1))
            logged_at = now
        yield item


@dataclass
class TrainingLog:
    """Logs what a training reports: its first step, then step, loss, rate and time left, and its last step.

    The rate counts from its start or, after a kill, its continuation: loading a model is not part of it.
    batch: what to add about the samples of a step, given how many steps there are.
    """

    log: Callable[[str], None]
    interval: float = LOG_SECONDS
    clock: Callable[[], float] = time.monotonic
    batch: Callable[[int], str] = lambda num_steps: ""
    first: Progress | Pace | None = field(default=None, init=False)
    loss: str = field(default="", init=False)
    started: float = field(default=0.0, init=False)
    logged_at: float = field(default=0.0, init=False)

    def __call__(self, now: Progress | Pace) -> None:
        is_last = isinstance(now, Progress) and now.step == now.num_steps
        if isinstance(now, Progress):
            self.loss = f", loss {now.loss:.3f}, learning rate {now.learning_rate:.2e}"
        seconds = self.clock()
        _tell(now.step, now.num_steps, "steps", partial(self._pace, now, seconds))
        if self.first is None:
            self.first, self.started, self.logged_at = now, seconds, seconds
            starts = "starts" if now.step == 0 else f"continues after step {now.step:,}"
            self.log(f"training {starts}: {now.num_steps:,} steps in all{self.batch(now.num_steps)}")
        elif seconds - self.logged_at >= pause(seconds - self.started, self.interval) or is_last:
            self.log(training_line(self.first, now, self.loss, seconds - self.started))
            self.logged_at = seconds

    def _pace(self, now: Progress | Pace, seconds: float) -> str:
        left = _left(self.first, now, seconds - self.started) if self.first is not None else ""
        return f"{self.loss}{left}".removeprefix(", ")


def _left(first: Progress | Pace, now: Progress | Pace, seconds: float) -> str:
    steps, left = now.step - first.step, now.num_steps - now.step
    return f", {duration(left * seconds / steps)} left" if left and steps > 0 else ""


@dataclass
class Tally:
    """Logs how many of some long jobs are done, and how long the rest will take; several threads may add to it.

    Jobs that were done before count as done, but not for the rate, which would promise too much.
    """

    total: int
    unit: str
    log: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    num_done: int = field(default=0, init=False)
    num_new: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.started, self._lock = self.clock(), Lock()

    def add(self, *, is_new: bool) -> None:
        """Count a job. is_new: it was not done before."""
        with self._lock:
            self.num_done, self.num_new = self.num_done + 1, self.num_new + is_new
            rest, seconds = self.total - self.num_done, self.clock() - self.started
            left = f", about {duration(rest * seconds / self.num_new)} left" if rest and self.num_new else ""
            if is_new or not rest:
                self.log(f"{self.num_done}/{self.total} {self.unit}{left}")


def pause(elapsed: float, interval: float) -> float:
    """Seconds between two lines of work that has lasted for `elapsed`."""
    return interval * min(max(1.0, elapsed / 600), 6.0)


def progress_line(done: int, total: int, unit: str, seconds: float, num_timed: int) -> str:
    """`120/400 responses (30 %), 24.0/s, 12 s left`; num_timed: how many of them came in `seconds`."""
    return f"{done:,}/{total:,} {unit} ({100 * done / max(total, 1):.0f} %), {pace_of(done, total, seconds, num_timed)}"


def pace_of(done: int, total: int, seconds: float, num_timed: int) -> str:
    """`24.0/s, 12 s left`; num_timed: how many of those that are done came in `seconds`."""
    rate = num_timed / max(seconds, 1e-6)
    left = f", {duration((total - done) / rate)} left" if done < total and num_timed else ""
    return f"{rate:.1f}/s{left}"


def training_line(first: Progress | Pace, now: Progress | Pace, loss: str, seconds: float) -> str:
    """`step 120/800 (15 %), loss 0.512, learning rate 3.00e-03, 9,800 tokens/s, 2 min left`."""
    tokens = now.tokens - first.tokens
    rate = f", {tokens / seconds:,.0f} tokens/s" if tokens > 0 and seconds > 0 else ""
    share = 100 * now.step / max(now.num_steps, 1)
    return f"step {now.step:,}/{now.num_steps:,} ({share:.0f} %){loss}{rate}{_left(first, now, seconds)}"


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 20 min`, `2 d 5 h`."""
    if seconds < 119.5:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"
