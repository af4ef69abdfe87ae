"""How the lake's catalog is opened: DuckDB connections with its extensions, kept for the next who needs one.

Nothing is downloaded: the extensions come from PyPI packages. What a query cannot hold in memory goes to the home.
Most queries are small, and DuckLake asks its catalog several smaller ones for each: more than one thread only makes
them slower (by half as much CPU time again in a batch's run), so all cores are for those who ask for them.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from uuid import uuid4

import duckdb

from dasd_resources.errors import UserError

AUTHOR = "dasd"  # of every commit that is made here
FileId = tuple[str, int, int]  # path, device, inode
SPILL = ".spill-"


class UnknownSnapshot(UserError, LookupError):
    """A snapshot that never was or has been expired; the message says which."""


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
    except BaseException as error:
        connection.close()
        cause = error.__cause__ or error.__context__
        if cause is not None and not isinstance(cause, Exception):  # DuckDB makes an error of an interruption
            raise cause from None
        raise
    _idle.append((connection, stays))


@contextmanager
def all_cores(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """For queries over millions of rows. After an error the connection is not used again, so it is left as it is."""
    connection.execute("RESET threads")
    yield
    connection.execute("SET threads = 1")


@contextmanager
def committing(connection: duckdb.DuckDBPyConnection, origin: str) -> Iterator[None]:
    """A transaction whose snapshot says who made it and has `origin` as message; rolled back if the block raises."""
    connection.execute("BEGIN")
    try:
        yield
        connection.execute(f"CALL dasd.set_commit_message('{AUTHOR}', $origin)", {"origin": origin})
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


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
    """A new in-memory connection of one thread, with the extensions loaded and nothing attached."""
    connection = duckdb.connect(config={"autoinstall_known_extensions": False})
    connection.execute("SET threads = 1")
    connection.execute("SET TimeZone = 'UTC'")  # DuckLake writes some times as text, in the session's zone
    for package, extension in _EXTENSIONS.items():
        connection.execute(f"LOAD '{_extension_file(package, extension)}'")
    return connection


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


def quoted(path: Path) -> str:
    """A path inside an SQL string literal."""
    return str(path).replace("'", "''")
