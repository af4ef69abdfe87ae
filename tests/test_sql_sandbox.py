"""SQL from a person: reads of the tables pass, every attack on files, settings and other tables is refused."""

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import polars as pl
import pytest

from dasd_resources.storage.catalogs import Catalog
from dasd_resources.storage.connections import UnknownSnapshot
from dasd_resources.storage.sql_sandbox import RefusedQuery, check_select, select
from dasd_resources.storage.warehouse import Warehouse

NUM_ROWS = 3000  # enough for a Parquet file of their own


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """A warehouse with rows in a data file, and beside its home a CSV file and a SQLite file with a secret."""
    outside = tmp_path_factory.mktemp("outside")
    warehouse = Warehouse(home=str(outside / "home"))
    rows = pl.DataFrame({"request_id": [f"r{i}" for i in range(NUM_ROWS)]})
    rows = rows.with_columns(asset=pl.lit("a"), reason=pl.lit("b"), failed_at=pl.lit(datetime.now(UTC)))
    with warehouse.commit("test") as transaction:
        transaction.append_missing("failed_requests", rows)
    (outside / "secret.csv").write_text("key\nsesame\n")
    with sqlite3.connect(outside / "secret.sqlite") as connection:
        connection.executescript("CREATE TABLE keys(key); INSERT INTO keys VALUES ('sesame')")
    return warehouse.catalog


@pytest.mark.parametrize(
    ("query", "height"),
    [
        ("SELECT * FROM failed_requests", NUM_ROWS),
        ("WITH a AS (FROM failed_requests) SELECT count(*) FROM a, unnest([1, 2])", 1),
        ("FROM dasd.snapshots() LIMIT 1", 1),
        ("SELECT request_id FROM failed_requests ORDER BY hash(request_id) LIMIT 5;", 5),
        ("DESCRIBE failed_requests", 8),
        ("SUMMARIZE failed_requests", 8),
        ("EXPLAIN ANALYZE SELECT count(*) FROM failed_requests", 1),
        ("SELECT path FROM __ducklake_metadata_dasd.ducklake_data_file LIMIT 1", 1),
        ("VALUES (1), (2)", 2),
    ],
)
def test_reads_pass(catalog: Catalog, query: str, height: int) -> None:
    assert select(catalog, query).height == height


def test_tables_are_listed(catalog: Catalog) -> None:
    assert "responses" in select(catalog, "SHOW TABLES")["name"]


