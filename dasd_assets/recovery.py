"""Runs that a killed process left behind: declared failed, and their places in the pools freed.

Whoever executes a run holds a lock file while it lasts: `dasd run` one that its runs are tagged with, a run worker of
the service one named after the run. Where the lock can be had, its owner is dead; the system lets go of locks however a
process ends. Who looks: `dasd run` before each run, `dasd ui` before it starts, and the service at every tick, so a
service that was killed whole and started again, by whatever command, goes on by itself.
"""

import os
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster._core.events import DagsterEvent
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.executor.base import Executor
from dagster._core.launcher import DefaultRunLauncher
from filelock import FileLock, Timeout

OWNER = "dasd.owner"
OWNER_NAME = re.compile(r"[0-9a-f]{32}")  # nothing else in the tag, which anybody may write, is taken for a file's name
ABANDONED = "dasd.abandoned"
BEGUN = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]
LOCK_SECONDS = 60.0  # within which a worker that has begun a run holds its lock
END_SECONDS = 5.0  # within which a worker that has let go of its lock has stored how the run ended


def owners(home: Path) -> Path:
    """The folder of lock files."""
    folder = home / "dagster" / "owners"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def owner(home: Path, name: str | None = None) -> Iterator[dict[str, str]]:
    """The tags of this process's runs, valid while the block lasts. name: of the lock file.

    The file is locked before it has its name: whoever sees it unlocked knows that its owner is dead.
    """
    lock = owners(home) / (name or uuid.uuid4().hex)
    unnamed = lock.with_suffix(f".{os.getpid()}")
    with FileLock(unnamed):
        unnamed.rename(lock)
        yield {OWNER: lock.name}
        lock.unlink(missing_ok=True)


class OwnedExecutor(Executor):
    """An executor of Dagster's that holds the lock file of the run it executes."""

    def __init__(self, inner: Executor, home: Path) -> None:
        self._inner = inner
        self._home = home

    @property
    def retries(self) -> RetryMode:
        return self._inner.retries

    @property
    def step_dependency_config(self) -> StepDependencyConfig:
        return self._inner.step_dependency_config

    def execute(self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan) -> Iterator[DagsterEvent]:
        with owner(self._home, plan_context.run_id):
            yield from self._inner.execute(plan_context, execution_plan)


def fail_abandoned_runs(instance: dg.DagsterInstance, home: Path, end_seconds: float = END_SECONDS) -> int:
    """Fail every unfinished run whose process is dead; returns how many there were.

    A run may have ended well since it was looked at, or be about to: what seems dead is looked at again.
    """
    records = instance.get_run_records(dg.RunsFilter(statuses=BEGUN))
    suspects = [record.dagster_run for record in records if _is_abandoned(instance, record, owners(home))]
    if not suspects:
        return 0
    if any(run.remote_job_origin is not None for run in suspects):
        time.sleep(end_seconds)
    abandoned = instance.get_runs(dg.RunsFilter(run_ids=[run.run_id for run in suspects], statuses=BEGUN))
    for run in abandoned:
        instance.add_run_tags(run.run_id, {ABANDONED: run.run_id})
        instance.report_run_failed(run, "its process was killed; the next run goes on from what was committed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(abandoned)


def _is_abandoned(instance: dg.DagsterInstance, record: dg.RunRecord, folder: Path) -> bool:
    run = record.dagster_run
    if run.remote_job_origin is None:
        name = run.tags.get(OWNER, "")
        return OWNER_NAME.fullmatch(name) is not None and _is_dead(folder / name)
    if not isinstance(instance.run_launcher, DefaultRunLauncher):
        return False  # executed by somebody else, or on another machine: nothing is known here of its lock
    if (folder / run.run_id).exists():
        return _is_dead(folder / run.run_id)
    begun = record.start_time or record.update_timestamp.timestamp()
    return run.status != dg.DagsterRunStatus.NOT_STARTED and time.time() - begun > LOCK_SECONDS


def _is_dead(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            pass
    except Timeout:
        return False
    lock.unlink(missing_ok=True)
    return True
