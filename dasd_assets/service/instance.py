"""Dagster's instance over a home: its runs, its event log, its settings."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock

from dasd_assets.records.dagster_internals import mend_storages


@contextmanager
def open_instance(dagster_home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of DAGSTER_HOME, created if there is none: under a lock, as two at once would collide."""
    mend_storages()
    with FileLock(dagster_home / "instance.lock"):
        instance = dg.DagsterInstance.from_config(str(dagster_home))
    with instance:
        yield instance
