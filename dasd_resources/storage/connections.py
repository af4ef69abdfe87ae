"""DuckDB connections to the lake's catalog, with the extensions loaded; an idle one is used again.

Nothing is downloaded: the extensions come from PyPI packages. What a query cannot hold in MEMORY_GB is spilled to the
home; by itself DuckDB takes four fifths of the machine's. A connection has one thread. Most queries are small, and for
each DuckLake sends its catalog five to ten smaller ones: with two threads a small pipeline's run took 57.8 s of CPU
time, with one 36.4 s. `all_cores` is for the large ones.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib.util import find_spec
from os import getpid
from pathlib import Path
from socket import gethostname
from threading import Lock
from uuid import uuid4

import duckdb

from dasd_resources.errors import UserError
from dasd_resources.packages import pip_install
from dasd_resources.storage.catalogs import Catalog, RequireLock

AUTHOR = "dasd"  # of every commit that is made here
SPILL = ".spill-"  # then machine, process and connection: `leftovers` asks whether that process lives
# DuckDB handles 2,048 rows at a time: of 65,536 tokens each, one list column of them takes 512 MB. With 256 MB, 1,536
# rows of 20,000 tokens could not be joined, nor 512 of them written with 512 MB.
MEMORY_GB = 4.0
MEMORY_PER_THREAD_GB = 0.5  # where there are many
# Extensions come from pip as this code does, and nothing else can load one: to check the signatures of 70 MB took every
# process 0.45 s, which has 0.015 s to load them without.
CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "autoinstall_known_extensions": False,
    "allow_unsigned_extensions": True,
}


class UnknownSnapshot(UserError, LookupError):
    """A snapshot that never existed or has been expired; the message says which."""


@contextmanager
def attach(catalog: Catalog, at: int | None = None, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
    """A DuckDB connection whose default database is the DuckLake catalog, as of the newest snapshot or of `at`.

    A connection to the newest snapshot stays attached for the next reader, or writer, which sees what is newest then.
    What DuckLake loads as it attaches, for 0.02 s, it does not free: of a commit, 0.6 MB. Only a writer whose session
    may end meanwhile is attached anew each time: what took a model's time must not fail for that.
    """
    identity = catalog.identity() if at is None and (read_only or not catalog.session_may_end) else None
    reusable_for = None if identity is None else (identity, read_only)
    connection, attached = _take_idle(reusable_for)
    try:
        if not attached:
            attach_to(connection, catalog, at, read_only)
        yield connection
        # A snapshot expired while it was read loses rows without an error: look whether it still exists.
        check_snapshot(connection, catalog, at)
        if reusable_for is None:
            _detach(connection)
    except BaseException as error:
        with suppress(duckdb.Error):  # `close` would, and end the process where the catalog's server has gone
            connection.execute("ROLLBACK")
        connection.close()  # never used again: a setting may be left on it
        cause = error.__cause__ or error.__context__
        if cause is not None and not isinstance(cause, Exception):  # DuckDB turns Ctrl-C into an error of its own
            raise cause from None
        raise
    _idle.append((connection, reusable_for))


@contextmanager
def all_cores(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Run the block's queries on all cores, for millions of rows. After an error the connection is closed anyway."""
    connection.execute("RESET threads")
    [(threads,)] = connection.sql("SELECT current_setting('threads')::INT").fetchall()
    _limit_memory(connection, max(MEMORY_GB, threads * MEMORY_PER_THREAD_GB))
    yield
    connection.execute("SET threads = 1")
    _limit_memory(connection, MEMORY_GB)


def _limit_memory(connection: duckdb.DuckDBPyConnection, gigabytes: float) -> None:
    """Let queries hold no more than this in memory; less where DuckDB by itself takes less, as on a small machine."""
    connection.execute(f"SET memory_limit = '{min(_taken_by_itself(), int(gigabytes * 1e9))}B'")


@cache
def _taken_by_itself() -> int:
    """The bytes to which DuckDB limits itself here; not asked of a connection, whose snapshot may be gone by now."""
    with duckdb.connect() as connection:
        [(limit,)] = connection.sql("SELECT parse_formatted_bytes(current_setting('memory_limit'))").fetchall()
    return int(limit)


@contextmanager
def committing(connection: duckdb.DuckDBPyConnection, origin: str, require_lock: RequireLock) -> Iterator[None]:
    """A transaction whose snapshot says who made it and has `origin` as message; `attach` rolls it back on errors."""
    connection.execute("BEGIN")
    yield
    connection.execute(f"CALL dasd.set_commit_message('{AUTHOR}', $origin)", {"origin": origin})
    require_lock()
    connection.execute("COMMIT")


