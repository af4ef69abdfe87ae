"""A warehouse on PostgreSQL with an object store does what one in a home does, and gives no credential away."""

import json
import os
import socket
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event, Thread, Timer
from uuid import uuid4

import duckdb
import polars as pl
import pytest
import shared_stores
from filelock import Timeout
from old_catalog import old_catalog
from shared_stores import content, overwrite

from dasd_resources.home import prepare_home
from dasd_resources.storage import place
from dasd_resources.storage.backup import back_up
from dasd_resources.storage.catalog_copy import CatalogInUse, dump, restore_dump
from dasd_resources.storage.catalogs import SQLITE_FILE, CatalogAway, PostgresCatalog
from dasd_resources.storage.connections import attach
from dasd_resources.storage.data_files import UnreadableCatalog, damaged, data_files, lost_files
from dasd_resources.storage.data_places import LocalFolder, ObjectStore
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.migrations import MIGRATIONS
from dasd_resources.storage.one_home import IDENTITY, PlaceTaken, require_own
from dasd_resources.storage.place import PLACE, PlaceError, choose_storage
from dasd_resources.storage.restore import restore
from dasd_resources.storage.schema import migrate
from dasd_resources.storage.sql_sandbox import RefusedQuery, select
from dasd_resources.storage.upkeep import Swept, delete_unreferenced

