"""Which rows of a table are looked at: all, a part of them in memory at a time, or a sample."""

import math
from collections.abc import Iterator

import polars as pl

from dasd_resources.storage.lake import Params, Reading
from dasd_resources.storage.passes import passes

CHUNK = 2000  # rows that Python compares
KEYS_AT_ONCE = 4_000_000  # that DuckDB compares, as many as the sentences of a batch of `dasd-4b`


def drawn(table: str, key: str, sample: int | None, where: str = "TRUE") -> str:
    """SQL for the rows of a table, or for so many, drawn by a hash of their key; of the others only that is read."""
    rows = f"FROM {table} WHERE {where}"
    if sample is not None:
        rows += f" AND {key} IN ({first_by_hash(f'SELECT {key} {rows}', key, sample)})"
    return f"({rows})"


def first_by_hash(query: str, key: str, sample: int | None) -> str:
    """SQL for the rows of a query, or for so many of them; all their columns are read, so few and short ones."""
    return query if sample is None else f"{query} ORDER BY md5({key}) LIMIT {sample}"


def part(sample: int | None, groups: pl.DataFrame) -> int | None:
    """Of a sample, the rows that each group gets: together at least as many."""
    return None if sample is None else -(-sample // max(groups.height, 1))


def by_batches(reading: Reading, *tables: str) -> Iterator[tuple[str, Params]]:
    """SQL conditions, each with its parameters, that divide these tables: batches of some KEYS_AT_ONCE rows, or one."""
    rows = " UNION ALL ".join(f"SELECT batch FROM {table}" for table in tables)
    batches = reading.read(f"SELECT batch, count(*) FROM ({rows}) GROUP BY batch ORDER BY batch").rows()
    for first, last in passes(batches, KEYS_AT_ONCE, most=math.inf):  # tables are partitioned by batch
        yield "batch BETWEEN $first AND $last", {"first": first, "last": last}
