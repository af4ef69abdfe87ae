"""A home's writer, backups and repair, for processes of their own: without conftest, which takes seconds to import.

`python storage_processes.py FUNCTION FOLDER…`
"""

import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from dasd_resources.storage.backup import Manifest, back_up
from dasd_resources.storage.repair import drop_files, plan_repair
from dasd_resources.storage.warehouse import Warehouse

NUM_ROWS = 300  # of each table, per commit


def save(home: Path, target: Path, keep: int = 2, link: bool = False) -> tuple[Path, Manifest]:
    return back_up(home, home / "dagster", target, keep, link)


def append(home: Path, number: int) -> None:
    """One commit of as many rows to each of two tables, in data files of their own."""
    ids = pl.DataFrame({"rollout_id": [f"{number}-{i}" for i in range(NUM_ROWS)]})
    cuts = ids.with_columns(seed=pl.lit(1), cut_version=pl.lit("1"))
    failures = ids.rename({"rollout_id": "request_id"}).with_columns(
        asset=pl.lit("a"), reason=pl.lit("r"), failed_at=pl.lit(datetime.now(UTC))
    )
    with Warehouse(home=str(home)).commit("append") as transaction:
        transaction.append_missing("prefix_cuts", cuts)
        transaction.append_missing("failed_requests", failures)


def append_for_a_while(home: Path) -> None:
    for number in range(1, 21):
        append(home, number)


def back_up_for_ever(home: Path, target: Path) -> None:
    print("started", flush=True)
    while True:
        save(home, target)


def repair_for_ever(home: Path) -> None:
    """Drop whatever is lost."""
    warehouse = Warehouse(home=str(home))
    warehouse.read("SELECT 1")
    print("started", flush=True)
    while True:
        if (plan := plan_repair(warehouse, (), ())).drop:
            drop_files(warehouse, plan, int)


if __name__ == "__main__":
    globals()[sys.argv[1]](*map(Path, sys.argv[2:]))
