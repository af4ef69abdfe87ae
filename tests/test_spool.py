from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from dasd_resources.storage.spool import in_order, merged, spooled

ROWS = pl.DataFrame({"id": ["a", "b", "c"], "token_ids": [[1, 2], None, []], "score": [0.5, None, 1.5]})


def test_parts_come_back_as_they_were_and_leave_nothing_behind(tmp_path: Path) -> None:
    with spooled(ROWS.iter_slices(2), str(tmp_path)) as parts:
        found = list(parts)
    assert [part.height for part in found] == [2, 1]
    assert pl.concat(found).equals(ROWS)
    assert list(tmp_path.iterdir()) == []


def test_all_parts_are_read_before_the_first_is_given(tmp_path: Path) -> None:
    read = []

    def parts() -> Iterator[pl.DataFrame]:
        for part in ROWS.iter_slices(1):
            read.append(part)
            yield part

    with spooled(parts(), str(tmp_path)) as found:
        assert len(read) == 3
        assert next(found).equals(ROWS[:1])


def test_nothing_comes_back_of_nothing(tmp_path: Path) -> None:
    with spooled([], str(tmp_path)) as parts:
        assert list(parts) == []


def test_an_error_while_reading_is_raised_before_anything_is_given(tmp_path: Path) -> None:
    def parts() -> Iterator[pl.DataFrame]:
        yield ROWS
        raise LookupError("no tokens")

    with pytest.raises(LookupError, match="no tokens"), spooled(parts(), str(tmp_path)):
        pytest.fail("it was given")


def test_rows_come_back_in_the_order_of_their_keys_some_at_a_time(tmp_path: Path) -> None:
    keys = [f"{number:02}" for number in range(7)]
    rows = pl.DataFrame({"id": keys, "token_ids": [[number] * number for number in range(7)]})
    parts = rows[[4, 0, 6, 2, 5, 1, 3]].iter_slices(3)
    with in_order(parts, "id", rows["id"], 3, str(tmp_path)) as found:
        given = list(found)
    assert [part.height for part in given] == [3, 3, 1]
    assert pl.concat(given).equals(rows)
    assert list(tmp_path.iterdir()) == []


def test_nothing_comes_in_order_of_nothing(tmp_path: Path) -> None:
    with in_order([], "id", pl.Series("id", [], pl.String), 3, str(tmp_path)) as found:
        assert list(found) == []


def test_tables_that_are_read_one_after_the_other_are_joined_in_order(tmp_path: Path) -> None:
    texts = pl.DataFrame({"id": ["b", "unwanted", "a"], "text": ["of b", "no", "of a"]})
    token_ids = pl.DataFrame({"id": ["a", "b", "unwanted"], "token_ids": [[1, 2], [], [9]]})
    no_tokens = pl.DataFrame({"id": ["c"], "text": ["of c"]})
    rows = pl.concat([texts, token_ids, no_tokens], how="diagonal").iter_slices(2)
    with in_order(rows, "id", pl.Series("id", ["a", "b", "c"]), 2, str(tmp_path)) as parts:
        found = pl.concat(merged(part, "id") for part in parts)
    assert found.rows() == [("a", "of a", [1, 2]), ("b", "of b", []), ("c", "of c", None)]
