"""Upkeep of the lake: small commits and data files merged, old snapshots expired, unreferenced files deleted.

Each step is a commit of its own under the lake's lock, so writers wait for at most one step and readers not at all: a
file is deleted only if no snapshot has named it for longer than the grace period. After a kill at any moment nothing
that a kept snapshot names is lost, and the next run continues. DuckLake does the work; what may be deleted is decided
here: DuckLake takes every Parquet file below the place of the data for its own.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import attrgetter

import polars as pl

from dasd_resources.storage.data_files import CATALOG_TABLES, NUM_NAMED, DataFile, require_content
from dasd_resources.storage.data_files import data_files as list_files
from dasd_resources.storage.lake import Lake, Transaction
from dasd_resources.storage.tables import TABLES

TARGET_BYTES = 512 << 20  # DuckLake's default; larger files are not merged
# Of a merged file, where a row has lists of thousands of values: a writer holds a row group before it is compressed, a
# reader up to 2,048 rows of it. DuckDB's 122,880 rows would be all that 512 MB hold.
ROWS_OF_LISTS, GROUP_BYTES = 2048, 16 << 20
LISTED = "SELECT path FROM {function}('dasd', dry_run => true, older_than => $before)"
DELETED = "CALL ducklake_cleanup_old_files('dasd', older_than => $before)"
# What DuckLake calls a file: schema, table, perhaps the values of a partition, then data or deletes.
OWN_FILE = re.compile(r"main/([^/]+/)([^/=]+=[^/]*/)*ducklake-[0-9a-f-]{36}(-delete)?\.parquet")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Swept:
    """Number and size of the files that were deleted, and number of those that were found and are not ours."""

    num_files: int = 0
    num_bytes: int = 0
    num_foreign: int = 0

    def __add__(self, other: "Swept") -> "Swept":
        num_foreign = self.num_foreign + other.num_foreign
        return Swept(self.num_files + other.num_files, self.num_bytes + other.num_bytes, num_foreign)


def flush_small_commits(lake: Lake, origin: str) -> int:
    """Write the rows of small commits to data files; returns their number. Snapshots stay whole.

    DuckLake keeps up to ten rows of a commit in the catalog, lists of tokens as text, and no hash is taken of them.
    """
    with lake.commit(origin) as transaction:
        flushed = transaction.read("CALL ducklake_flush_inlined_data('dasd')")
    return 0 if flushed.is_empty() else int(flushed["rows_flushed"].sum())


def merge_small_files(lake: Lake, origin: str) -> dict[str, int]:
    """Merge adjacent data files up to DuckLake's target size; table -> number of files merged. Snapshots stay whole.

    Raises DamagedFiles rather than write the rows of a damaged file into a new one, which would look whole.
    """
    info = lake.read("SELECT table_name, file_count FROM ducklake_table_info('dasd') WHERE file_count > 1")
    merged: dict[str, int] = {}
    for table in sorted(info["table_name"]):
        files = _to_merge(lake, table)
        require_content(lake.catalog, files)
        if files:
            _bound_row_groups(lake, origin, table, files)
        while num_files := _merge_once(lake, origin, table):
            merged[table] = merged.get(table, 0) + num_files
    return merged


def _to_merge(lake: Lake, table: str) -> list[DataFile]:
    """The files that may be merged: small ones, where there are several of one partition."""
    by_batch = table in TABLES and TABLES[table].partitioned_by_batch
    parts = defaultdict[str | None, list[DataFile]](list)
    for file in list_files(lake.catalog):
        if file.table == table and file.newest and not file.deletes and file.size < TARGET_BYTES:
            parts[file.batch if by_batch else None].append(file)
    return [file for part in parts.values() if len(part) > 1 for file in part]


def _bound_row_groups(lake: Lake, origin: str, table: str, files: Sequence[DataFile]) -> None:
    """Have merged files of a table with lists written in short row groups, by these ones; this makes no snapshot."""
    if table in TABLES and any(column.type.endswith("[]") for column in TABLES[table].columns):
        num_rows, num_bytes = (sum(map(attrgetter(name), files)) for name in ("num_rows", "size"))
        rows = max(min(ROWS_OF_LISTS, GROUP_BYTES * num_rows // num_bytes), 1)
        option = "CALL dasd.set_option('parquet_row_group_size', $rows, table_name => $table)"
        with lake.commit(origin) as transaction:
            transaction.read(option, {"rows": str(rows), "table": table})


def _merge_once(lake: Lake, origin: str, table: str) -> int:
    """Merge one file's worth, so that writers wait no longer than that; returns the number of files merged."""
    with lake.commit(origin) as transaction:
        query = "CALL ducklake_merge_adjacent_files('dasd', $table, max_compacted_files => 1)"
        done = transaction.read(query, {"table": table})
    return 0 if done.is_empty() else int(done["files_processed"].sum())


