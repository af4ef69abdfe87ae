"""Content hashes of files, cached in a SQLite file by name, size and modification time, so that each is read once."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from dasd_resources.sqlite_cache import with_cache

FileIdentity = tuple[str, int, int]  # name, size, modification time in ns
CREATE_TABLE = "CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"


def known_hashes(cache: Path, files: Sequence[FileIdentity]) -> dict[FileIdentity, str]:
    """The cached hashes of those files whose size and modification time have not changed."""
    query = "SELECT path, size, mtime_ns, sha256 FROM files WHERE path IN (SELECT value FROM json_each(?))"
    rows = _query(cache, query, (json.dumps([name for name, _, _ in files]),))
    found = {(name, size, mtime_ns): sha256 for name, size, mtime_ns, sha256 in rows}
    return {file: found[file] for file in files if file in found}


def remember_hash(cache: Path, file: FileIdentity, sha256: str) -> None:
    """Store the hash of a file."""
    _query(cache, "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)", (*file, sha256))


def cached_hash(cache: Path, file: FileIdentity, find: Callable[[], str]) -> str:
    """The cached hash of a file, or else that which `find` computes, then cached.

    A value computed from several files can be cached the same way, under a name that no file has.
    """
    known = known_hashes(cache, [file])
    if file not in known:
        known[file] = find()
        remember_hash(cache, file, known[file])
    return known[file]


def _query(cache: Path, sql: str, values: tuple[str | int, ...]) -> list[tuple[str, int, int, str]]:
    """One statement in its own transaction: no lock is held while a file is read."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    return with_cache(cache, CREATE_TABLE, lambda connection: list(connection.execute(sql, values)))
