"""The lake: one DuckLake catalog (SQLite + Parquet) under DASD_HOME; readers never wait, writers queue briefly.

A commit is a DuckDB transaction inside a file lock held only around it, so tables are never seen half-written. Every
commit is a snapshot tagged with its origin, and its rows carry the Dagster run that wrote them (`run_id`);
`read(…, at=snapshot)` sees the tables exactly as they were then. Nothing here needs Dagster, which takes a second to
import. Left out: a server. With several machines the catalog becomes PostgreSQL and the lock its own.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

import duckdb
import polars as pl
from filelock import FileLock

from dasd_resources.schema import MIGRATIONS

Row = Mapping[str, Any]  # a table's row: each value is what its column's type says
Params = Mapping[str, object]
FileId = tuple[str, int, int]  # path, device, inode
SPILL = ".spill-"


class UnknownSnapshot(LookupError):
    """A snapshot that never was or has been expired; the message says which."""


class Reading:
    """Queries on one connection: all of them see the same snapshot."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def read(self, query: str, params: Params | None = None) -> pl.DataFrame:
        """Rows of a query; `$name` takes the parameter of that name."""
        return _query(self._connection, query, params)

    def stream(self, query: str, params: Params, num_rows: int) -> Iterator[pl.DataFrame]:
        """Rows of a query, about `num_rows` at a time, as DuckDB finds them: never all in memory."""
        for batch in self._connection.execute(query, dict(params)).to_arrow_reader(num_rows):
            yield pl.DataFrame(batch)

    def keep(self, name: str, query: str, params: Params | None = None) -> None:
        """Make a query's rows the temporary table `name` of this reading: large ones stay in DuckDB, out of Python."""
        self.read(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}", params)


class Transaction(Reading):
    """Writes of one commit; it is all in the next snapshot or none of it is. Its rows name its Dagster run."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, run_id: str | None) -> None:
        super().__init__(connection)
        self._run_id = run_id

    def append_missing(
        self,
        table: str,
        key: Sequence[str],
        rows: pl.DataFrame,
        batch: str | None = None,
        owner: tuple[str, str] | None = None,
    ) -> int:
        """Insert the rows whose key the table lacks (DuckLake has no unique keys); returns how many were new.

        `batch` limits the look-up to that batch's files; its rows must all belong to it. owner: a table and the column
        by which a row belongs to one of its rows; where that has passed to another batch since the work began, so does
        the row.
        """
        if rows.is_empty():
            return 0
        if batch is None or owner is None:
            return self._append(table, key, rows, batch)
        return sum(self._append(table, key, part, name) for name, part in self._by_owner(rows, batch, *owner))

    def _by_owner(self, rows: pl.DataFrame, batch: str, table: str, column: str) -> list[tuple[str, pl.DataFrame]]:
        """The rows by the batch that has their owner now; `batch` where there is no owner any more."""
        query = f"SELECT {column}, min(batch) AS now FROM {table} WHERE {column} IN (SELECT unnest($ids::VARCHAR[]))"
        ids = rows[column].unique().to_list()
        here = self.read(f"{query} AND batch = $batch GROUP BY ALL", {"ids": ids, "batch": batch})
        if here.height == len(ids):
            return [(batch, rows)]
        away = self.read(f"{query} GROUP BY ALL", {"ids": list(set(ids) - set(here[column]))})
        moved = rows.join(away, on=column, how="left").with_columns(batch=pl.col("now").fill_null(batch)).drop("now")
        return [(part["batch"][0], part) for part in moved.partition_by("batch")]

    def _append(self, table: str, key: Sequence[str], rows: pl.DataFrame, batch: str | None) -> int:
        keys = ", ".join(key)
        scope = "" if batch is None else "WHERE batch = $batch"
        self._register(table, rows.unique(subset=list(key), keep="first", maintain_order=True))
        inserted = self._connection.execute(
            f"INSERT INTO {table} BY NAME SELECT * FROM incoming "
            f"ANTI JOIN (SELECT {keys} FROM {table} {scope}) AS present USING ({keys})",
            {} if batch is None else {"batch": batch},
        ).fetchone()
        self._connection.unregister("incoming")
        assert inserted is not None
        return int(inserted[0])

    def replace(self, table: str, where: Params, rows: pl.DataFrame | Iterable[pl.DataFrame]) -> None:
        """Delete the rows equal to `where` in every column it names, then insert `rows`, which may come in parts."""
        self._connection.execute(f"DELETE FROM {table} WHERE {_equal(where)}", dict(where))
        for part in [rows] if isinstance(rows, pl.DataFrame) else rows:
            if not part.is_empty():
                self._register(table, part)
                self._connection.execute(f"INSERT INTO {table} BY NAME SELECT * FROM incoming")
                self._connection.unregister("incoming")

    def delete_keys(self, table: str, where: Params, column: str, keys: Sequence[str]) -> None:
        """Delete the rows equal to `where` in every column it names, and whose `column` is one of `keys`."""
        if keys:
            query = f"DELETE FROM {table} WHERE {_equal(where)} AND {column} IN (SELECT unnest($keys::VARCHAR[]))"
            self._connection.execute(query, {**where, "keys": list(keys)})

    def move_to_batch(self, table: str, column: str, keys: Sequence[str], batch: str) -> None:
        """Give `batch` the rows whose `column` is one of `keys`."""
        query = f"UPDATE {table} SET batch = $batch WHERE {column} IN (SELECT unnest($keys::VARCHAR[]))"
        self._connection.execute(query, {"batch": batch, "keys": list(keys)})

    def _register(self, table: str, rows: pl.DataFrame) -> None:
        """Show the rows to DuckDB as `incoming`, with this transaction's run where the table names one and they not."""
        columns = self._connection.sql(f"SELECT * FROM {table} LIMIT 0").columns
        if "run_id" in columns and "run_id" not in rows.columns:
            rows = rows.with_columns(run_id=pl.lit(self._run_id, dtype=pl.String))
        self._connection.register("incoming", rows)