def expire_snapshots(lake: Lake, origin: str, before: datetime, pinned: Iterable[int]) -> tuple[int, int]:
    """Expire the snapshots that were superseded before `before`; returns how many, and how many old ones are kept.

    Kept are the newest, those `pinned`, and those that any row of any table names in a column `snapshot_id`.
    """
    # Age counts from the next snapshot, not from its own: after a quiet month the newest snapshot is old, and a
    # reader that opened it a moment before another commit must still have its time. The rows that name snapshots are
    # read inside the locked transaction, so that no row is added in between.
    with lake.commit(origin) as transaction:
        kept = referenced_snapshots(transaction) | set(pinned)
        query = """SELECT snapshot_id FROM dasd.snapshots()
            QUALIFY lead(snapshot_time) OVER (ORDER BY snapshot_id) < $before"""
        old = set(transaction.read(query, {"before": before})["snapshot_id"])
        if expired := sorted(old - kept):
            transaction.read(f"CALL ducklake_expire_snapshots('dasd', versions => {expired})")
    return len(expired), len(old & kept)


def referenced_snapshots(transaction: Transaction) -> set[int]:
    """Every snapshot that a row of any table names in a column `snapshot_id`.

    `checkpoints` names the one each was trained on, `published_datasets` that of the latest version of every dataset.
    Earlier versions on which nothing was trained are not kept: each would keep all the files of its time.
    """
    query = "SELECT table_name FROM duckdb_columns() WHERE database_name = 'dasd' AND column_name = 'snapshot_id'"
    ids: set[int] = set()
    for table in transaction.read(query)["table_name"]:
        named = f"SELECT DISTINCT snapshot_id FROM {table} WHERE snapshot_id IS NOT NULL"
        ids.update(transaction.read(named)["snapshot_id"])
    return ids


def delete_unreferenced(lake: Lake, origin: str, before: datetime) -> Swept:
    """Delete data files that no snapshot has named since `before`: expired, merged, or never committed."""
    # Over SQLite, DuckLake 1.5.5 compares these times as texts of two forms, in which every time of a day sorts
    # before any other of that day: files would go up to a day too early. So we ask for the day before, and files that
    # were once named wait until the end of the day (UTC).
    yesterday = before.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(seconds=1)
    return _delete_expired(lake, origin, yesterday) + _delete_orphaned(lake, origin, before)


def _delete_expired(lake: Lake, origin: str, before: datetime) -> Swept:
    """Delete what snapshots have named once."""
    with lake.commit(origin) as transaction:
        paths = _listed(lake, transaction, "ducklake_cleanup_old_files", before)
        sizes = lake.catalog.data.sizes(paths)  # not of those that an upkeep which was killed has deleted already
        if paths:
            transaction.read(DELETED, {"before": before})
    return Swept(len(paths), sum(sizes.values()))


def _delete_orphaned(lake: Lake, origin: str, before: datetime) -> Swept:
    """Delete what no commit has named: of the files that DuckLake finds, those of its own form and of our tables."""
    with lake.commit(origin) as transaction:
        paths = _listed(lake, transaction, "ducklake_delete_orphaned_files", before)
        tables = set(transaction.read(f"SELECT path FROM {CATALOG_TABLES}.ducklake_table")["path"])
    own = [path for path in paths if (found := OWN_FILE.fullmatch(path)) and found[1] in tables]
    sizes = lake.catalog.data.sizes(own)
    lake.catalog.data.delete(list(sizes))  # without the lock: what no commit has named for so long, none will
    if foreign := sorted(set(paths) - set(own)):
        named = ", ".join(foreign[:NUM_NAMED])
        message = "%s has %d Parquet files that are of none of this home's tables; they are left alone, move them: %s"
        log.warning(message, lake.catalog.data.root, len(foreign), named)
    return Swept(len(sizes), sum(sizes.values()), len(foreign))


def _listed(lake: Lake, transaction: Transaction, function: str, before: datetime) -> list[str]:
    """What DuckLake would delete, by its path in the catalog."""
    listed = transaction.read(LISTED.format(function=function), {"before": before})
    return [path.removeprefix(lake.catalog.data.root) for path in listed["path"]] if not listed.is_empty() else []


def table_sizes(lake: Lake) -> pl.DataFrame:
    """num_files and num_bytes of the data files that the newest snapshot names, per table."""
    return lake.read(
        "SELECT table_name, file_count AS num_files, file_size_bytes AS num_bytes FROM ducklake_table_info('dasd')"
    )
