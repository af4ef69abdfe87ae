"""Damaged data files -> what can be made again of their rows; those files are dropped, in one commit, on demand.

A file of a derived table (`Table.derived`), all of whose sources are whole or dropped with it, is dropped: the newest
snapshot no longer names it, as after a DELETE of all its rows, and earlier ones still do. `repaired_files` keeps what
was dropped; `service.staleness` takes the assets that write its table for out of date until they were made since. All
else needs a backup, and nothing is guessed: a file whose rows a model wrote or scored, or that records what happened,
stays as it is.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb
import polars as pl
from filelock import Timeout

from dasd_resources.errors import UserError
from dasd_resources.storage.catalogs import UPKEEP
from dasd_resources.storage.connections import AUTHOR, attach
from dasd_resources.storage.data_files import CATALOG_TABLES, Damage, DataFile, damaged, data_files
from dasd_resources.storage.lake import Lake, Reading
from dasd_resources.storage.tables import TABLES

RESTORE = "`dasd restore` brings it back from a backup"
# Tables of which experiments write rows, too.
OF_EXPERIMENTS = {
    "experiment_cells",
    "experiment_comparisons",
    "experiment_datasets",
    "published_datasets",
    "selected_responses",
    "sft_examples",
}
# Tables that have what stands in no other, but in the landed file of their batch.
OF_LANDED_FILES = {
    "held_out_overlaps",
    "landed_files",
    "landed_logprobs",
    "landed_responses",
    "prompt_lines",
    "prompts",
    "rejected_prompts",
    "rejected_responses",
}
AT_WORK = "{}: nothing was changed; try again when it has ended"


class HomeInUse(UserError, RuntimeError):
    """Another process works on the home; the message says what."""


@dataclass(frozen=True)
class RepairPlan:
    """drop: damaged files whose rows are made again. keep: the others, each with the reason. notes: what stays lost."""

    drop: list[Damage] = field(default_factory=list)
    keep: list[tuple[Damage, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RepairedFile:
    """A file that was dropped: its rows are made again by what writes its table after `last_event` of Dagster's log.

    batch: None if its rows may be of any.
    """

    table: str
    batch: str | None
    last_event: int


def plan_repair(lake: Lake, batches: Collection[str], unlanded: Collection[str]) -> RepairPlan:
    """What can be done about every damaged file. batches: that exist. unlanded: those whose landed file is gone.

    Reads every file.
    """
    damages = list(damaged(lake.catalog, files_not_dropped(lake)))
    # A file is kept for what it is itself; then, until nothing changes, for a source of its rows that is kept.
    keep = {d: reason for d in damages if (reason := _irreplaceable(d.file, batches, unlanded))}
    while found := {
        d: f"its rows are made from {source}, which is damaged too; {RESTORE}"
        for d in damages
        if d not in keep and (source := _spoiled_source(d.file, [k.file for k in keep if k.file.newest]))
    }:
        keep |= found
    drop = [d for d in damages if d not in keep]
    return RepairPlan(drop, list(keep.items()), [*_notes(lake, drop), *_experiments(lake, damages)])


def files_not_dropped(lake: Lake) -> list[DataFile]:
    """Every file that a snapshot names, but for those that a repair has dropped: what is wrong with them is known."""
    dropped = set(lake.read("SELECT path FROM repaired_files")["path"])
    return [file for file in data_files(lake.catalog) if file.newest or file.path not in dropped]


def _irreplaceable(file: DataFile, batches: Collection[str], unlanded: Collection[str]) -> str | None:
    """Why a file's rows cannot be made again, whatever else is whole."""
    if not file.newest:
        return (
            f"only snapshots {file.first} to {file.end} have it, and what is made now is not what they held; {RESTORE}"
        )
    if not file.derived:
        return f"nothing else holds its rows; {RESTORE}"
    if file.batch is not None and file.batch not in batches:
        return f"its batch was removed, so nothing makes its rows again; {RESTORE}"
    if file.table in OF_LANDED_FILES:
        gone = sorted(unlanded) if file.batch is None else [file.batch] if file.batch in unlanded else []
        if gone:
            return f"its rows come from a landed file that is gone (batch {', '.join(gone)}): put it back, or {RESTORE}"
    return None


def _spoiled_source(file: DataFile, kept: Sequence[DataFile]) -> str | None:
    """A table that a file's rows are made from, directly or not, and that has a damaged file of the same batch."""
    sources = sources_of(file.table)
    for other in kept:
        if other.table in sources and (None in (file.batch, other.batch) or file.batch == other.batch):
            return other.table
    return None


def sources_of(table: str) -> set[str]:
    """Every table that decides which rows a table has, or what is in them: as its columns and references say."""
    found, todo = set[str](), [table]
    while todo:
        declared = TABLES[todo.pop()]
        named = {source.partition(".")[0] for column in declared.columns for source in column.sources}
        named |= {reference.table for reference in declared.references}
        todo += named - found
        found |= named
    return found - {table}


