"""Reads a home in a loop, as a notebook would, until it is killed: `python -m soak_reader HOME LOG`.

A line of the log is a JSON object: what was read, in how many seconds, and the fault, if any. It is written with one
system call; a reader that is started again takes from it what its predecessor had seen.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from dasd_resources.storage.connections import UnknownSnapshot
from dasd_resources.storage.lake import Lake

GROWING = ("prompts", "responses", "student_tokens", "student_logprobs", "sentence_probabilities", "checkpoints")
DEPENDENT = ("student_tokens", "response_verdicts", "student_logprobs", "sentence_probabilities", "response_scores")
EXPIRED = "expired"  # the one documented error: of a reader whose snapshot maintenance has expired


@dataclass
class Reader:
    """seen: table -> most rows it ever had. counted: snapshot -> rows of `responses` in it."""

    lake: Lake
    log: int
    seen: dict[str, int] = field(default_factory=dict)
    counted: dict[int, int] = field(default_factory=dict)

    def read(self) -> None:
        """Each kind of read once; a line each."""
        for name, faults in (("rows", self._rows), ("snapshot", self._snapshot), ("dataset", self._datasets)):
            started, found = time.monotonic(), ""
            try:
                found = "; ".join(faults())
            except UnknownSnapshot:
                found = EXPIRED
            except Exception as error:
                found = f"{type(error).__name__}: {error}"
            self.write({"read": name, "seconds": time.monotonic() - started, "fault": found})

    def write(self, line: dict[str, object]) -> None:
        os.write(self.log, json.dumps({**line, "seen": self.seen}).encode() + b"\n")

    def _rows(self) -> Iterator[str]:
        """Tables that only grow never have fewer rows than before, and no row is without the response it is of."""
        with self.lake.reading() as reading:
            snapshot = reading.snapshot_id()
            now = {table: int(reading.read(f"SELECT count(*) FROM {table}").item()) for table in GROWING}
            for table in DEPENDENT:
                if orphans := reading.read(
                    f"SELECT count(*) FROM {table} ANTI JOIN responses USING (response_id)"
                ).item():
                    yield f"{orphans} rows of {table} without a response"
        for table, num_rows in now.items():
            if num_rows < self.seen.get(table, 0):
                yield f"{table} has {num_rows} rows, after {self.seen[table]}"
        self.seen = now
        self.counted[int(snapshot)] = now["responses"]

    def _snapshot(self) -> Iterator[str]:
        """A snapshot that was read before, the oldest that may still exist, has the rows that it had."""
        snapshot, before = next(iter(self.counted.items()))
        try:
            now = int(self.lake.read("SELECT count(*) FROM responses", at=snapshot).item())
        except UnknownSnapshot:
            del self.counted[snapshot]
            raise
        if now != before:
            yield f"snapshot {snapshot} has {now} responses, after {before}"

    def _datasets(self) -> Iterator[str]:
        """Every published dataset is whole in its snapshot."""
        published = self.lake.read("SELECT dataset, dataset_id, snapshot_id, num_examples FROM published_datasets")
        for name, identity, snapshot, num_examples in published.iter_rows():
            query = "SELECT count(*) FROM sft_examples WHERE dataset_id = $id"
            found = int(self.lake.read(query, {"id": identity}, at=snapshot).item())
            if found != num_examples:
                yield f"{name} {identity} has {found} examples in snapshot {snapshot}, not {num_examples}"


def main(home: Path, log: Path) -> None:
    lines = log.read_text().splitlines() if log.is_file() else []
    seen = json.loads(lines[-1])["seen"] if lines else {}
    lake = Lake(home=str(home))
    while not lake.catalog.exists():
        time.sleep(0.2)
    reader = Reader(lake, os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT), seen)
    while True:
        reader.read()
        time.sleep(0.2)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
