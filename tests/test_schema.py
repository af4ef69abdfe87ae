"""New catalogs have what is declared, old ones are brought forward to it, and a later release's is refused."""

import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from itertools import product
from pathlib import Path

import duckdb
import polars as pl
import pytest
from old_catalog import old_catalog
from shared_stores import Storage

from dasd_resources.storage import schema
from dasd_resources.storage.connections import attach
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.migrations import MIGRATIONS
from dasd_resources.storage.schema import NewerCatalog, SchemaConflict, migrate
from dasd_resources.storage.tables import TABLES, Column, Table

NOTE = Column("note", "VARCHAR", "A note.", nullable=True)
COLUMNS = """SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns()
    WHERE database_name = 'dasd' AND table_name <> 'schema_version' ORDER BY ALL"""


@pytest.fixture
def lake(storage: Storage, tmp_path: Path) -> Lake:
    return Lake(str(storage.begin(tmp_path / "home")))


def append(lake: Lake, *ids: str) -> None:
    rows = {"rollout_id": ids, "cut_token": [1] * len(ids), "seed": [0] * len(ids), "cut_version": ["1"] * len(ids)}
    with lake.commit("test") as transaction:
        transaction.append_missing("prefix_cuts", pl.DataFrame(rows))


def versions(lake: Lake) -> list[int]:
    with attach(lake.catalog, read_only=True) as connection:
        return [row[0] for row in connection.sql("SELECT version FROM schema_version ORDER BY ALL").fetchall()]


def statistics(lake: Lake, table: str) -> list[tuple[object, ...]]:
    """What DuckLake keeps of a table's rows and columns."""
    query = """SELECT s.record_count, s.next_row_id, c.* EXCLUDE (table_id)
        FROM m.ducklake_table_stats s LEFT JOIN m.ducklake_table_column_stats c USING (table_id)
        WHERE table_id IN (SELECT table_id FROM m.ducklake_table WHERE table_name = $table AND end_snapshot IS NULL)
        ORDER BY column_id"""
    with attach(lake.catalog, read_only=True) as connection:
        return connection.execute(query.replace("m.", "__ducklake_metadata_dasd."), {"table": table}).fetchall()


def with_column(name: str, column: Column) -> tuple[Table, ...]:
    table = replace(TABLES[name], columns=(*TABLES[name].columns, column))
    return tuple({**TABLES, name: table}.values())


@pytest.mark.parametrize("num_steps", range(1, 6))
def test_a_catalog_of_any_earlier_release_becomes_like_a_new_one(lake: Lake, tmp_path: Path, num_steps: int) -> None:
    old = old_catalog(tmp_path / "old", num_steps)
    assert old.read(COLUMNS).rows() == lake.read(COLUMNS).rows()
    assert versions(old) == [*range(1, len(MIGRATIONS) + 1), len(MIGRATIONS)]
    assert versions(lake) == [len(MIGRATIONS)]
    assert statistics(old, "landed_responses") == statistics(lake, "landed_responses") != []


def test_tables_are_partitioned_as_before(lake: Lake, tmp_path: Path) -> None:
    partitioned = [(name,) for name, table in TABLES.items() if table.partitioned_by_batch]
    assert partitioned == [
        ("landed_responses",),
        ("landed_logprobs",),
        ("responses",),
        ("student_tokens",),
        ("student_logprobs",),
        ("sentence_probabilities",),
    ]
    for home in (lake, old_catalog(tmp_path / "old", 5)):
        home.migrate()
        with closing(sqlite3.connect(Path(home.home) / "catalog.sqlite")) as connection:
            query = """SELECT t.table_name FROM ducklake_table t JOIN ducklake_partition_info p USING (table_id)
                WHERE t.end_snapshot IS NULL AND p.end_snapshot IS NULL"""
            assert sorted(connection.execute(query).fetchall()) == sorted(partitioned)


def test_a_renamed_column_keeps_its_values_and_its_old_name_in_old_snapshots(tmp_path: Path) -> None:
    old = old_catalog(tmp_path / "old", 5)
    with attach(old.catalog) as connection:
        connection.execute("""INSERT INTO selected_responses
            VALUES ('r', 'd', 'das', 'i', 'p', 'math', 1, 0.5, 's', 0.1, 'v', 'the selection', NULL)""")
        [then] = connection.sql("SELECT max(snapshot_id) FROM dasd.snapshots()").fetchall()[0]
    assert old.read("SELECT selection_id FROM selected_responses").item() == "the selection"
    assert old.read("SELECT dataset_id FROM selected_responses", at=then).item() == "the selection"