def _equal(where: Params) -> str:
    """The condition that every named column equals its parameter, NULL equal to NULL."""
    return " AND ".join(f"{column} IS NOT DISTINCT FROM ${column}" for column in where)


class Lake:
    """The tables under `home`; connections are opened for a read or a commit and closed at once."""

    home: str

    def __init__(self, home: str) -> None:
        self.home = home

    @property
    def catalog(self) -> Path:
        return Path(self.home) / "catalog.sqlite"

    def require(self) -> None:
        """Raise FileNotFoundError saying what to do if there is no catalog, so that a look never makes one."""
        if not self.catalog.is_file():
            raise FileNotFoundError(f"{self.catalog} does not exist: run `dasd run` first, or set DASD_HOME")

    def read(self, query: str, params: Params | None = None, at: int | None = None) -> pl.DataFrame:
        """Rows of a query on the newest snapshot, or on snapshot `at`; `$name` takes the parameter of that name."""
        self.migrate()
        with self._connect(at=at, read_only=True) as connection:
            return _query(connection, query, params)

    @contextmanager
    def reading(self, at: int | None = None) -> Iterator[Reading]:
        """Several queries on one snapshot: the newest, or `at`."""
        self.migrate()
        with self._connect(at=at, read_only=True) as connection:
            connection.execute("BEGIN")
            yield Reading(connection)
            connection.execute("ROLLBACK")  # of temporary tables

    def read_latest(self, query: str, params: Params | None = None) -> tuple[pl.DataFrame, int]:
        """Rows of a query and the id of the snapshot they were read from."""
        snapshot = self.snapshot_id()
        return self.read(query, params, at=snapshot), snapshot

    def snapshot_id(self) -> int:
        """The newest snapshot's id."""
        return int(self.read("SELECT max(snapshot_id) AS id FROM dasd.snapshots()").item())

    @contextmanager
    def commit(self, origin: str) -> Iterator[Transaction]:
        """A transaction recorded as one snapshot whose commit message is `origin`; rolled back if the block raises."""
        self.migrate()
        with self._locked(), self._connect() as connection:
            yield from _transaction(connection, origin)

    def migrate(self) -> None:
        """Create the catalog or bring it to this version's schema; cheap when there is nothing to do."""
        migrate(self.catalog)

    def _locked(self) -> FileLock:
        return FileLock(Path(self.home) / "catalog.lock")

    @contextmanager
    def _connect(self, at: int | None = None, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        with attach(self.catalog, at=at, read_only=read_only) as connection:
            yield connection


@contextmanager
def attach(catalog: Path, at: int | None = None, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection whose default database is the DuckLake catalog, as of snapshot `at` if given.

    A connection that reads the newest snapshot stays attached for the next reader, which sees what is newest then.
    """
    stays = _file_id(catalog) if read_only and at is None else None
    connection, attached = _take(stays)
    try:
        if not attached:
            attach_to(connection, catalog, at, read_only)
        yield connection
        check_snapshot(connection, catalog, at)
        if stays is None:
            _detach(connection)
    except BaseException:
        connection.close()
        raise
    _idle.append((connection, stays))


def _take(wanted: FileId | None) -> tuple[duckdb.DuckDBPyConnection, bool]:
    """An idle connection with the wanted catalog attached, or else one with nothing attached; and which it is."""
    with _taking:
        for index in reversed(range(len(_idle))):
            if wanted is not None and _idle[index][1] == wanted:
                return _idle.pop(index)[0], True
        connection, attached = _idle.pop() if _idle else (loaded(), None)
    if attached is not None:
        try:
            _detach(connection)
        except duckdb.Error:  # its catalog is gone
            connection.close()
            return loaded(), False
    return connection, False


def _file_id(catalog: Path) -> FileId | None:
    """Which file lies at the path now: a restored or re-made catalog is another. None if there is none."""
    try:
        found = catalog.stat()
    except FileNotFoundError:
        return None
    return str(catalog), found.st_dev, found.st_ino


def _detach(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("USE memory")
    connection.execute("DETACH dasd")


def attach_to(connection: duckdb.DuckDBPyConnection, catalog: Path, at: int | None, read_only: bool) -> None:
    """Make the catalog the connection's default database. Raises UnknownSnapshot if `at` does not exist (any more)."""
    options = [f"DATA_PATH '{quoted(catalog.parent / 'data')}'", "META_JOURNAL_MODE 'WAL'", "META_BUSY_TIMEOUT 10000"]
    options.append("OVERRIDE_DATA_PATH TRUE")  # the catalog keeps the path it was made with; a home may have moved
    if read_only:
        options.append("READ_ONLY")
    if at is not None:
        options.append(f"SNAPSHOT_VERSION {at}")
    _spill_into(connection, catalog.parent.resolve())
    with _told_of_expiry(catalog, at):
        connection.execute(f"ATTACH 'ducklake:sqlite:{quoted(catalog)}' AS dasd ({', '.join(options)})")
    connection.execute("USE dasd")


def _spill_into(connection: duckdb.DuckDBPyConnection, home: Path) -> None:
    """Let what exceeds memory go to a folder of the connection's own under the home, made when it is needed.

    DuckDB's default is `.tmp` where the process was started, shared by name with every other process there.
    """
    now = connection.execute("SELECT current_setting('temp_directory')").fetchone()
    if now is None or Path(str(now[0])).parent != home:
        with suppress(duckdb.Error):  # it cannot be moved once it is used
            connection.execute(f"SET temp_directory = '{quoted(home / (SPILL + uuid4().hex))}'")


def check_snapshot(connection: duckdb.DuckDBPyConnection, catalog: Path, at: int | None) -> None:
    """Raise UnknownSnapshot if `at` was expired while it was read: what was read may lack rows."""
    if at is not None:
        with _told_of_expiry(catalog, at):
            connection.execute("FROM dasd.current_snapshot()").fetchall()


@contextmanager
def _told_of_expiry(catalog: Path, at: int | None) -> Iterator[None]:
    try:
        yield
    except duckdb.InvalidInputException as error:
        if "No snapshot found" not in str(error):
            raise
        raise UnknownSnapshot(_no_snapshot(catalog, at)) from None


def _no_snapshot(catalog: Path, at: int | None) -> str:
    with attach(catalog, read_only=True) as connection:
        found = connection.sql("SELECT max(snapshot_id) FROM dasd.snapshots()").fetchone()
    assert found is not None
    why = "it has been expired by maintenance" if 0 <= (at or 0) < found[0] else f"the newest is {found[0]}"
    return f"there is no snapshot {at}: {why}; those that exist are listed by FROM dasd.snapshots()"


# Connections with the extensions loaded, which checks 70 MB of signatures and takes 0.15 s each time; and the catalog
# that each has attached, which takes 0.06 s.
_idle: list[tuple[duckdb.DuckDBPyConnection, FileId | None]] = []
_taking = Lock()


def loaded() -> duckdb.DuckDBPyConnection:
    """A new in-memory connection with the extensions loaded and nothing attached."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    connection.execute("SET TimeZone = 'UTC'")  # DuckLake writes some times as text, in the session's zone
    for package, extension in _EXTENSIONS.items():
        connection.execute(f"LOAD '{_extension_file(package, extension)}'")
    return connection


def _query(connection: duckdb.DuckDBPyConnection, query: str, params: Params | None) -> pl.DataFrame:
    """DuckDB refuses parameters that the query does not name: leave them out, so that callers need not."""
    named = set(re.findall(r"\$([a-z_]+)", query))
    rows = connection.sql(query, params={name: value for name, value in (params or {}).items() if name in named})
    return pl.DataFrame() if rows is None else rows.pl()  # None: a statement without rows, such as COPY


_EXTENSIONS = {"duckdb_extension_sqlite_scanner": "sqlite_scanner", "duckdb_extension_ducklake": "ducklake"}


@cache
def _extension_file(package: str, extension: str) -> str:
    """The signed extension inside its PyPI package, so nothing is downloaded at run time."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed: pip install {package.replace('_', '-')}")
    file = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}" / f"{extension}.duckdb_extension"
    if not file.is_file():
        raise RuntimeError(f"{package} has no build for duckdb {duckdb.__version__}: install the same version of both")
    return str(file)


