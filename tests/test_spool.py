import weakref
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pyarrow as pa
import pytest

from dasd_resources.storage import spool
from dasd_resources.storage.spool import in_order, joined, spooled
from dasd_resources.storage.warehouse import Warehouse

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


@pytest.mark.parametrize("bytes_at_once", [1, spool.BYTES_AT_ONCE])
def test_rows_come_back_in_the_order_of_their_keys_some_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_at_once: int
) -> None:
    monkeypatch.setattr(spool, "BYTES_AT_ONCE", bytes_at_once)
    keys = [f"{number:02}" for number in range(7)]
    rows = pl.DataFrame({"id": keys, "token_ids": [[number] * number for number in range(7)]})
    parts = rows[[4, 0, 6, 2, 5, 1, 3]].iter_slices(3)
    with in_order(parts, "id", rows["id"], 3, str(tmp_path)) as found:
        given = list(found)
    assert [part.height for part in given] == [3, 3, 1]
    assert pl.concat(given).equals(rows)
    assert list(tmp_path.iterdir()) == []


def test_short_rows_in_no_order_are_not_written_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, open_file = list[pa.ipc.RecordBatchFileReader](), pa.ipc.open_file
    monkeypatch.setattr(pa.ipc, "open_file", lambda file: opened.append(open_file(file)) or opened[-1])
    rows = pl.DataFrame({"id": [f"{number:03}" for number in range(300)]})
    with in_order(
        rows.sample(fraction=1, shuffle=True, seed=0).iter_slices(3), "id", rows["id"], 30, str(tmp_path)
    ) as found:
        assert pl.concat(found).equals(rows)
    assert [file.num_record_batches for file in opened] == [10]


def test_parts_are_not_kept_while_the_next_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "BYTES_AT_ONCE", 1)
    kept = []

    def parts() -> Iterator[pl.DataFrame]:
        for part in ROWS.iter_slices(1):
            last = weakref.ref(part)
            yield part
            del part
            kept.append(last() is not None)

    with in_order(parts(), "id", ROWS["id"], 3, str(tmp_path)) as found:
        assert pl.concat(found).equals(ROWS)
    assert kept == [False, False, False]


def test_nothing_comes_in_order_of_nothing(tmp_path: Path) -> None:
    with in_order([], "id", pl.Series("id", [], pl.String), 3, str(tmp_path)) as found:
        assert list(found) == []


def test_tables_are_joined_in_order_reading_each_once(tmp_path: Path, streamed: list[str]) -> None:
    query = """FROM (VALUES ('b', 'of b'), ('unwanted', 'no'), ('c', 'of c'), ('a', 'of a')) t(id, text)
            WHERE list_contains($keys, id)
        UNION ALL BY NAME FROM (VALUES ('a', [1, $last]), ('unwanted', [9]), ('b', [])) t(id, token_ids)"""
    warehouse, keys = Warehouse(home=str(tmp_path)), pl.Series(["a", "b", "c"])
    parts = list(joined(warehouse, query, {"last": 2}, "id", keys, 2))
    assert [part.height for part in parts] == [2, 1]
    assert pl.concat(parts).rows() == [("a", "of a", [1, 2]), ("b", "of b", []), ("c", "of c", None)]
    assert streamed == [query]
    assert list(joined(warehouse, query, {"last": 2}, "id", keys[:0], 2)) == []
