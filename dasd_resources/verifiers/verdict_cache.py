"""What costly comparisons found, kept in memory and in a file of the home, so that an answer said twice is judged once.

Keys are hashes of all that decides a verdict, versions included, so nothing is ever outdated and several processes can
share a file. It is a cache: without a place to write, or with a damaged file, verdicts are found again.
"""

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import TypeVar

from dasd_resources.content_hash import content_hash
from dasd_resources.sqlite_cache import with_cache

log = logging.getLogger(__name__)
T = TypeVar("T")
FILE = "verdicts.sqlite"
CREATE_TABLE = "CREATE TABLE IF NOT EXISTS verdicts (key TEXT PRIMARY KEY, found TEXT)"
MAX_IN_MEMORY = 50_000  # entries, about 200 bytes each
MAX_IN_FILE = 5_000_000  # entries, about 100 bytes each
MAX_WAITING = 256  # entries that are not in the file yet


class VerdictCache:
    """Texts by key; safe to use from several threads."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._known: dict[str, str] = {}
        self._waiting: dict[str, str] = {}
        self._lock = Lock()

    @contextmanager
    def kept_in(self, home: Path) -> Iterator[None]:
        """Read and write the file of a home meanwhile."""
        before, self._path = self._path, home / FILE
        try:
            yield
        finally:
            self.flush()
            self._path = before

    def found(self, decided_by: Sequence[str], find: Callable[[], str]) -> str:
        """What `find` returned when it was last asked with the same strings; what it raises is not kept."""
        key = content_hash(list(decided_by))[:32]
        known = self._load(key)
        if known is not None:
            return known
        found = find()
        with self._lock:
            self._remember(key, found)
            self._waiting[key] = found
        if len(self._waiting) >= MAX_WAITING:
            self.flush()
        return found

    def flush(self) -> None:
        """Write what is not in the file yet."""
        with self._lock:
            rows, self._waiting = list(self._waiting.items()), {}
        if rows:
            self._on_file(lambda cache: _store(cache, rows))

    def _load(self, key: str) -> str | None:
        with self._lock:
            if key in self._known:
                return self._known[key]
        query = "SELECT found FROM verdicts WHERE key = ?"
        row = self._on_file(lambda cache: cache.execute(query, (key,)).fetchone())
        if row is None:
            return None
        with self._lock:
            self._remember(key, str(row[0]))
        return str(row[0])

    def _remember(self, key: str, found: str) -> None:
        if len(self._known) >= MAX_IN_MEMORY:
            del self._known[next(iter(self._known))]  # the oldest
        self._known[key] = found

    def _on_file(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """What `work` returns; None, and no more file, if there is none that can be used."""
        path = self._path
        if path is None:
            return None
        try:
            return with_cache(path, CREATE_TABLE, work)
        except (sqlite3.Error, OSError) as error:
            log.warning("%s cannot be used (%s): verdicts are kept in memory alone", path, error)
            self._path = None
            return None


def _store(cache: sqlite3.Connection, rows: list[tuple[str, str]]) -> None:
    cache.execute("BEGIN IMMEDIATE")
    cache.executemany("INSERT OR IGNORE INTO verdicts VALUES (?, ?)", rows)
    cache.execute("DELETE FROM verdicts WHERE rowid <= (SELECT max(rowid) FROM verdicts) - ?", (MAX_IN_FILE,))
    cache.execute("COMMIT")


VERDICTS = VerdictCache()