ATTACKS = """\
SELECT * FROM '{outside}/secret.csv'
SELECT * FROM read_csv('{outside}/secret.csv')
SELECT * FROM read_text('{outside}/secret.csv')
SELECT * FROM glob('{outside}/*')
SELECT * FROM '{home}/data/../../secret.csv'
SELECT * FROM '{home}/catalog.sqlite'
SELECT * FROM sqlite_scan('{outside}/secret.sqlite', 'keys')
SELECT * FROM system.main.SQLITE_SCAN('{outside}/secret.sqlite', 'keys')
SELECT (SELECT count(*) FROM sqlite_scan('{outside}/secret.sqlite', 'keys'))
WITH a AS MATERIALIZED (FROM sqlite_scan('{outside}/secret.sqlite', 'keys')) SELECT * FROM a
SELECT 1 UNION ALL SELECT 2 WHERE EXISTS (FROM sqlite_scan('{outside}/secret.sqlite', 'keys'))
SELECT * FROM query('FROM sqlite_scan(''{outside}/secret.sqlite'', ''keys'')')
EXPLAIN ANALYZE SELECT * FROM sqlite_scan('{outside}/secret.sqlite', 'keys')
SUMMARIZE FROM sqlite_scan('{outside}/secret.sqlite', 'keys')
SELECT * FROM sqlite_query('__ducklake_metadata_dasd', 'SELECT 1')
CALL sqlite_attach('{outside}/secret.sqlite')
ATTACH '{outside}/secret.sqlite' AS other (TYPE sqlite)
ATTACH 'ducklake:sqlite:{outside}/new.sqlite' AS other (DATA_PATH '{outside}/new')
ATTACH ':memory:' AS other
COPY (SELECT 1) TO '{outside}/out.csv'
COPY failed_requests TO '{home}/data/out.parquet'
EXPLAIN ANALYZE COPY (SELECT 1) TO '{home}/data/out.csv'
EXPLAIN ANALYZE /* */ COPY (SELECT 1) TO '{home}/data/out.csv'
COPY failed_requests FROM '{outside}/secret.csv'
EXPORT DATABASE '{outside}/out'
INSTALL httpfs
LOAD httpfs
SET enable_external_access = true
SET allowed_directories = ['/']
RESET lock_configuration
PRAGMA enable_profiling
PRAGMA profiling_output='{outside}/out.csv'
CREATE TABLE memory.t AS SELECT 1
CREATE MACRO memory.f() AS TABLE FROM sqlite_scan('{outside}/secret.sqlite', 'keys')
CREATE SECRET s (TYPE s3)
INSERT INTO failed_requests BY NAME SELECT * FROM failed_requests
DELETE FROM failed_requests
DROP TABLE failed_requests
UPDATE __ducklake_metadata_dasd.ducklake_data_file SET path = 'x'
CALL ducklake_cleanup_old_files('dasd', cleanup_all => true)
FROM ducklake_cleanup_old_files('dasd', cleanup_all => true)
FROM ducklake_delete_orphaned_files('dasd', cleanup_all => true)
FROM ducklake_expire_snapshots('dasd', versions => [1])
FROM ducklake_merge_adjacent_files('dasd')
FROM dasd.set_option('parquet_compression', 'zstd')
FROM ducklake_add_data_files('dasd', 'failed_requests', '{outside}/secret.csv')
DETACH dasd
USE memory
CHECKPOINT
BEGIN
PREPARE p AS SELECT 1
SELECT 1; COPY (SELECT 1) TO '{outside}/out.csv'
FROM catalog
FROM arrow_scan(1, 2, 3)""".splitlines()


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused_and_changes_nothing(catalog: Catalog, attack: str) -> None:
    outside = catalog.home.parent
    before = _files(outside)
    with pytest.raises((RefusedQuery, duckdb.Error)):
        select(catalog, attack.format(outside=outside, home=catalog.home))
    assert _files(outside) == before
    assert select(catalog, "SELECT count(*) FROM failed_requests").item() == NUM_ROWS


def _files(folder: Path) -> set[str]:
    """Everything but the shared-memory files that SQLite keeps while a catalog is open."""
    return {str(path) for path in folder.rglob("*") if not path.name.startswith("catalog.sqlite-")}


def test_a_file_named_as_a_table_is_stopped_by_duckdb(catalog: Catalog) -> None:
    """The check of the syntax cannot tell a table from a file."""
    query = f"SELECT * FROM '{catalog.home.parent}/secret.csv'"
    check_select(query)
    with pytest.raises(duckdb.PermissionException, match="disabled by configuration"):
        select(catalog, query)


def test_the_refusal_lists_what_is_permitted(catalog: Catalog) -> None:
    with pytest.raises(RefusedQuery, match=r"glob are not permitted; these are: .*snapshots"):
        select(catalog, "FROM glob('*')")


def test_large_sorts_spill_to_a_folder_that_is_removed(
    catalog: Catalog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert (
        select(catalog, "SELECT max(a) FROM (SELECT range AS a FROM range(100000) ORDER BY hash(range))").item()
        == 99999
    )
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_snapshot_says_so(catalog: Catalog) -> None:
    assert select(catalog, "SELECT count(*) FROM failed_requests", at=1).item() == 0  # as it was made
    with pytest.raises(UnknownSnapshot, match="no snapshot 999: the newest is"):
        select(catalog, "SELECT 1", at=999)


def test_an_expired_snapshot_says_so(tmp_path: Path) -> None:
    warehouse = Warehouse(home=str(tmp_path))
    with warehouse.commit("another snapshot, as the newest stays") as transaction:
        transaction.read("CREATE TABLE another(id INTEGER)")
    with warehouse.commit("test") as transaction:
        transaction.read("CALL ducklake_expire_snapshots('dasd', versions => [1])")
    with pytest.raises(UnknownSnapshot, match="no snapshot 1: it has been expired"):
        select(warehouse.catalog, "SELECT 1", at=1)
    with pytest.raises(UnknownSnapshot, match="no snapshot 1"):
        warehouse.read("SELECT 1", at=1)
