"""What looking for damage costs: the comparison of sizes at every plan, and the hash at every commit.

    python bench/bench_damage.py [number of files]

No model; a home of its own in a temporary folder.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable

from results import table

from dasd_resources.storage.connections import attach
from dasd_resources.storage.data_files import data_files, keep_hashes, lost_files, read_back
from dasd_resources.storage.lake import Lake

FILL = """INSERT INTO student_logprobs BY NAME SELECT 'r' || i AS response_id, 'b' || b AS batch,
    's' AS student_fingerprint, 'e' AS engine, 'f' AS dtype, [random()::FLOAT FOR x IN range({tokens})] AS logprobs,
    NULL AS run_id FROM range({rows}) a(i), range({start}, {stop}) c(b)"""


def milliseconds(work: Callable[[], object], times: int = 7) -> float:
    """The median."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - start))
    return statistics.median(taken)


def main() -> None:
    num_files = int(sys.argv[1]) if len(sys.argv) > 1 else 5000
    with tempfile.TemporaryDirectory() as home:
        warehouse = Lake(home=home)
        with warehouse.commit("files") as transaction:
            for start in range(0, num_files, 10):
                transaction.read(FILL.format(tokens=1, rows=10, start=start, stop=start + 10))
        looked = ["sizes of all files", milliseconds(lambda: lost_files(warehouse.catalog)), ""]
        rows = [committed(warehouse, tokens, rows) for tokens, rows in ((100, 20), (1000, 500), (5000, 2000))]
    print(f"## Damage: looking for it in a home of {num_files:,} data files\n")
    print(table(["what", "ms", "of which the hash, ms"], [looked, *rows]))


def committed(warehouse: Lake, tokens: int, rows: int) -> list[object]:
    """Commits of so many rows of so many tokens: milliseconds, and those that the hash takes of them."""
    commit = milliseconds(lambda: append(warehouse, tokens, rows), 3)
    newest, place = max(data_files(warehouse.catalog), key=lambda file: file.number), warehouse.catalog.data
    with attach(warehouse.catalog) as connection:
        taken = milliseconds(lambda: keep_hashes(connection, read_back(place, {newest.number: newest.path})), 3)
    return [f"a commit with a file of {newest.size / 1e6:.1f} MB", commit, taken]


def append(warehouse: Lake, tokens: int, rows: int) -> None:
    with warehouse.commit("rows") as transaction:
        transaction.read(FILL.format(tokens=tokens, rows=rows, start=0, stop=1))


if __name__ == "__main__":
    main()
