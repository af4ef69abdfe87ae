"""Content hashes of files, kept in a SQLite file by name, size and modification time, so that each is read once."""

import json
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

FileIdentity = tuple[str, int, int]  # name, size, modification time in ns
TABLE = "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"


def known_hashes(cache: Path, files: Sequence[FileIdentity]) -> dict[FileIdentity, str]:
    """The hashes of those files that are as they were when last read."""
    query = "SELECT path, size, mtime_ns, sha256 FROM files WHERE path IN (SELECT value FROM json_each(?))"
    rows = _query(cache, query, (json.dumps([name for name, _, _ in files]),))
    found = {(name, size, mtime_ns): sha256 for name, size, mtime_ns, sha256 in rows}
    return {file: found[file] for file in files if file in found}


def remember_hash(cache: Path, file: FileIdentity, sha256: str) -> None:
    """Keep the hash of a file."""
    _query(cache, "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (*file, sha256))


def kept_hash(cache: Path, file: FileIdentity, find: Callable[[], str]) -> str:
    """The hash of a file, found and kept if it is not known yet.

    What follows from several files may be kept beside theirs, under a name that no file has.
    """
    known = known_hashes(cache, [file])
    if file not in known:
        known[file] = find()
        remember_hash(cache, file, known[file])
    return known[file]


def _query(cache: Path, sql: str, values: tuple[str | int, ...]) -> list[tuple[str, int, int, str]]:
    """One statement in its own transaction: no lock is held while a file is read."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _asked(cache, sql, values)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # locked, or a full disk
            raise
        cache.unlink(missing_ok=True)  # damaged, and but a cache
        return _asked(cache, sql, values)


def _asked(cache: Path, sql: str, values: tuple[str | int, ...]) -> list[tuple[str, int, int, str]]:
    with closing(sqlite3.connect(cache, timeout=60, isolation_level=None)) as connection:
        connection.execute(TABLE)
        return list(connection.execute(sql, values))
