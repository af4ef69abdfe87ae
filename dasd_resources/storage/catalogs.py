"""The catalogs that the lake can have: a SQLite file in the home, or a PostgreSQL database that several machines share.

Each knows how DuckLake attaches it, how commits are serialised on it, and whether it is there. A password is in no
catalog: libpq takes it from PGPASSWORD or ~/.pgpass (`place.choose_storage`).
"""

import time
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from filelock import FileLock, Timeout

from dasd_resources.errors import UserError
from dasd_resources.storage.data_places import DataPlace
from dasd_resources.storage.one_home import Claimant, Owner

if TYPE_CHECKING:
    from psycopg2.extensions import connection as Session

SQLITE_FILE = "catalog.sqlite"
COMMIT, UPKEEP = "catalog.lock", "upkeep.lock"  # files of the home, or names of advisory locks
OWNERS = "dasd_home"  # our table in the database: whose it is
LOCK_SPACE = 0xDA5D  # sets our advisory locks apart from those of other programs
LOCK_KEYS = {COMMIT: 1, UPKEEP: 2}
PATIENCE_SECONDS = 60.0  # of who is about to commit, while the database starts again
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # between two tries to connect
LOOK_SECONDS = 0.05  # as often as a lock file is looked at
# Of the server, which by itself looks after two hours whether a silent machine is still there: so it takes 90 s.
LOST_AFTER = (
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 6; "
    "SET tcp_user_timeout = 90000"  # where the server had just answered, keepalives are not sent
)
# What libpq says of a server that is away for a moment; with a wrong password or name there is nothing to wait for.
AWAY = (
    *("refused", "starting up", "shutting down", "recovery", "unexpectedly", "timeout expired", "reset by peer"),
    *("translate host name", "No route to host", "unreachable"),  # while its address moves to another machine
    *("too many clients", "connection slots"),
)
TRIES = 3  # to take a lock, each with PATIENCE_SECONDS, where the database goes away while somebody waits for it
RequireLock = Callable[[], None]  # raises CatalogAway if the lock has been lost meanwhile


class CatalogAway(UserError, RuntimeError):
    """The catalog's database cannot be reached or used, or was lost in the middle of a commit; the message says how."""


class Catalog(Hashable, Protocol):
    """Where DuckLake keeps its tables: `home` has its locks and spills, `data` its data files."""

    @property
    def home(self) -> Path: ...

    @property
    def data(self) -> DataPlace: ...

    @property
    def target(self) -> str:
        """What follows `ducklake:` where it is attached."""
        ...

    @property
    def extension(self) -> str:
        """DuckDB's extension that reads it."""
        ...

    @property
    def options(self) -> tuple[str, ...]:
        """Of attaching it, beside those of the data."""
        ...

    @property
    def advice(self) -> str:
        """What to do if it cannot be read."""
        ...

    @property
    def shared(self) -> bool:
        """Whether other programs' tables are beside DuckLake's own, so that nobody may read those freely."""
        ...

    def exists(self) -> bool:
        """Whether it has been made. Raises CatalogAway."""
        ...

    def claimed(self, claimant: Claimant) -> Owner | None:
        """Whose it is, the claimant's if it was nobody's; None if it lies in the home. Raises CatalogAway."""
        ...

    @property
    def session_may_end(self) -> bool:
        """Whether an attached connection may be cut while nobody uses it."""
        ...

    def identity(self) -> Hashable | None:
        """Equal for the same catalog: a restored or new one at this place has another. None if there is none."""
        ...

    def locked(self, name: str = COMMIT, timeout: float = -1) -> AbstractContextManager[RequireLock]:
        """Hold a lock for the block, alone among all processes. timeout: seconds, for ever if negative.

        Raises filelock.Timeout, CatalogAway.
        """
        ...


@dataclass(frozen=True)
class SqliteCatalog:
    """A file in the home; locks are files beside it."""

    home: Path
    data: DataPlace

    @property
    def path(self) -> Path:
        return self.home / SQLITE_FILE

    @property
    def target(self) -> str:
        return f"sqlite:{self.path}"

    @property
    def extension(self) -> str:
        return "sqlite_scanner"

    @property
    def options(self) -> tuple[str, ...]:
        return ("META_JOURNAL_MODE 'WAL'", "META_BUSY_TIMEOUT 10000")

    @property
    def advice(self) -> str:
        return "if it is damaged, `dasd restore` brings a backup back"

    @property
    def shared(self) -> bool:
        return False

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        return self.path.is_file()

    def claimed(self, claimant: Claimant) -> Owner | None:
        return None

    @property
    def session_may_end(self) -> bool:
        return False

    def identity(self) -> Hashable | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return str(self.path), found.st_dev, found.st_ino

    @contextmanager
    def locked(self, name: str = COMMIT, timeout: float = -1) -> Iterator[RequireLock]:
        with FileLock(self.home / name, timeout=timeout):
            yield lambda: None


