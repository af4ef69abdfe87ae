"""Rows to Parquet files of equal numbers of rows, named as the hub names them: `train-00000-of-00003.parquet`."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dasd_resources.storage.passes import ROWS_OF_OBJECTS

ROWS_PER_GROUP = 128  # what a writer and a reader hold: of 65,536 tokens, 34 MB of text and 67 MB of logprobs


class Shards:
    """The files of one config, written one after the other: `add` takes rows in the order in which they are read."""

    def __init__(self, folder: Path, schema: pa.Schema, num_rows: int, rows_per_shard: int) -> None:
        folder.mkdir(parents=True)
        self._schema, self._num_rows, self._rows_per_shard = schema, num_rows, rows_per_shard
        self.num_files = max(1, -(-num_rows // rows_per_shard))
        self._folder, self._num_written = folder, 0
        self._pending: list[dict[str, object]] = []
        self._batches: list[pa.RecordBatch] = []
        self._writer: pq.ParquetWriter | None = None

    @property
    def num_written(self) -> int:
        """Rows so far."""
        return self._num_written + self._num_waiting

    @property
    def _num_waiting(self) -> int:
        return ROWS_OF_OBJECTS * len(self._batches) + len(self._pending)

    def add(self, row: dict[str, object]) -> None:
        """Write a row, sooner or later."""
        self._pending.append(row)
        if len(self._pending) == ROWS_OF_OBJECTS:
            self._convert()
        ends_shard = self.num_written % self._rows_per_shard == 0
        if ends_shard or self._num_waiting == ROWS_PER_GROUP:
            self._write(ends_shard)

    def close(self) -> None:
        """Write what is left; a config without rows has one empty file."""
        if self._num_waiting or self._num_written == 0:
            self._write(ends_shard=True)
        self._end_shard()
        assert self.num_written == self._num_rows, "the files are named for the number of rows that was told"

    def _convert(self) -> None:
        self._batches.append(pa.RecordBatch.from_pylist(self._pending, self._schema))
        self._pending = []

    def _write(self, ends_shard: bool) -> None:
        if self._writer is None:
            number = self._num_written // self._rows_per_shard
            name = f"train-{number:05d}-of-{self.num_files:05d}.parquet"
            self._writer = pq.ParquetWriter(self._folder / name, self._schema, compression="zstd")
        self._convert()
        rows = pa.Table.from_batches(self._batches, self._schema).combine_chunks()
        self._batches = []  # copied by now: not held while they are written
        self._writer.write_table(rows)
        self._num_written += rows.num_rows
        if ends_shard:
            self._end_shard()

    def _end_shard(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
