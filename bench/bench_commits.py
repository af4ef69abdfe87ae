"""Many small commits: the catalog's size, and how long a commit and a start take, before and after maintenance.

    python bench/bench_commits.py [commits]    # or DASD_COMMITS; 10,000 take some ten minutes on a quiet core

Each commit adds a few rows of one batch, as a flush of a ledger does. Maintenance then merges the files and expires
every snapshot but the newest.
"""

import os
import sys
import tempfile
import time
from datetime import UTC, datetime
from statistics import median

import polars as pl
from results import table

from dasd_resources.storage.upkeep import expire_snapshots, merge_small_files, table_sizes
from dasd_resources.storage.warehouse import Warehouse

NUM_COMMITS = 1000
NUM_BATCHES, NUM_ROWS = 10, 50  # rows of a commit: fewer than some ten would stay in the catalog
TIMED = 20  # commits, at each of the points
POINTS = (0.01, 0.1, 1.0)  # of all commits


def main(num_commits: int) -> None:
    rows = []
    with tempfile.TemporaryDirectory() as home:
        warehouse, done = Warehouse(home=home), 0
        warehouse.migrate()
        for point in POINTS:
            times = []
            while done < num_commits * point:
                times.append(commit(warehouse, done))
                done += 1
            rows.append(state(warehouse, f"after {done:,} commits", times))
        began = time.perf_counter()
        merged = sum(merge_small_files(warehouse, "bench").values())
        merging = time.perf_counter() - began
        rows.append(state(warehouse, "files merged", [commit(warehouse, done + i) for i in range(TIMED)]))
        began = time.perf_counter()
        expired, _ = expire_snapshots(warehouse, "bench", datetime.now(UTC), ())
        expiring = time.perf_counter() - began
        rows.append(state(warehouse, "snapshots expired", [commit(warehouse, done + TIMED + i) for i in range(TIMED)]))
    print("## Many small commits\n")
    print(
        f"{num_commits:,} commits of {NUM_ROWS} rows, of {NUM_BATCHES} batches in turn; medians of the last {TIMED}.\n"
    )
    print(table(["", "catalog, MB", "data files", "snapshots", "commit, ms", "open and count, ms"], rows))
    print(f"Merging {merged:,} files took {merging:.1f} s, expiring {expired:,} snapshots {expiring:.1f} s.")


def commit(warehouse: Warehouse, number: int) -> float:
    """Seconds of adding a row."""
    row = {"asset": "bench", "batch": f"b{number % NUM_BATCHES}", "reason": "none", "failed_at": datetime.now(UTC)}
    rows = pl.DataFrame([{**row, "request_id": f"{number} {index}"} for index in range(NUM_ROWS)])
    began = time.perf_counter()
    with warehouse.commit("bench") as transaction:
        transaction.append_missing("failed_requests", rows)
    return time.perf_counter() - began


def state(warehouse: Warehouse, name: str, times: list[float]) -> list[object]:
    began = time.perf_counter()
    warehouse.read("SELECT count(*) FROM failed_requests")
    reading = time.perf_counter() - began
    num_files = int(table_sizes(warehouse)["num_files"].sum())
    snapshots = warehouse.read("SELECT count(*) FROM dasd.snapshots()").item()
    files = warehouse.catalog.parent.glob(f"{warehouse.catalog.name}*")  # with what SQLite has not moved into it yet
    size = sum(file.stat().st_size for file in files) / 1e6
    return [name, size, num_files, snapshots, 1000 * median(times[-TIMED:]), 1000 * reading]


if __name__ == "__main__":
    main(int(sys.argv[1] if len(sys.argv) > 1 else os.environ.get("DASD_COMMITS", NUM_COMMITS)))
