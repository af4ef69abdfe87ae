"""What `dasd ui` shows on a terminal: what the service prints, and below it a line for each step that is under way.

The runs of a service are processes of their own, and so may their steps be. What a step said last, such as how much is
done, how fast, and how long the rest will take (records/progress.py), is read from the event log. What the processes
print goes to a file, from which it is passed on: so it does not run into the lines below. Elsewhere than on a terminal
the service prints by itself.
"""

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import BinaryIO, TextIO

import dagster as dg
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Column
from sqlalchemy.exc import SQLAlchemyError

from dasd_assets.records.dagster_internals import PARTITION_NAME_TAG
from dasd_assets.records.progress import duration
from dasd_assets.records.wording import short
from dasd_assets.service.instance import open_instance
from dasd_resources.inference.engines import LOG_FOLDER
from dasd_resources.interruption import at_interruption
from dasd_resources.visible_text import visible, visible_page

LOG = "service.log"
LOOK_SECONDS = 1.0
NUM_EVENTS = 1000  # read at a time
COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # of a log line
BEGINNINGS = (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_RESTARTED)
ENDS = (
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_SKIPPED,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
)
Key = tuple[str, str]  # run and step
IDLE: Key = ("", "")


@dataclass
class UnderWay:
    """A step: its asset and batch, when it began (seconds since the epoch), and what it said last."""

    name: str
    since: float
    said: str = ""


@dataclass
class Steps:
    """The steps that active runs carry out, as the event log has them."""

    instance: dg.DagsterInstance
    under_way: dict[Key, UnderWay] = field(default_factory=dict)
    _cursors: dict[str, str | None] = field(default_factory=dict)

    def look(self) -> Mapping[Key, UnderWay]:
        """Those under way now."""
        runs = {
            run.run_id: run for run in self.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        }
        self._cursors = {run_id: self._cursors.get(run_id) for run_id in runs}
        self.under_way = {key: step for key, step in self.under_way.items() if key[0] in runs}
        for run in runs.values():
            for entry in self._new(run.run_id):
                self._take(run, entry)
        return self.under_way

    def _new(self, run_id: str) -> Iterator[dg.EventLogEntry]:
        has_more = True
        while has_more:
            found = self.instance.get_records_for_run(run_id, self._cursors[run_id], limit=NUM_EVENTS)
            self._cursors[run_id], has_more = found.cursor, found.has_more
            yield from (record.event_log_entry for record in found.records)

    def _take(self, run: dg.DagsterRun, entry: dg.EventLogEntry) -> None:
        if entry.step_key is None:
            return
        key, event = (run.run_id, entry.step_key), entry.dagster_event
        if event is None:
            if key in self.under_way:
                self.under_way[key].said = entry.user_message
        elif event.event_type in BEGINNINGS:
            batch = run.tags.get(PARTITION_NAME_TAG)
            self.under_way[key] = UnderWay(entry.step_key + (f" of {short(batch)}" if batch else ""), entry.timestamp)
        elif event.event_type in ENDS:
            self.under_way.pop(key, None)


@contextmanager
def service_output(stream: TextIO, home: Path, dagster_home: Path) -> Iterator[BinaryIO | None]:
    """Where the service is to print meanwhile: if `stream` is a terminal, to this file; else None, to ours."""
    if not stream.isatty():
        yield None
        return
    log = home / LOG_FOLDER / LOG
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.is_file():
        log.replace(log.with_name(f"{LOG}.1"))
    with open(log, "ab") as written, open(log, "rb") as read, _live(stream) as progress:
        progress.console.print(
            f"what the service prints is kept in {log}", markup=False, highlight=False, soft_wrap=True
        )
        ended = Event()
        thread = Thread(target=_watch, args=(dagster_home, read, progress, ended), name="terminal", daemon=True)
        thread.start()
        try:
            yield written
        finally:
            ended.set()
            thread.join()


@contextmanager
def _live(stream: TextIO) -> Iterator[Progress]:
    said = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TextColumn("{task.fields[said]}", markup=False, table_column=said),
        TextColumn("{task.fields[age]}", markup=False),
    )
    progress = Progress(*columns, console=Console(file=stream, force_terminal=True), transient=True, expand=True)
    with progress, at_interruption(progress.stop):  # an interrupted process ends at once, with its cursor hidden
        yield progress


def _watch(dagster_home: Path, log: BinaryIO, progress: Progress, ended: Event) -> None:
    """Pass lines on, and show what is under way, until it ends."""
    tasks: dict[Key, TaskID] = {}
    rest = b""
    with open_instance(dagster_home) as instance:
        steps = Steps(instance)
        is_last = False
        while not is_last:
            is_last = ended.wait(LOOK_SECONDS)
            *lines, rest = (rest + log.read()).split(b"\n")
            for line in lines:
                text = visible_page(COLOUR.sub("", line.decode(errors="replace")))
                progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
            with suppress(SQLAlchemyError):  # a file of Dagster's is locked: the next look will tell
                _show(progress, tasks, steps.look())


def _show(progress: Progress, tasks: dict[Key, TaskID], under_way: Mapping[Key, UnderWay]) -> None:
    """A line for each step; one that says so where there is none. tasks: the lines that are there."""
    shown = under_way or {IDLE: UnderWay("nothing is under way; new files are looked for", 0.0)}
    for key in set(tasks) - set(shown):
        progress.remove_task(tasks.pop(key))
    for key, step in shown.items():
        if key not in tasks:
            tasks[key] = progress.add_task(visible(step.name), total=None, said="", age="")
        age = duration(time.time() - step.since) if key != IDLE else ""
        progress.update(tasks[key], said=visible(step.said), age=age)
