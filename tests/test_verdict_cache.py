"""What was found once is found again: in memory, in the home, by another process; and without a place for it."""

from pathlib import Path

import pytest

from dasd_resources.verifiers.verdict_cache import FILE, MAX_WAITING, VerdictCache


def never() -> str:
    raise AssertionError("it was found before")


def test_found_once(tmp_path: Path) -> None:
    first = VerdictCache()
    with first.kept_in(tmp_path):
        assert first.found(["v1", "5", "x"], lambda: "same") == "same"
        assert first.found(["v1", "5", "x"], never) == "same"
        assert first.found(["v2", "5", "x"], lambda: "different") == "different"
        assert first.found(["v1", "5,x"], lambda: "other") == "other"
    second = VerdictCache()  # as another process has it
    with second.kept_in(tmp_path):
        assert second.found(["v1", "5", "x"], never) == "same"
        assert second.found(["v2", "5", "x"], never) == "different"


def test_without_a_home_it_is_kept_in_memory() -> None:
    cache = VerdictCache()
    cache.found(["a"], lambda: "found")
    assert cache.found(["a"], never) == "found"


def test_a_failure_is_not_kept(tmp_path: Path) -> None:
    cache = VerdictCache()
    with cache.kept_in(tmp_path):
        with pytest.raises(AssertionError):
            cache.found(["a"], never)
        assert cache.found(["a"], lambda: "found") == "found"


def test_many_are_written_before_the_end(tmp_path: Path) -> None:
    cache = VerdictCache()
    with cache.kept_in(tmp_path):
        for number in range(MAX_WAITING):
            cache.found([str(number)], lambda: "found")
        other = VerdictCache()
        with other.kept_in(tmp_path):
            assert other.found(["0"], never) == "found"


def test_a_damaged_file_is_replaced(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("no SQLite file" * 1000)
    for found in (lambda: "found", never):
        cache = VerdictCache()
        with cache.kept_in(tmp_path):
            assert cache.found(["a"], found) == "found"


def test_a_home_that_cannot_be_written(tmp_path: Path) -> None:
    cache = VerdictCache()
    with cache.kept_in(tmp_path / "gone"):
        assert cache.found(["a"], lambda: "found") == "found"
        assert cache.found(["a"], never) == "found"
    assert not (tmp_path / "gone").exists()