@dataclass(frozen=True)
class PostgresCatalog:
    """A database of its own; locks are advisory ones, each held by a session that does nothing else."""

    home: Path
    data: DataPlace
    url: str

    @property
    def target(self) -> str:
        return f"postgres:{self.url}"

    @property
    def extension(self) -> str:
        return "postgres_scanner"

    @property
    def options(self) -> tuple[str, ...]:
        return ()

    @property
    def advice(self) -> str:
        return "see whether the database runs, and whether DASD_CATALOG and PGPASSWORD are right"

    @property
    def shared(self) -> bool:
        return True  # with PostgreSQL's own: roles, settings, what others are doing

    def __str__(self) -> str:
        return self.url

    def exists(self) -> bool:
        with closing(self._session(patience=0)) as session, session.cursor() as cursor:
            cursor.execute("SELECT to_regclass('ducklake_snapshot') IS NOT NULL")
            return bool(cursor.fetchone()[0])

    def claimed(self, claimant: Claimant) -> Owner | None:
        with closing(self._session(patience=0)) as session, session.cursor() as cursor, self._saying_away():
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", (OWNERS,))
            if not cursor.fetchone()[0]:
                with self.locked():  # two statements sent as one are one transaction
                    cursor.execute(
                        f"CREATE TABLE IF NOT EXISTS {OWNERS}(owner TEXT NOT NULL); "
                        f"INSERT INTO {OWNERS} SELECT %s WHERE NOT EXISTS (SELECT FROM {OWNERS})",
                        (claimant().written,),
                    )
            cursor.execute(f"SELECT owner FROM {OWNERS}")
            return Owner.read(cursor.fetchone()[0])

    @property
    def session_may_end(self) -> bool:
        return True

    def identity(self) -> Hashable | None:
        return self.url

    @contextmanager
    def locked(self, name: str = COMMIT, timeout: float = -1) -> Iterator[RequireLock]:
        # The lock ends with its session: when the process is killed, at once; when its machine is lost, with the
        # server's keepalives; when the database starts again, so that who commits asks once more just before.
        with closing(self._holder(name, timeout)) as session:
            try:
                yield lambda: self._require(session)
            finally:
                self._give_back(session, name)

    def _holder(self, name: str, timeout: float) -> "Session":
        """A session that holds the lock; another one where the database starts again while the first waits for it."""
        for tries_left in reversed(range(TRIES)):
            session = self._session(PATIENCE_SECONDS)
            try:
                self._take(session, name, timeout)
            except BaseException as error:
                session.close()
                if not (tries_left and isinstance(error, CatalogAway)):
                    raise
            else:
                return session
        raise AssertionError("the last try returns or raises")

    def _take(self, session: "Session", name: str, timeout: float) -> None:
        key, until = (LOCK_SPACE, LOCK_KEYS[name]), time.monotonic() + timeout
        with session.cursor() as cursor, self._saying_away():
            while True:  # not pg_advisory_lock: a signal would not end its waiting
                cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", key)
                if cursor.fetchone()[0]:
                    return
                if timeout >= 0 and until <= time.monotonic():
                    raise Timeout(f"{name} of {self}")
                time.sleep(LOOK_SECONDS)

    def _give_back(self, session: "Session", name: str) -> None:
        import psycopg2

        # The server notices the end of a session only a little after it.
        with suppress(psycopg2.Error), session.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s, %s)", (LOCK_SPACE, LOCK_KEYS[name]))

    def _require(self, session: "Session") -> None:
        with session.cursor() as cursor, self._saying_away():
            cursor.execute("SELECT 1")

    def _session(self, patience: float) -> "Session":
        """A new session; one that finds the server away tries again for so many seconds."""
        import psycopg2

        until, pause = time.monotonic() + patience, FIRST_PAUSE
        while True:
            try:
                return self._connect()
            except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
                if time.monotonic() >= until or not any(word in str(error) for word in AWAY):
                    raise self._away(error) from None
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    def _connect(self) -> "Session":
        import psycopg2

        session = psycopg2.connect(self.url, keepalives_idle=30, keepalives_interval=10, connect_timeout=10)
        try:
            session.autocommit = True
            session.cursor().execute(LOST_AFTER)
        except BaseException:
            session.close()
            raise
        return session

    @contextmanager
    def _saying_away(self) -> Iterator[None]:
        import psycopg2
        import psycopg2.errors

        try:
            yield
        except psycopg2.errors.InsufficientPrivilege as error:
            raise CatalogAway(
                f"{self} cannot be used ({error.diag.message_primary}): its user must own the database (ALTER DATABASE "
                "… OWNER TO …) or may at least make tables there (GRANT CREATE ON SCHEMA public TO …)"
            ) from None
        except (psycopg2.OperationalError, psycopg2.InterfaceError) as error:
            raise self._away(error) from None

    def _away(self, error: Exception) -> CatalogAway:
        return CatalogAway(f"{self} cannot be used ({' '.join(str(error).split())}): {self.advice}")