def _notes(lake: Lake, drop: Sequence[Damage]) -> Iterator[str]:
    """The checkpoints whose training read rows of a dropped file: as of their snapshot, those stay lost."""
    taught = [d.file for d in drop if d.file.table == "sft_examples"]
    query = "SELECT checkpoint_id, snapshot_id FROM checkpoints WHERE snapshot_id IS NOT NULL ORDER BY ALL"
    for checkpoint, snapshot in lake.read(query).unique(maintain_order=True).iter_rows() if taught else ():
        if any(file.first <= snapshot for file in taught):
            yield (
                f"checkpoint {checkpoint}: the rows it was trained on cannot be read as of its snapshot {snapshot}, "
                f"even when they have been made again; {RESTORE}"
            )


def _experiments(lake: Lake, damages: Sequence[Damage]) -> Iterator[str]:
    """The experiments that have rows in the damaged tables: no `dasd run` makes them again, the experiment does."""
    tables = sorted({damage.file.table for damage in damages if damage.file.newest} & OF_EXPERIMENTS)
    if "experiment_cells" in tables:
        yield "experiment_cells: every experiment that is run again writes its rows anew"
    elif tables:
        query = "SELECT DISTINCT recipe, experiment FROM experiment_cells ORDER BY ALL"
        for recipe, name in lake.read(query).iter_rows():
            again = f"`dasd experiment {name} --recipe {recipe}` makes its rows again"
            yield f"{', '.join(tables)}: after `dasd run`, {again}"


def drop_files(lake: Lake, plan: RepairPlan, last_event: Callable[[], int]) -> int:
    """Drop the plan's files from the newest snapshot; returns the snapshot without them.

    last_event: the one of Dagster's log, asked when maintenance and backups are kept out; it may raise HomeInUse, as
    runs that began while the plan was made may be reading what is to be dropped. Raises HomeInUse, too, if another
    process writes, or maintenance or a backup is at work.
    Killed in between, it has changed nothing, or only noted what it was about to drop: another repair goes on.
    """
    try:
        with lake.catalog.locked(UPKEEP, timeout=0):
            _note(lake, plan.drop, last_event())
            with lake.catalog.locked(timeout=0), attach(lake.catalog) as connection:
                return _drop(connection, plan.drop)
    except Timeout as error:
        raise HomeInUse(AT_WORK.format(f"another process holds {error.lock_file}")) from None


def _note(lake: Lake, drop: Sequence[Damage], last_event: int) -> None:
    """Before the drop: were it after, a kill in between would leave rows that nobody knows to be missing."""
    rows = [
        {
            "path": damage.file.path,
            "table_name": damage.file.table,
            "batch": damage.file.batch,
            "num_rows": damage.file.num_rows,
            "what": damage.what,
            "last_event": last_event,
            "repaired_at": datetime.now(UTC),
        }
        for damage in drop
    ]
    with lake.commit(json.dumps({"repair": "about to drop files", "files": len(rows)})) as transaction:
        for row in rows:
            transaction.replace("repaired_files", {"path": row["path"]}, pl.DataFrame([row]))
        # Landed responses that were read once are not read again. What `landed_files` itself has lost goes by itself.
        if all(damage.file.table != "landed_files" for damage in drop):
            for batch in {damage.file.batch for damage in drop if damage.file.table in OF_LANDED_FILES}:
                transaction.replace("landed_files", {} if batch is None else {"batch": batch}, pl.DataFrame())


def _drop(connection: duckdb.DuckDBPyConnection, drop: Sequence[Damage]) -> int:
    """The commit that DuckLake makes of a DELETE of all rows of a file, which it would have to read for that."""
    # A snapshot, what it changed, and where each file ends: three statements in one transaction of the catalog.
    message = json.dumps({"repair": [damage.file.path for damage in drop]})
    connection.execute("BEGIN")
    connection.execute(_NEW_SNAPSHOT, {"now": datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S.%f+00")})
    found = connection.execute(f"SELECT max(snapshot_id) FROM {CATALOG_TABLES}.ducklake_snapshot").fetchone()
    assert found is not None
    params = {"snapshot": found[0], "files": sorted({damage.file.data_file for damage in drop})}
    changes = {"snapshot": found[0], "files": params["files"], "author": AUTHOR, "message": message}
    connection.execute(_NEW_CHANGES, changes)
    connection.execute(_END, params)
    connection.execute("COMMIT")
    return int(found[0])


def repaired_files(reading: Reading) -> list[RepairedFile]:
    """The files that repairs have dropped."""
    rows = reading.read("SELECT table_name, batch, last_event FROM repaired_files ORDER BY path")
    return [RepairedFile(*row) for row in rows.iter_rows()]


_NEW_SNAPSHOT = f"""INSERT INTO {CATALOG_TABLES}.ducklake_snapshot
    SELECT snapshot_id + 1, $now, schema_version, next_catalog_id, next_file_id
    FROM {CATALOG_TABLES}.ducklake_snapshot ORDER BY snapshot_id DESC LIMIT 1"""
_NEW_CHANGES = f"""INSERT INTO {CATALOG_TABLES}.ducklake_snapshot_changes
    SELECT $snapshot, string_agg(DISTINCT 'deleted_from_table:' || table_id, ','), $author, $message, NULL
    FROM {CATALOG_TABLES}.ducklake_data_file WHERE list_contains($files::BIGINT[], data_file_id)"""
_END = f"""UPDATE {CATALOG_TABLES}.ducklake_data_file SET end_snapshot = $snapshot
    WHERE end_snapshot IS NULL AND list_contains($files::BIGINT[], data_file_id)"""
