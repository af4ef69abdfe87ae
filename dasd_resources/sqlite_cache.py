"""Caches in SQLite files: one that is damaged, or that something else is in the place of, is thrown away and rebuilt.

All that is lost with it is time, so no command ends because of a cache.
"""

import logging
import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")
IN_MEMORY = Path(":memory:")
COLUMNS = "SELECT m.name, c.name, c.type, c.pk FROM sqlite_master m, pragma_table_info(m.name) c"
SECONDS_TO_WAIT = 60.0  # for another process's write
# Errors that say nothing of the file: it is in use, or the disk is full.
OF_THE_MACHINE = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM}


class Damaged(Exception):
    """Raised by the work on a cache for content that nobody can have stored there."""


def with_cache(path: Path, create_table: str, work: Callable[[sqlite3.Connection], T]) -> T:
    """What `work` returns of the cache at `path`, in autocommit mode; it is called twice if the cache was damaged.

    create_table: `CREATE TABLE IF NOT EXISTS name(…)`; a table of that name with other columns is damage, too.
    """
    try:
        return _on(path, create_table, work)
    except (sqlite3.DatabaseError, Damaged) as error:
        if of_the_machine(error):
            raise
        removed = _throw_away(path)
        done = "thrown away and rebuilt" if removed else "left alone, as it cannot be replaced"
        log.warning("%s is no usable cache (%s): %s; only time is lost", path, error, done)
    return _on(path if removed else IN_MEMORY, create_table, work)


def of_the_machine(error: object) -> bool:
    """Whether it is an error of SQLite's that says nothing of the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in OF_THE_MACHINE


def _on(path: Path, create_table: str, work: Callable[[sqlite3.Connection], T]) -> T:
    with closing(sqlite3.connect(path, timeout=SECONDS_TO_WAIT, isolation_level=None)) as connection:
        connection.execute(create_table)
        _check_columns(connection, create_table)
        return work(connection)


def _check_columns(connection: sqlite3.Connection, create_table: str) -> None:
    """Raise Damaged if the table is not as it would be created."""
    wanted = _created(create_table)
    found = connection.execute(f"{COLUMNS} WHERE m.name = ?", (wanted[0][0],)).fetchall()
    if found != wanted:
        raise Damaged(f"its table {wanted[0][0]} has other columns")


@cache
def _created(create_table: str) -> list[tuple[str, str, str, int]]:
    """The columns of the table that a statement creates, as COLUMNS finds them."""
    with closing(sqlite3.connect(IN_MEMORY)) as fresh:
        fresh.execute(create_table)
        return fresh.execute(COLUMNS).fetchall()


def _throw_away(path: Path) -> bool:
    """Whether what is in the place of a cache could be removed: a file is deleted, a folder gets another name."""
    try:
        if path.is_dir():
            shutil.move(path, path.with_name(f"{path.name}.{time.time_ns()}"))
        else:
            path.unlink(missing_ok=True)
    except OSError:
        return False
    for part in ("-journal", "-wal", "-shm"):
        with suppress(OSError):
            path.with_name(path.name + part).unlink(missing_ok=True)
    return True
