"""Runs that a killed or interrupted process left behind: marked as such, and their slots in the pools freed.

Whoever executes a run holds a lock file: `dasd run` one that its runs are tagged with, a run worker of the service one
named after the run, until its process ends. Where the lock can be acquired, its owner is dead: the system releases
locks however a process ends. `dasd run` looks before each run, `dasd ui` before it starts, and the service at every
tick, so a service that was killed whole and started again, by whatever command, continues by itself. An interrupted
`dasd run` marks its run as canceled itself; if it did not come to that, a note beside its lock file says so.
"""

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.util import Finalize
from pathlib import Path

import dagster as dg
from filelock import AcquireReturnProxy, FileLock, Timeout

from dasd_assets.records.dagster_internals import (
    ExecutionPlan,
    PlanOrchestrationContext,
    RetryMode,
    StepDependencyConfig,
)
from dasd_resources.interruption import at_interruption

# Names that begin with `.dagster/` are not shown: these tags are hashes, which would fill the list of runs.
OWNER = ".dagster/dasd_owner"
OWNER_BEFORE = "dasd.owner"  # its name in homes of releases until November 2026
OF_COMMAND = ".dagster/dasd_command"  # the run's own id, on a run of `dasd run`: a copy of the tag says nothing
OWNER_NAME = re.compile(r"[0-9a-f]{32}")  # anybody may write the tag: nothing else is used as a file's name
MAKER = "dasd.made_by"  # on a run within another of the service (batches_run.py): that one's id
ABANDONED = "dasd.abandoned"
INTERRUPTED = "dasd.interrupted"
NOTE = ".interrupted"  # suffix of the file beside an owner's lock
CANCELING = dg.DagsterRunStatus.CANCELING
BEGUN = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, CANCELING]
LOCK_SECONDS = 60.0  # within which a worker whose run has started holds its lock
# One that is starting has its code to load before that. Less than Dagster's own limit (`start_timeout_seconds`, 300 in
# dagster.yaml): a run that it fails counts as an attempt, though it may have died with the service.
START_SECONDS = 240.0
# Run and status -> when this process first saw it so, by the clock that is never set.
_seen_without_lock: dict[tuple[str, dg.DagsterRunStatus], float] = {}


def owners(home: Path) -> Path:
    """The folder of lock files."""
    folder = home / "dagster" / "owners"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def owner(home: Path) -> Iterator[dict[str, str]]:
    """The tags of this process's runs, valid while the block lasts."""
    file = owners(home) / uuid.uuid4().hex
    with _locked(file):
        yield {OWNER: file.name}
        file.unlink(missing_ok=True)


def own_until_the_end(home: Path, run_id: str) -> None:
    """Hold a run's lock file as long as this process lives: how the run ended is stored after its last step."""
    file = owners(home) / run_id
    Finalize(None, _unlink, (file, _locked(file)), exitpriority=0)  # what a killed process leaves, maintenance sweeps


def _locked(file: Path) -> AcquireReturnProxy:
    """The file is locked before it has its name, so an unlocked file of that name always means a dead owner."""
    unnamed = file.with_suffix(f".{os.getpid()}")
    held = FileLock(unnamed).acquire()
    unnamed.rename(file)
    return held


def _unlink(file: Path, _: AcquireReturnProxy) -> None:
    file.unlink(missing_ok=True)


def living_owners(home: Path) -> list[str]:
    """The lock files that a process holds, as it executes runs."""
    return [file.name for file in owners(home).iterdir() if not file.suffix and not _is_dead(file)]


def of_command(run: dg.DagsterRun) -> bool:
    """Whether a `dasd run` executes it, and no worker of the service. Runs of earlier releases had no code location."""
    return run.remote_job_origin is None or run.tags.get(OF_COMMAND) == run.run_id


def _owner_of(run: dg.DagsterRun) -> str:
    """Name of the lock file of the `dasd run` that executes it; empty if it names none."""
    return run.tags.get(OWNER, run.tags.get(OWNER_BEFORE, ""))


class OwnedExecutor(dg.Executor):
    """One of Dagster's executors that also holds the lock file of a service's run until its process ends."""

    def __init__(self, inner: dg.Executor, home: Path) -> None:
        self._inner = inner
        self._home = home

    @property
    def retries(self) -> RetryMode:
        return self._inner.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        return self._inner.step_dependency_config

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        if not of_command(plan_context.dagster_run):
            own_until_the_end(self._home, plan_context.run_id)
        yield from self._inner.execute(plan_context, execution_plan)


