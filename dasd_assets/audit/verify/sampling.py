"""Which rows of a table are recomputed: all, a chunk of them in memory at a time, or a sample."""

import polars as pl

CHUNK = 2000


def some(key: str, sample: int | None) -> str:
    """SQL for so many rows, drawn by a hash of their key; for all of them where there is no sample."""
    return "" if sample is None else f" ORDER BY md5({key}) LIMIT {sample}"


def part(sample: int | None, groups: pl.DataFrame) -> int | None:
    """Of a sample, the rows that each group gets: together at least as many."""
    return None if sample is None else -(-sample // max(groups.height, 1))