NUM_ROWS = 300  # enough for a data file of their own
COUNT = "SELECT count(*), count(DISTINCT rollout_id), sum(seed) FROM prefix_cuts"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in shared_stores.object_store().items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty warehouse."""
    shared_stores.share(tmp_path / "home")
    return Lake(home=str(tmp_path / "home"))


def append(lake: Lake, name: str, num_rows: int = NUM_ROWS) -> int:
    rows = pl.DataFrame({"rollout_id": [f"{name}-{i}" for i in range(num_rows)]})
    rows = rows.with_columns(seed=pl.lit(1), cut_version=pl.lit("a'b\"\n😀\\"))
    with lake.commit("test") as transaction:
        return transaction.append_missing("prefix_cuts", rows)


def damaged_files(lake: Lake) -> list[str]:
    return [*map(str, lost_files(lake.catalog)), *map(str, damaged(lake.catalog, data_files(lake.catalog)))]


def test_one_commits_at_a_time_and_a_lost_lock_is_seen(lake: Lake) -> None:
    append(lake, "a", 2)
    with lake.catalog.locked():
        with pytest.raises(Timeout), lake.catalog.locked(timeout=0.2):
            pass
        append_elsewhere = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import sys, test_shared_storage as t; t.append(t.Lake(sys.argv[1]), 'b', 2)",
                lake.home,
            ],
            cwd=Path(__file__).parent,
        )
        with pytest.raises(subprocess.TimeoutExpired):
            append_elsewhere.wait(2)
        assert lake.read(COUNT).row(0)[0] == 2  # readers go on
    assert append_elsewhere.wait() == 0
    assert lake.read(COUNT).row(0)[0] == 4
    end_sessions = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'"
    with pytest.raises(CatalogAway, match="terminat"), lake.commit("test") as transaction:
        transaction.replace("prefix_cuts", {"seed": 1}, pl.DataFrame())
        shared_stores.postgres().execute(end_sessions)
    assert lake.read(COUNT).row(0)[0] == 4


def test_the_server_ends_the_session_of_a_lost_machine_soon(lake: Lake) -> None:
    """By itself after two hours, in which nobody else could commit."""
    assert isinstance(lake.catalog, PostgresCatalog)
    names = [f"tcp_{name}" for name in ("keepalives_idle", "keepalives_interval", "keepalives_count", "user_timeout")]
    with closing(lake.catalog._session(patience=0)) as session, session.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(f'current_setting({name!r})' for name in names)}")
        assert cursor.fetchone() == ("30", "10", "6", "90000")  # which it read back from the socket


def test_a_database_that_starts_again_is_waited_for(lake: Lake) -> None:
    server = shared_stores.postgres()
    append(lake, "a", 2)
    assert lake.read(COUNT).row(0)[0] == 2  # leaves an idle connection
    server.stop()
    again = Timer(1, server.start)
    again.start()
    try:
        with pytest.raises(UnreadableCatalog, match="see whether the database runs"):
            lake.read(COUNT)
        assert append(lake, "b", 2) == 2  # what took a model's time waits
    finally:
        again.join()
    assert lake.read(COUNT).row(0)[0] == 4


def test_a_reader_whose_database_stops_gets_an_error(lake: Lake) -> None:
    """DuckDB ended the process: in a code server, all of the service."""
    server = shared_stores.postgres()
    try:
        with pytest.raises(UnreadableCatalog, match="see whether the database runs"), lake.reading() as reading:
            reading.read(COUNT)
            server.stop()
            reading.snapshot_id()
    finally:
        server.start()
    assert lake.read(COUNT).row(0)[0] == 0


def test_who_waits_for_the_lock_while_the_database_starts_again_gets_it(lake: Lake) -> None:
    server = shared_stores.postgres()
    holds, waits = Event(), Event()

    def hold() -> None:
        with lake.catalog.locked():
            holds.set()
            waits.wait()

    holder = Thread(target=hold, daemon=True)
    holder.start()
    holds.wait()
    restart = Timer(1, lambda: (server.stop(), server.start(), waits.set()))
    restart.start()
    with lake.catalog.locked() as require:
        require()
    restart.join()
    holder.join()


def test_only_old_objects_that_no_commit_named_are_deleted(lake: Lake) -> None:
    append(lake, "a")
    own = f"ducklake-{uuid4()}.parquet"
    theirs = [f"main/{own}", f"main/orders/{own}", "prompts/theirs.parquet", f"b/main/prefix_cuts/{own}"]
    for path in (f"main/prefix_cuts/{own}", *theirs):
        overwrite(lake, path, b"x" * 100)
    now = datetime.now(UTC)
    assert delete_unreferenced(lake, "test", now - timedelta(hours=1)) == Swept()
    assert delete_unreferenced(lake, "test", now + timedelta(hours=1)) == Swept(1, 100, num_foreign=4)
    assert [content(lake, path) for path in theirs] == [b"x" * 100] * 4
    assert lake.catalog.data.sizes([f"main/prefix_cuts/{own}"]) == {}
    assert damaged_files(lake) == []
    assert append(Lake(home=lake.home), "b") == NUM_ROWS


ATTACKS = """\
FROM __ducklake_metadata_dasd.pg_catalog.pg_shadow
FROM "__Ducklake_Metadata_dasd".ducklake_metadata
SELECT (SELECT count(*) FROM __ducklake_metadata_dasd.public.ducklake_snapshot)
DESCRIBE __ducklake_metadata_dasd.pg_catalog.pg_roles
FROM postgres_query('__ducklake_metadata_dasd', 'SELECT 1')
FROM postgres_scan('{url}', 'public', 'ducklake_metadata')
FROM read_blob('s3://lake/other')
FROM duckdb_secrets()
FROM duckdb_databases()
FROM duckdb_settings()
CREATE SECRET (TYPE s3)
ATTACH '{url}' AS other (TYPE postgres)""".splitlines()


def test_sql_is_confined_there_too(lake: Lake) -> None:
    append(lake, "a")
    assert select(lake.catalog, COUNT).row(0) == (NUM_ROWS,) * 3
    for attack in ATTACKS:
        with pytest.raises((RefusedQuery, duckdb.Error)):
            select(lake.catalog, attack.format(url=lake.catalog.target.removeprefix("postgres:")))
    for setting in ("s3_secret_access_key", "s3_access_key_id"):
        assert select(lake.catalog, f"SELECT current_setting('{setting}')").item() == ""


def test_a_backup_of_either_is_restored_as_the_other(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "dagster").mkdir()
    (tmp_path / "dagster" / "dagster.yaml").touch()
    append(lake, "a")
    append(lake, "b", 3)  # rows that are kept in the catalog
    with lake.commit("test") as transaction:
        transaction.delete_keys("prefix_cuts", {"seed": 1}, "rollout_id", ["a-0", "b-0"])
    then, expected = lake.snapshot_id(), lake.read(COUNT)
    folder, manifest = back_up(Path(lake.home), tmp_path / "dagster", tmp_path / "backups", keep=1)
    assert manifest.snapshot_id == then
    assert {name.partition("/")[0] for name in manifest.entries} == {"catalog.sqlite", "dagster", "data"}
    assert not any(
        secret in path.read_bytes() for path in folder.rglob("*") if path.is_file() for secret in [b"sesame"]
    )
    # 1. In a folder of its own.
    restore(folder, tmp_path / "embedded")
    embedded = Lake(home=str(tmp_path / "embedded"))
    assert (embedded.catalog.exists(), (tmp_path / "embedded" / PLACE).exists()) == (True, False)
    assert embedded.read(COUNT).equals(expected)
    with attach(embedded.catalog) as connection:  # rows in the catalog are now of two kinds
        connection.execute("ALTER TABLE prefix_cuts ADD COLUMN note VARCHAR")
    assert append(embedded, "c") == NUM_ROWS
    # 2. And from there in another database, under another prefix.
    back_up(tmp_path / "embedded", tmp_path / "dagster", tmp_path / "backups", keep=2)
    shared_stores.share(tmp_path / "again", shared_stores.EMPTY)
    prepare_home(tmp_path / "again", None)  # as a command does that finds DASD_DAGSTER_STORAGE
    restore(tmp_path / "backups", tmp_path / "again")
    again = Lake(home=str(tmp_path / "again"))
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["dagster", IDENTITY, PLACE]
    assert again.read(COUNT).row(0) == (2 * NUM_ROWS + 1,) * 3
    assert again.read(COUNT, at=then).equals(expected)
    assert append(again, "d", 3) == 3
    assert append(again, "d") == NUM_ROWS - 3
    assert damaged_files(again) == []
    with pytest.raises(CatalogInUse, match="name an empty database"):
        restore(tmp_path / "backups", tmp_path / "again", replace=True)


def test_inlined_rows_keep_the_types_of_their_time(tmp_path: Path) -> None:
    """Of `checkpoints.stage` there were two: a text, which is `name` now, and a number."""
    old = old_catalog(tmp_path / "old", next(n for n, step in enumerate(MIGRATIONS) if "RENAME COLUMN stage" in step))
    insert = f"""INSERT INTO checkpoints({{columns}}, checkpoint_id, path, content_hash, materialized_at)
        VALUES ({{values}}, 'p', 'h', '{datetime(2026, 1, 1, tzinfo=UTC)}')"""
    with attach(old.catalog) as connection:
        connection.execute(insert.format(columns="stage", values="'student', 'a'"))
        [then] = connection.sql("SELECT max(snapshot_id) FROM dasd.snapshots()").fetchall()[0]
    old.migrate()
    with attach(old.catalog) as connection:
        connection.execute(insert.format(columns="name, stage", values="'t060', 1, 'b'"))
    dump(old.catalog, tmp_path / SQLITE_FILE)
    shared_stores.share(tmp_path / "home", shared_stores.EMPTY)
    lake = Lake(home=str(tmp_path / "home"))
    assert isinstance(lake.catalog, PostgresCatalog)
    restore_dump(tmp_path / SQLITE_FILE, lake.catalog)
    rows = lake.read("SELECT checkpoint_id, name, stage FROM checkpoints ORDER BY ALL").rows()
    assert rows == [("a", "student", 0), ("b", "t060", 1)]
    assert lake.read("SELECT checkpoint_id, stage FROM checkpoints", at=then).rows() == [("a", "student")]


def test_a_user_who_may_make_no_table_is_told_what_to_grant(tmp_path: Path) -> None:
    server = shared_stores.postgres()
    url = server.create()
    server.execute("CREATE ROLE guest LOGIN")
    catalog = PostgresCatalog(tmp_path, LocalFolder(tmp_path / "data"), url.replace(f"{server.user}@", "guest@"))
    with pytest.raises(CatalogAway, match=r"permission denied for schema public.*GRANT CREATE ON SCHEMA"):
        require_own(catalog)


def test_a_database_and_a_prefix_are_of_one_home(lake: Lake, tmp_path: Path) -> None:
    append(lake, "a", 2)
    chosen = json.loads((Path(lake.home) / PLACE).read_text())
    for name, taken in (("catalog", chosen["catalog"]), ("data", f"{chosen['data']}/")):
        other = tmp_path / name
        shared_stores.share(other, shared_stores.EMPTY)
        noted = json.loads((other / PLACE).read_text())
        (other / PLACE).write_text(json.dumps({**noted, name: chosen[name]}))
        with pytest.raises(PlaceTaken) as raised:
            append(Lake(home=str(other)), "b", 2)
        assert str(raised.value).startswith(f"{taken} is the home's that was {lake.home} on {socket.gethostname()}: ")
    inside, database = ObjectStore(f"{chosen['data']}/main/b"), json.loads((other / PLACE).read_text())["catalog"]
    with pytest.raises(PlaceTaken, match=rf"main/b/ lies in {chosen['data']}/, the prefix of .*delete warehouse\.json"):
        require_own(PostgresCatalog(other, inside, database))
    (tmp_path / "third").mkdir()  # the database is still nobody's
    require_own(PostgresCatalog(tmp_path / "third", ObjectStore(f"{chosen['data']}-third"), database))
    identity = (Path(lake.home) / IDENTITY).read_text()
    assert f"write {identity} into that file" in str(raised.value)
    # The home may move, and be found again by its identity.
    moved = Path(lake.home).rename(tmp_path / "moved")
    assert append(Lake(home=str(moved)), "b", 2) == 2
    (moved / IDENTITY).unlink()
    migrate.cache_clear()  # as in another process
    with pytest.raises(PlaceTaken):
        Lake(home=str(moved)).read(COUNT)
    (moved / IDENTITY).write_text(f"{identity}\n")
    assert Lake(home=str(moved)).read(COUNT).row(0)[0] == 4


def test_the_first_command_notes_the_place_and_no_password(tmp_path: Path) -> None:
    environment = {"DASD_CATALOG": "postgres://me:p%40ss@db:5433/lake?sslmode=require", "DASD_DATA": "s3://lake/a/"}
    choose_storage(tmp_path / "home", environment)
    assert environment["PGPASSWORD"] == "p@ss"
    assert environment["DASD_CATALOG"] == "postgresql://me@db:5433/lake?sslmode=require"
    noted = json.loads((tmp_path / "home" / PLACE).read_text())
    assert noted == {"catalog": environment["DASD_CATALOG"], "data": "s3://lake/a"}
    choose_storage(tmp_path / "home", {})  # which is then known
    assert str(Lake(home=str(tmp_path / "home")).catalog) == environment["DASD_CATALOG"]
    with pytest.raises(
        PlaceError, match=r"has its tables in postgresql://me@db:5433/\S+ and s3://lake/a, not in s3://b"
    ):
        choose_storage(tmp_path / "home", {"DASD_DATA": "s3://b/c"})


@pytest.mark.parametrize(
    "environment",
    [
        {"DASD_CATALOG": "mysql://me:sesame@db/lake"},
        {"DASD_CATALOG": "postgresql://me:sesame@db"},
        {"DASD_CATALOG": "postgresql://me@db/lake?password=sesame"},
        {"DASD_CATALOG": "postgresql://me@db/lake?sslmode=require&PassWord=sesame"},
        {"DASD_CATALOG": "postgresql://me:open/sesame@db/lake"},
        {"DASD_CATALOG": "postgresql://me:1/sesame@db/lake"},
        {"DASD_CATALOG": "postgresql://me:1/?sesame@db/lake"},
        {"DASD_CATALOG": "postgresql://me:1/open#sesame@db/lake"},
        {"DASD_CATALOG": "postgresql://me:[sesame@db/lake"},
        {"DASD_CATALOG": "postgresql://me@db:sesame/lake"},
        {"DASD_DATA": "s3://key:sesame@bucket/a"},
        {"DASD_DATA": "/somewhere/sesame"},
        {"DASD_DATA": "s3://bucket/"},
    ],
)
def test_what_cannot_be_a_place_says_so_without_repeating_it(environment: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(PlaceError) as error:
        choose_storage(tmp_path, environment)
    assert "sesame" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_has_tables_keeps_them(tmp_path: Path) -> None:
    append(Lake(home=str(tmp_path)), "a", 2)
    with pytest.raises(PlaceError, match=r"in its own folder, not in postgresql://me@db/lake.*`dasd restore` there"):
        choose_storage(tmp_path, {"DASD_CATALOG": "postgresql://me@db/lake"})


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / PLACE).write_text(json.dumps({"data": "s3://lake/a"}))
    monkeypatch.setitem(place.PACKAGES, "data", ("duckdb_extension_of_nobody",))
    place._require_packages.cache_clear()
    with pytest.raises(PlaceError, match=r"needs duckdb_extension_of_nobody: \S+ -m pip install 'dasd\[cluster\]'"):
        _ = Lake(home=str(tmp_path)).catalog


def test_a_database_that_is_not_there_is_named_without_the_password(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = shared_stores.free_port()
    environment = {
        **os.environ,
        "DASD_HOME": str(tmp_path),
        "DASD_CATALOG": f"postgresql://me:sesame2@127.0.0.1:{port}/lake",
    }
    command = [sys.executable, "-m", "dasd_assets.cli", "sql", "SELECT 1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"dasd: postgresql://me@127.0.0.1:{port}/lake cannot be used (")
    assert "Traceback" not in done.stderr
    assert "sesame2" not in done.stderr + done.stdout
