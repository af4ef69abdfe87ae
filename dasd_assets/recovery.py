"""Runs that a killed `dasd run` left behind: declared failed, and their place in the engine's pool freed.

A `dasd run` holds a lock file while a run of its lives, and tags the run with that file's name. Where the lock can be
had, its owner is dead; the system lets go of locks however a process ends.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

OWNER = "dasd.owner"
UNFINISHED = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


@contextmanager
def owner(home: Path) -> Iterator[dict[str, str]]:
    """The tags of this process's runs, valid while the block lasts."""
    name = uuid.uuid4().hex
    folder = home / "dagster" / "owners"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / name):
        yield {OWNER: name}
    (folder / name).unlink(missing_ok=True)


def fail_abandoned_runs(instance: dg.DagsterInstance, home: Path) -> int:
    """Fail every unfinished run whose `dasd run` is dead; returns how many there were."""
    runs = instance.get_runs(dg.RunsFilter(statuses=UNFINISHED))
    abandoned = [run for run in runs if OWNER in run.tags and _is_dead(home / "dagster" / "owners" / run.tags[OWNER])]
    for run in abandoned:
        instance.report_run_failed(run, "its process was killed; the next run goes on from what was committed")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
    return len(abandoned)


def _is_dead(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            pass
    except Timeout:
        return False
    lock.unlink(missing_ok=True)
    return True