def test_the_students_tokens_leave_its_logprobs_and_stay_in_old_snapshots(tmp_path: Path) -> None:
    dropped = next(number for number, step in enumerate(MIGRATIONS) if "student_logprobs DROP COLUMN" in step)
    old = old_catalog(tmp_path / "old", dropped)
    with attach(old.catalog) as connection:
        connection.execute("INSERT INTO student_logprobs VALUES ('r', 'b', 's', 'e', 'd', [7], [-0.5], [0], NULL)")
        [then] = connection.sql("SELECT max(snapshot_id) FROM dasd.snapshots()").fetchall()[0]
    row = {"response_id": "r", "batch": "b", "student_fingerprint": "s", "engine": "e", "dtype": "d"}
    assert old.read("SELECT * FROM student_logprobs").to_dicts() == [{**row, "logprobs": [-0.5], "run_id": None}]
    assert old.read("SELECT * FROM student_tokens").is_empty()
    assert old.read("SELECT token_ids, offsets FROM student_logprobs", at=then).row(0) == ([7], [0])


def test_checkpoints_of_an_earlier_release_are_named_for_their_dataset(tmp_path: Path) -> None:
    old = old_catalog(tmp_path / "old", 5)
    columns = "checkpoint_id, recipe, stage, dataset, path, content_hash, materialized_at"
    rows = [
        ("T", "teacher", None),
        ("S", "student", None),
        ("a", "stage1", "t060"),
        ("b", "stage2", "t100"),
        ("c", "stage3", "mixed"),
        ("d", "stage12", "t130"),
    ]
    with attach(old.catalog) as connection:
        for row in rows:
            query = f"INSERT INTO checkpoints({columns}) VALUES ($1, 'r', $2, $3, '/', 'h', now())"
            connection.execute(query, row)
        [then] = connection.sql("SELECT max(snapshot_id) FROM dasd.snapshots()").fetchall()[0]
    assert old.read("SELECT checkpoint_id, name, stage FROM checkpoints ORDER BY stage, name").rows() == [
        ("S", "student", 0),
        ("a", "t060", 1),
        ("b", "t100", 2),
        ("c", "mixed", 3),
        ("d", "t130", 12),
        ("T", "teacher", None),
    ]
    assert old.read("SELECT checkpoint_id, stage, dataset FROM checkpoints ORDER BY stage", at=then).rows() == sorted(
        rows, key=lambda row: row[1]
    )


@pytest.mark.storage
def test_an_empty_table_is_read_without_looking_for_its_statistics_again_and_again(lake: Lake) -> None:
    with lake.reading() as reading:
        reading.read("FROM landed_responses")
        reading.read("CALL enable_logging('QueryLog')")
        assert reading.read("FROM landed_responses").is_empty()
        sent = reading.read("SELECT message FROM duckdb_logs WHERE message LIKE '%ducklake_table_stats%'")
        reading.read("CALL disable_logging()")
    assert sent.height <= 1


@pytest.mark.storage
def test_a_reader_that_has_seen_a_table_empty_sees_its_first_rows(lake: Lake) -> None:
    no_place = "SELECT count(*) FROM prefix_cuts WHERE cut_char IS NULL"  # none, by the statistics of no rows
    assert lake.read(no_place).item() == 0
    append(lake, "a")
    assert lake.read(no_place).item() == 1