@contextmanager
def canceled_if_interrupted(
    instance: dg.DagsterInstance, home: Path, run_id: str, tags: Mapping[str, str]
) -> Iterator[None]:
    """A run of this process, which may not exist yet, is marked as canceled if the process is interrupted in the block.

    tags: its owner's. Until its children are gone it is marked as canceling: then Dagster does not take their end, as
    the run sees it, for a failure.
    """

    note = _note(home, tags[OWNER])

    def begin_to_cancel() -> None:
        note.touch()
        run = instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            instance.add_run_tags(run_id, {INTERRUPTED: run_id})
            instance.report_run_canceling(run, "interrupted")

    def cancel() -> None:
        run = instance.get_run_by_id(run_id)
        if run is not None and (not run.is_finished or run.status == dg.DagsterRunStatus.CANCELED):
            instance.add_run_tags(run_id, {INTERRUPTED: run_id})  # it may have come to exist only now
            if not run.is_finished:
                _cancel(instance, run)
            note.unlink(missing_ok=True)

    with at_interruption(begin_to_cancel, cancel):
        yield


def _note(home: Path, name: str) -> Path:
    """Says of an owner that it was interrupted. Beside its lock file: to look for a lock empties the file."""
    return (owners(home) / name).with_suffix(NOTE)


def _cancel(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    instance.report_run_canceled(run, "interrupted; the next run continues from what was committed")
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def fail_abandoned_runs(instance: dg.DagsterInstance, home: Path, clock: Callable[[], float] = time.monotonic) -> int:
    """Fail every unfinished run whose process is dead, or cancel it if it was to be; returns how many there were.

    A run may end between the two queries, its process after it: only runs that are still unfinished are failed.
    """
    # Find the runs whose lock is free; read them again, for one of them may just have ended by itself; then tag each
    # (attempts.py tells by it what became of the process), fail or cancel it, and free its slots in the pools, which
    # Dagster would keep occupied.
    records = instance.get_run_records(dg.RunsFilter(statuses=BEGUN))
    dead = [record.dagster_run.run_id for record in records if _is_abandoned(instance, record, owners(home), clock)]
    abandoned = instance.get_runs(dg.RunsFilter(run_ids=dead, statuses=BEGUN)) if dead else []
    for run in abandoned:
        if _was_interrupted(home, run):
            instance.add_run_tags(run.run_id, {INTERRUPTED: run.run_id})
            _cancel(instance, run)
        elif run.status == CANCELING:
            _cancel(instance, run)
        else:
            # One within a run of the service that died with all of it was cut off, as that was.
            died_with_service = run.tags.get(MAKER) in {other.run_id for other in abandoned}
            tags = {ABANDONED: run.run_id, **({INTERRUPTED: run.run_id} if died_with_service else {})}
            instance.add_run_tags(run.run_id, tags)
            instance.report_run_failed(run, "its process was killed; the next run continues from what was committed")
            instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(abandoned)


def _was_interrupted(home: Path, run: dg.DagsterRun) -> bool:
    """Whether its owner noted so, and did not come to mark it. Only asked of owners whose name is one of ours."""
    if not of_command(run) or not _owner_of(run):
        return False
    note = _note(home, _owner_of(run))
    found = note.exists()
    note.unlink(missing_ok=True)
    return found


def _is_abandoned(instance: dg.DagsterInstance, record: dg.RunRecord, folder: Path, clock: Callable[[], float]) -> bool:
    run = record.dagster_run
    if of_command(run):  # tagged with its lock file
        name = _owner_of(run)
        return OWNER_NAME.fullmatch(name) is not None and _is_dead(folder / name)
    if not isinstance(instance.run_launcher, dg.DefaultRunLauncher):
        return False  # perhaps executed on another machine: its lock cannot be seen from here
    if (folder / run.run_id).exists():
        return _is_dead(folder / run.run_id)
    # Without a lock file, a worker is dead only if it has had the time to make one, with us looking on: how long ago it
    # began cannot be known, as the time of day may have been set, or the machine asleep.
    if run.status == dg.DagsterRunStatus.NOT_STARTED:
        return False
    allowed = START_SECONDS if run.status == dg.DagsterRunStatus.STARTING else LOCK_SECONDS
    return clock() - _seen_without_lock.setdefault((run.run_id, run.status), clock()) > allowed


def _is_dead(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            pass
    except Timeout:
        return False
    lock.unlink(missing_ok=True)
    return True