def _transaction(connection: duckdb.DuckDBPyConnection, origin: str) -> Iterator[Transaction]:
    connection.execute("BEGIN")
    try:
        yield Transaction(connection, _run_id(origin))
        connection.execute("CALL dasd.set_commit_message('dasd', $origin)", {"origin": origin})
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@cache
def migrate(catalog: Path, migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Create a catalog or bring it forward, each step whole or not at all; looked at once in a process.

    Raises RuntimeError for a catalog that a later release has written.
    """
    if _has_version(catalog, len(migrations)):
        return
    catalog.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(catalog.parent / "catalog.lock"), attach(catalog) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS schema_version(version INTEGER NOT NULL)")
        found = connection.sql("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
        version = int(found[0]) if found else 0
        if version > len(migrations):
            raise RuntimeError(f"{catalog} has schema version {version}; this release knows {len(migrations)}: upgrade")
        for number in range(version + 1, len(migrations) + 1):
            for _ in _transaction(connection, f"schema {number}"):
                connection.execute(migrations[number - 1])
                connection.execute("INSERT INTO schema_version VALUES ($number)", {"number": number})


def _has_version(catalog: Path, number: int) -> bool:
    """Looked up as readers read: a look at a catalog that is up to date waits for no writer, and stays attached.

    A connection that saw an earlier version is closed: kept, it has been seen to miss the tables made since.
    """
    if not catalog.is_file():
        return False
    try:
        with attach(catalog, read_only=True) as connection:
            if connection.sql("SELECT max(version) FROM schema_version").fetchall() != [(number,)]:
                raise LookupError("another version")
    except (duckdb.Error, LookupError):  # the former: somebody is making it. Look again under the lock
        return False
    return True


def _run_id(origin: str) -> str | None:
    """The Dagster run that an asset's commit message names (`provenance.origin`); None in any other message."""
    try:
        return str(json.loads(origin)["run_id"])
    except (ValueError, TypeError, KeyError):
        return None


def quoted(path: Path) -> str:
    """A path inside an SQL string literal."""
    return str(path).replace("'", "''")
