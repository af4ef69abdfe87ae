"""Rows on disk while a step works on them: read in one pass over their tables, given out a part at a time.

In a file in the home that vanishes with the process. So neither are all rows in memory, nor is a snapshot held for as
long as the work takes, nor are the tables read again for every part.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile

import polars as pl
import pyarrow as pa

from dasd_resources.storage.lake import Lake, Params
from dasd_resources.storage.passes import enough

BYTES_AT_ONCE = 16_000_000  # that are put in order together: part by part, each row would be written by itself
OPTIONS = pa.ipc.IpcWriteOptions(compression="zstd")


@contextmanager
def spooled(parts: Iterable[pl.DataFrame], home: str) -> Iterator[Iterator[pl.DataFrame]]:
    """The same parts, all of which are read before the first is given. parts: of equal columns."""
    with TemporaryFile(dir=home) as file:
        stream: pa.ipc.RecordBatchStreamWriter | None = None
        for part in parts:
            table = part.to_arrow()
            stream = stream or pa.ipc.new_stream(file, table.schema, options=OPTIONS)
            stream.write_table(table)
        if stream is None:
            yield iter(())
            return
        stream.close()
        file.seek(0)
        with pa.ipc.open_stream(file) as written:
            yield (pl.DataFrame(pa.Table.from_batches([batch])) for batch in written)


@contextmanager
def in_order(
    parts: Iterable[pl.DataFrame], key: str, keys: pl.Series, at_once: int, home: str
) -> Iterator[Iterator[pl.DataFrame]]:
    """The rows of all parts in the order of `keys`, those of `at_once` keys at a time, which alone are in memory then.

    DuckDB's own sort keeps long lists in memory: with its 4 GB it ran out of it between 1.7 and 3.4 GB of them.
    keys: of every row that is wanted, each once.
    """
    groups = pl.DataFrame({key: keys, "position": range(len(keys))}, schema={key: pl.String, "position": pl.Int64})
    written, num_written = defaultdict[int, list[int]](list), 0
    with TemporaryFile(dir=home) as file:
        stream: pa.ipc.RecordBatchFileWriter | None = None
        for group, batch in _by_group(parts, key, groups, at_once):
            stream = stream or pa.ipc.new_file(file, batch.schema, options=OPTIONS)
            stream.write_batch(batch)
            written[group].append(num_written)
            num_written += 1
        if stream is None:
            yield iter(())
            return
        stream.close()
        with pa.ipc.open_file(file) as found:
            yield (_together(found, written[group]) for group in sorted(written))


def _by_group(
    parts: Iterable[pl.DataFrame], key: str, groups: pl.DataFrame, at_once: int
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Each group's rows of BYTES_AT_ONCE together, in their order; each row is copied twice."""
    unordered = iter(parts)
    while together := list(enough(unordered, lambda part: int(part.estimated_size()), BYTES_AT_ONCE)):
        rows = pl.concat(together, rechunk=True)  # else each group would copy all
        places = rows.select(key).with_row_index("row").join(groups, on=key).sort("position")
        for (group,), own in places.group_by(pl.col("position") // at_once):
            table = rows[own["row"]].with_columns(own["position"]).to_arrow()
            yield from ((group, batch) for batch in table.combine_chunks().to_batches())
        del together, rows  # while the next are read


def _together(file: pa.ipc.RecordBatchFileReader, numbers: list[int]) -> pl.DataFrame:
    rows = pl.DataFrame(pa.Table.from_batches([file.get_batch(number) for number in numbers]))
    return rows.sort("position").drop("position")


def joined(lake: Lake, query: str, params: Params, key: str, keys: pl.Series, at_once: int) -> Iterator[pl.DataFrame]:
    """One row for each of these keys in their order, `at_once` in memory, of tables that are read once each.

    query: UNION ALL BY NAME of the tables' rows of `$keys`, each with columns of its own; NULL where a table has none.
    DuckDB's own join keeps the long lists of one of the tables in memory.
    """

    def parts() -> Iterator[pl.DataFrame]:
        with lake.reading() as reading:
            yield from reading.stream(query, {**params, "keys": keys.to_list()}, at_once)

    with in_order(parts(), key, keys, at_once, lake.home) as found:
        for part in found:
            yield part.group_by(key, maintain_order=True).agg(pl.all().drop_nulls().first())
