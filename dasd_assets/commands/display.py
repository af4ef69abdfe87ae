"""What `dasd run` shows while it works: on a terminal a bar with rate and time left below the lines, else lines alone.

Nothing is silent for long: the bar moves on a terminal; elsewhere a line says every half minute which asset is being
made, if nothing else has said anything. Output of libraries may be sent to a file meanwhile (vLLM's is), so the display
writes to a copy of standard error of its own.
"""

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Event, Lock, Thread
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from dasd_assets.records.progress import Done, duration, watched
from dasd_resources.interruption import at_interruption
from dasd_resources.visible_text import show_message, visible, visible_page

SILENT_SECONDS = 30.0


class Display(Protocol):
    """Where the lines of a run go, and what is under way."""

    def say(self, line: str) -> None:
        """A line, at once."""

    def begin(self, asset: str | None) -> None:
        """This asset is being made now; None: none is."""

    def done(self, done: Done) -> None:
        """How much of its work is done."""


_shown: ContextVar[Display | None] = ContextVar("_shown", default=None)


def shown() -> Display | None:
    """The display of the run in this process, while there is one."""
    return _shown.get()


@contextmanager
def display(stream: TextIO | None = None, silent_seconds: float = SILENT_SECONDS) -> Iterator[Display]:
    """The display of a run: a bar if standard error (or `stream`) is a terminal, else lines."""
    stream = stream or sys.stderr
    with _own(stream) as own, _bar(own) if stream.isatty() else _lines(own, silent_seconds) as made:
        token = _shown.set(made)
        try:
            with watched(made.done):
                yield made
        finally:
            _shown.reset(token)


@contextmanager
def _own(stream: TextIO) -> Iterator[TextIO]:
    """A copy of a stream, which stays where it is when the stream is sent elsewhere; of one without a file, itself."""
    try:
        copied = os.dup(stream.fileno())
    except (OSError, ValueError, AttributeError):
        yield stream
        return
    with os.fdopen(copied, "w", encoding="utf-8", errors="backslashreplace") as own:
        yield own


@contextmanager
def _bar(stream: TextIO) -> Iterator["Bar"]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[pace]}", markup=False),
        TimeElapsedColumn(),
    )
    progress = Progress(*columns, console=Console(file=stream, force_terminal=True), transient=True)
    with progress, at_interruption(progress.stop):  # an interrupted process ends at once, with its cursor hidden
        yield Bar(progress)


@dataclass
class Bar:
    """One bar below the lines: of the asset that is being made."""

    progress: Progress

    def say(self, line: str) -> None:
        shown = visible_page(line.replace("\n", "\n    "))
        self.progress.console.print(shown, markup=False, highlight=False, soft_wrap=True)

    def begin(self, asset: str | None) -> None:
        for task in self.progress.task_ids:
            self.progress.remove_task(task)
        if asset is not None:
            self.progress.add_task(visible(asset), total=None, pace="")

    def done(self, done: Done) -> None:
        for task in self.progress.task_ids:
            self.progress.update(task, completed=done.done, total=done.total or None, pace=f"{done.unit} {done.pace}")


@contextmanager
def _lines(stream: TextIO, silent_seconds: float) -> Iterator["Lines"]:
    made = Lines(stream, silent_seconds)
    thread = Thread(target=made.watch, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.ended.set()
        thread.join()


@dataclass
class Lines:
    """Plain lines; one of its own where nothing else was said for a while."""

    stream: TextIO
    silent_seconds: float
    clock: Callable[[], float] = time.monotonic
    ended: Event = field(default_factory=Event)
    asset: str | None = None
    since: float = 0.0
    latest: Done | None = None
    said_at: float = 0.0
    lock: Lock = field(default_factory=Lock)

    def say(self, line: str) -> None:
        with self.lock:
            self.said_at = self.clock()
            show_message(line, self.stream)

    def begin(self, asset: str | None) -> None:
        self.asset, self.since, self.latest = asset, self.clock(), None
        self.said_at = self.clock()

    def done(self, done: Done) -> None:
        self.latest = done

    def watch(self) -> None:
        """Until the run ends: after a silence, say what is being made."""
        while not self.ended.wait(self.silent_seconds / 10):
            if self.asset is not None and self.clock() - self.said_at >= self.silent_seconds:
                self.say(self._still(self.asset))

    def _still(self, asset: str) -> str:
        done = self.latest
        count = f", {done.done:,}/{done.total:,} {done.unit} {done.pace}".rstrip() if done is not None else ""
        return f"{time.strftime('%H:%M:%S')}   {asset}: under way for {duration(self.clock() - self.since)}{count}"