def _take_idle(wanted: Hashable | None) -> tuple[duckdb.DuckDBPyConnection, bool]:
    """An idle connection, and whether the wanted catalog is attached to it; if not, nothing is."""
    # One that has just what is wanted, else of several one that has nothing, or the oldest. The only one there is stays
    # as it is: an asset reads and commits in turn, and each would detach what the other attaches.
    with _idle_lock:
        found = next((index for index in reversed(range(len(_idle))) if _idle[index][1] == wanted), None)
        if found is not None:
            return _idle.pop(found)[0], wanted is not None
        free = next((index for index, (_, attached) in enumerate(_idle) if attached is None), 0)
        connection, attached = _idle.pop(free) if len(_idle) > 1 else (loaded(), None)
    if attached is not None:
        try:
            _detach(connection)
        except duckdb.Error:  # its catalog is gone
            connection.close()
            return loaded(), False
    return connection, False


def _detach(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute("USE memory")
    connection.execute("DETACH dasd")


def attach_to(connection: duckdb.DuckDBPyConnection, catalog: Catalog, at: int | None, read_only: bool) -> None:
    """Make the catalog the connection's default database. Raises UnknownSnapshot if `at` does not exist (any more)."""
    for extension in (catalog.extension, *catalog.data.extensions):
        load(connection, extension)
    catalog.data.prepare(connection)
    options = [f"DATA_PATH '{quoted(catalog.data.root)}'", *catalog.options]
    options.append("OVERRIDE_DATA_PATH TRUE")  # the catalog stores the path of its first home, which may have moved
    if read_only:
        options.append("READ_ONLY")
    if at is not None:
        options.append(f"SNAPSHOT_VERSION {at}")
    _spill_into(connection, catalog.home.resolve())
    with _reporting_expiry(catalog, at):
        connection.execute(f"ATTACH 'ducklake:{quoted(catalog.target)}' AS dasd ({', '.join(options)})")
    connection.execute("USE dasd")


def _spill_into(connection: duckdb.DuckDBPyConnection, home: Path) -> None:
    """Spill what exceeds memory to a folder of this connection's own under the home, made when it is needed.

    DuckDB's default is `.tmp` in the working directory, which all processes there would share.
    """
    now = connection.execute("SELECT current_setting('temp_directory')").fetchone()
    if now is None or Path(str(now[0])).parent != home:
        with suppress(duckdb.Error):  # DuckDB refuses to move it once it has been used
            folder = home / f"{SPILL}{gethostname()}-{getpid()}-{uuid4().hex}"
            connection.execute(f"SET temp_directory = '{quoted(folder)}'")


def check_snapshot(connection: duckdb.DuckDBPyConnection, catalog: Catalog, at: int | None) -> None:
    """Raise UnknownSnapshot if `at` was expired while it was read: what was read may lack rows."""
    if at is not None:
        with _reporting_expiry(catalog, at):
            connection.execute("FROM dasd.current_snapshot()").fetchall()


@contextmanager
def _reporting_expiry(catalog: Catalog, at: int | None) -> Iterator[None]:
    try:
        yield
    except duckdb.InvalidInputException as error:
        if "No snapshot found" not in str(error):
            raise
        raise UnknownSnapshot(_no_snapshot(catalog, at)) from None


def _no_snapshot(catalog: Catalog, at: int | None) -> str:
    with attach(catalog, read_only=True) as connection:
        found = connection.sql("SELECT max(snapshot_id) FROM dasd.snapshots()").fetchone()
    assert found is not None
    why = "it has been expired by maintenance" if 0 <= (at or 0) < found[0] else f"the newest is {found[0]}"
    return f"there is no snapshot {at}: {why}; those that exist are listed by FROM dasd.snapshots()"


# Idle connections, each with the catalog attached to it: attaching one takes 0.06 s.
_idle: list[tuple[duckdb.DuckDBPyConnection, Hashable | None]] = []
_idle_lock = Lock()


def loaded() -> duckdb.DuckDBPyConnection:
    """A new in-memory connection of one thread, with DuckLake loaded and nothing attached."""
    connection = duckdb.connect(config=CONFIG)
    connection.execute("SET threads = 1")
    _limit_memory(connection, MEMORY_GB)
    connection.execute("SET TimeZone = 'UTC'")  # DuckLake writes some times as text, in the session's zone
    load(connection, "ducklake")
    return connection


def load(connection: duckdb.DuckDBPyConnection, extension: str) -> None:
    """Load an extension from its package; once loaded, this does nothing."""
    connection.execute(f"LOAD '{_extension_file(extension)}'")


@cache
def _extension_file(extension: str) -> str:
    """The extension inside its PyPI package, so nothing is downloaded at run time."""
    package = f"duckdb_extension_{extension}"
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed: {pip_install(package.replace('_', '-'))}")
    file = Path(spec.origin).parent / "extensions" / f"v{duckdb.__version__}" / f"{extension}.duckdb_extension"
    if not file.is_file():
        raise RuntimeError(f"{package} has no build for duckdb {duckdb.__version__}: install the same version of both")
    return str(file)


def quoted(text: str | Path) -> str:
    """A path or URL inside an SQL string literal."""
    return str(text).replace("'", "''")
