"""Whatever is in the place of a cache, no command ends because of it: it is thrown away, and said so in one line."""

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project

from dasd_assets.records.materializations import FILE
from dasd_resources.file_hashes import cached_hash, remember_hash
from dasd_resources.sqlite_cache import with_cache

TABLE = "CREATE TABLE IF NOT EXISTS numbers(number INTEGER PRIMARY KEY, name TEXT)"


def zeros(cache: Path) -> None:
    cache.write_bytes(bytes(max(cache.stat().st_size, 8192)))


def cut(cache: Path) -> None:
    os.truncate(cache, 5000)


def garbage(cache: Path) -> None:
    cache.write_bytes(b"no database " * 1000)


def other_tables(cache: Path) -> None:
    cache.unlink()
    with sqlite3.connect(cache) as connection:
        for table in ("files", "materializations", "numbers"):
            connection.execute(f"CREATE TABLE {table}(something TEXT)")


def folder(cache: Path) -> None:
    cache.unlink()
    cache.mkdir()
    (cache / "note").write_text("somebody's")


DAMAGES: list[Callable[[Path], None]] = [zeros, cut, garbage, other_tables, folder]


def names(cache: Path) -> list[str]:
    """The names in the cache; fills it first."""

    def work(connection: sqlite3.Connection) -> list[str]:
        rows = [(number, f"name {number} " * 20) for number in range(100)]
        connection.executemany("INSERT OR IGNORE INTO numbers VALUES (?, ?)", rows)
        return [name for (name,) in connection.execute("SELECT name FROM numbers")]

    return with_cache(cache, TABLE, work)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_is_rebuilt(
    damage: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache = tmp_path / "cache.sqlite"
    whole = names(cache)
    damage(cache)
    assert names(cache) == names(cache) == whole
    [line] = caplog.messages
    assert line.startswith(f"{cache} is no usable cache (")
    assert line.endswith("): thrown away and rebuilt; only time is lost")
    assert not list(tmp_path.glob("*.*.*")) or (next(tmp_path.glob("*.*.*")) / "note").is_file()


def test_one_that_cannot_be_replaced_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As on a read-only disk: here the name is too long for any file."""
    assert len(names(tmp_path / ("x" * 300))) == 100
    assert "left alone, as it cannot be replaced" in caplog.text


def test_one_in_use_is_not_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache.sqlite"
    whole = names(cache)
    monkeypatch.setattr("dasd_resources.sqlite_cache.SECONDS_TO_WAIT", 0.01)
    with sqlite3.connect(cache, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            names(cache)
        other.execute("ROLLBACK")
    assert names(cache) == whole


def test_hashes_are_found_again(tmp_path: Path) -> None:
    cache, file = tmp_path / "fingerprints.sqlite", ("f", 1, 2)
    for damage in DAMAGES:
        remember_hash(cache, file, "old")
        damage(cache)
        assert cached_hash(cache, file, lambda: "new") == "new"


def test_a_run_goes_on(copy: Project, caplog: pytest.LogCaptureFixture) -> None:
    assert copy.run() == 0
    for cache in (copy.home / "fingerprints.sqlite", copy.home / "dagster" / FILE):
        other_tables(cache)
    assert copy.run() == 0
    assert sum("thrown away and rebuilt" in line for line in caplog.messages) == 2
