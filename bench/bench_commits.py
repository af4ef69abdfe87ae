"""Many small commits: the catalog's size, and how long a commit and a start take, before and after maintenance.

    python bench/bench_commits.py [commits] [--minutes M] [--folder FOLDER]   # or DASD_COMMITS, DASD_COMMITS_MINUTES

Each commit is a ledger's flush of a few rows of one batch. Maintenance then merges the files and expires
every snapshot but the newest. Figures are appended to FOLDER/commits.jsonl as they come; a run that was stopped or
killed, or has used up its minutes, is gone on with by the next one. What was measured so far is printed each time.
"""

import argparse
import os
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from statistics import median

from measurements import Limit, Measurements, default_folder
from results import table

from dasd_resources.storage.catalogs import SQLITE_FILE
from dasd_resources.storage.ledger import Ledger
from dasd_resources.storage.upkeep import expire_snapshots, merge_small_files, table_sizes
from dasd_resources.storage.warehouse import Warehouse

NUM_COMMITS = 1000
COMMITS_PER_BATCH, NUM_ROWS = 100, 50  # fewer rows than some ten would stay in the catalog
TIMED = 20  # commits, at each of the points
POINTS = (0.01, 0.1, 0.25, 0.5, 1.0)  # of all commits
MERGED, EXPIRED = "files merged", "snapshots expired"
HEAD = {"catalog": 1e-6, "files": 1, "snapshots": 1, "commit": 1000, "open": 1000}  # figure -> its factor in the table


def main(num_commits: int, folder: Path, limit: Limit) -> None:
    kept = Measurements(
        folder / "commits.jsonl", {"commits": num_commits, "rows": NUM_ROWS, "commits of a batch": COMMITS_PER_BATCH}
    )
    if (EXPIRED,) in kept.found:
        print(page(kept, num_commits, ""))
        return
    warehouse, left = Warehouse(home=str(folder / "home")), ""
    warehouse.migrate()
    # A kill may have come between a commit and its point: the table says how many there are.
    done = count(warehouse) // NUM_ROWS
    for point in (round(num_commits * share) for share in POINTS):
        name, times = f"after {point:,} commits", list[float]()
        while done < point and limit.allows(0):
            times.append(commit(warehouse, done))
            done += 1
        if done < point:
            left = f"Stopped after {done:,} commits, as {limit.minutes:g} minutes were over; the next run goes on."
            break
        if (name,) not in kept.found:
            kept.add(name, **state(warehouse, times or extra(warehouse, done)))
    else:
        maintained(kept, warehouse, done)
    print(page(kept, num_commits, left))
    if not left:
        shutil.rmtree(folder / "home")


def maintained(kept: Measurements, warehouse: Warehouse, done: int) -> None:
    """Merge and expire, each timed, with the state after it."""

    def merge() -> int:
        return sum(merge_small_files(warehouse, "bench").values())

    def expire() -> int:
        return expire_snapshots(warehouse, "bench", datetime.now(UTC), ())[0]

    steps: dict[str, Callable[[], int]] = {MERGED: merge, EXPIRED: expire}
    for name, step in steps.items():
        if (name,) in kept.found:
            continue
        began = time.perf_counter()
        number, seconds = step(), time.perf_counter() - began
        kept.add(name, **state(warehouse, extra(warehouse, done)), number=number, seconds=seconds)


def extra(warehouse: Warehouse, done: int) -> list[float]:
    """Seconds of a few commits more, of rows that are not there yet, which `done` does not count."""
    first = max(done, count(warehouse) // NUM_ROWS)
    return [commit(warehouse, first + index) for index in range(TIMED)]


def count(warehouse: Warehouse) -> int:
    return int(warehouse.read("SELECT count(*) FROM student_logprobs").item())


def commit(warehouse: Warehouse, number: int) -> float:
    """Seconds of one flush of a ledger: a few rows, whose ids tell nothing of their order."""
    same = {"student_fingerprint": "none", "engine": "none", "dtype": "float32", "logprobs": [-0.5] * 4}
    ids = [sha256(f"{number} {index}".encode()).hexdigest() for index in range(NUM_ROWS)]
    ledger = Ledger(warehouse, "student_logprobs", "bench", f"b{number // COMMITS_PER_BATCH}")
    began = time.perf_counter()
    with ledger:
        for response in ids:
            ledger.add({"response_id": response, **same})
    return time.perf_counter() - began


def state(warehouse: Warehouse, times: list[float]) -> dict[str, float]:
    """Bytes, files, snapshots; seconds of a commit, of the last few, and of a count by a new connection."""
    began = time.perf_counter()
    count(warehouse)
    reading = time.perf_counter() - began
    files = Path(warehouse.home).glob(f"{SQLITE_FILE}*")  # with what SQLite has not moved into it yet
    return {
        "catalog": float(sum(file.stat().st_size for file in files)),
        "files": float(table_sizes(warehouse)["num_files"].sum()),
        "snapshots": float(warehouse.read("SELECT count(*) FROM dasd.snapshots()").item()),
        "commit": median(times[-TIMED:]),
        "open": reading,
    }


def page(kept: Measurements, num_commits: int, left: str) -> str:
    rows = [[of[0], *(figures[name] * factor for name, factor in HEAD.items())] for of, figures in kept.found.items()]
    heading = (
        f"{num_commits:,} flushes of {NUM_ROWS} rows, batch after batch, {COMMITS_PER_BATCH} of each; "
        f"medians of the last {TIMED}."
    )
    lines = ["## Many small commits", "", heading, ""]
    lines += [table(["", "catalog, MB", "data files", "snapshots", "commit, ms", "open and count, ms"], rows)]
    if (EXPIRED,) in kept.found:
        merged, expired = kept.found[MERGED,], kept.found[EXPIRED,]
        lines += [
            f"Merging {merged['number']:,.0f} files took {merged['seconds']:.1f} s, expiring {expired['number']:,.0f} "
            f"snapshots {expired['seconds']:.1f} s."
        ]
    return "\n".join([*lines, *([left] if left else [])])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", type=int, nargs="?", default=int(os.environ.get("DASD_COMMITS", NUM_COMMITS)))
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("DASD_COMMITS_MINUTES", "inf")))
    parser.add_argument("--folder", type=Path, default=default_folder("commits"))
    given = parser.parse_args()
    main(given.commits, given.folder, Limit(given.minutes))