@pytest.mark.storage
def test_the_statistics_of_a_table_are_those_that_ducklake_makes_itself(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = {"batch": "b", "student_fingerprint": "s", "engine": "e", "dtype": "d", "logprobs": [-0.5, 1.0]}
    lake.migrate()
    monkeypatch.setattr(schema, "_note_no_rows", lambda _: None)
    alone = Lake(str(tmp_path / "alone"))
    alone.migrate()
    assert statistics(alone, "student_logprobs") == []
    assert statistics(lake, "student_logprobs") != []
    for name, home in product("ab", (lake, alone)):
        with home.commit("test") as transaction:
            transaction.append_missing("student_logprobs", pl.DataFrame([{"response_id": name, **row}]))
    assert statistics(lake, "student_logprobs") == statistics(alone, "student_logprobs")


@pytest.mark.storage
def test_a_column_that_may_be_null_is_added_where_it_is_missing(lake: Lake) -> None:
    append(lake, "a")
    newer = with_column("prefix_cuts", NOTE)
    migrate(lake.catalog, newer)
    migrate.cache_clear()  # as in another process
    migrate(lake.catalog, newer)
    assert lake.read("SELECT rollout_id, note FROM prefix_cuts").rows() == [("a", None)]
    assert versions(lake) == [len(MIGRATIONS)] * 2  # for each of the two hashes
    append(lake, "b")  # by a release that knows nothing of it
    assert lake.read("SELECT count(*) FROM prefix_cuts").item() == 2


@pytest.mark.parametrize(
    ("column", "found"),
    [
        (
            replace(NOTE, nullable=False),
            "prefix_cuts.note is declared as VARCHAR NOT NULL, the catalog lacks it: add a",
        ),
        (
            Column("cut_token", "BIGINT", "x", nullable=True),
            "cut_token is declared as BIGINT, the catalog has it as INT",
        ),
        (Column("seed", "BIGINT", "x", nullable=True), "seed is declared as BIGINT, the catalog has it as BIGINT NOT"),
    ],
)
def test_what_no_catalog_gets_by_itself_says_so(lake: Lake, column: Column, found: str) -> None:
    append(lake, "a")
    others = tuple(c for c in TABLES["prefix_cuts"].columns if c.name != column.name)
    table = replace(TABLES["prefix_cuts"], columns=(*others, column))
    with pytest.raises(SchemaConflict, match=f"{found}.*storage/migrations.py"):
        migrate(lake.catalog, tuple({**TABLES, "prefix_cuts": table}.values()))
    assert lake.read("SELECT rollout_id FROM prefix_cuts").item() == "a"


@pytest.mark.storage
def test_a_step_keeps_the_rows_and_runs_once(lake: Lake) -> None:
    append(lake, "a")
    added = (*MIGRATIONS, "ALTER TABLE prefix_cuts ADD COLUMN note VARCHAR")
    newer = with_column("prefix_cuts", NOTE)
    migrate(lake.catalog, newer, added)
    migrate.cache_clear()  # as in another process
    migrate(lake.catalog, newer, added)
    with attach(lake.catalog, read_only=True) as connection:
        assert connection.sql("SELECT rollout_id, note FROM prefix_cuts").fetchall() == [("a", None)]
    assert versions(lake) == [len(MIGRATIONS), len(added), len(added)]


@pytest.mark.storage
def test_a_step_that_fails_leaves_the_schema_as_it_was(lake: Lake) -> None:
    append(lake, "a")
    broken = (*MIGRATIONS, "CREATE TABLE new_table(id INTEGER); ALTER TABLE nowhere ADD COLUMN note VARCHAR")
    with pytest.raises(duckdb.Error, match="nowhere"):
        migrate(lake.catalog, tuple(TABLES.values()), broken)
    assert versions(lake) == [len(MIGRATIONS)]
    with pytest.raises(duckdb.Error, match="new_table"):
        lake.read("SELECT * FROM new_table")
    assert lake.read("SELECT rollout_id FROM prefix_cuts").item() == "a"


@pytest.mark.storage
def test_a_newer_catalog_is_refused_and_left_as_it_is(lake: Lake) -> None:
    append(lake, "a")
    with attach(lake.catalog) as connection:
        connection.execute("INSERT INTO schema_version(version) VALUES (99)")
        before = connection.sql("FROM dasd.snapshots()").fetchall()
    moved = Lake(str(Path(lake.home).rename(Path(lake.home).with_name("moved"))))
    with pytest.raises(NewerCatalog, match=f"schema version 99; this release knows {len(MIGRATIONS)}: upgrade"):
        moved.migrate()
    with attach(moved.catalog, read_only=True) as connection:
        assert connection.sql("FROM dasd.snapshots()").fetchall() == before


def test_a_look_at_a_catalog_that_is_current_writes_nothing(lake: Lake) -> None:
    before = lake.snapshot_id()
    migrate.cache_clear()
    assert lake.snapshot_id() == before
    shutil.rmtree(lake.home)
    migrate.cache_clear()
    assert lake.read("SELECT count(*) FROM prompts").item() == 0
