from pathlib import Path

import pytest

from dasd_resources.engine import Failure
from dasd_resources.ledger import Ledger, missing
from dasd_resources.warehouse import Row, Warehouse


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(home=str(tmp_path))


def ledger(warehouse: Warehouse, max_rows: int = 100) -> Ledger:
    return Ledger(warehouse, "prefix_cuts", ("rollout_id",), "test", max_rows=max_rows)


def row(key: str) -> Row:
    return {"rollout_id": key, "cut_token": 1, "seed": 0, "cut_version": "1"}


def present(warehouse: Warehouse) -> list[str]:
    return warehouse.read("SELECT rollout_id FROM prefix_cuts ORDER BY ALL")["rollout_id"].to_list()


def test_rows_are_durable_after_max_rows(warehouse: Warehouse) -> None:
    with ledger(warehouse, max_rows=2) as book:
        book.add(row("a"))
        assert present(warehouse) == []
        book.add(row("b"))
        assert present(warehouse) == ["a", "b"]


def test_finished_rows_are_kept_when_the_work_fails(warehouse: Warehouse) -> None:
    with pytest.raises(RuntimeError, match="engine died"), ledger(warehouse) as book:
        book.add(row("a"))
        raise RuntimeError("engine died")
    assert present(warehouse) == ["a"]


def test_two_ledgers_at_once_write_each_id_once(warehouse: Warehouse) -> None:
    with ledger(warehouse) as first, ledger(warehouse) as second:
        for book in (first, second):
            book.add(row("a"))
        second.add(row("b"))
    assert present(warehouse) == ["a", "b"]
    assert first.num_added + second.num_added == 2


def test_a_failure_is_stored_until_its_id_succeeds(warehouse: Warehouse) -> None:
    reasons = "SELECT request_id, reason FROM failed_requests"
    with ledger(warehouse) as book:
        book.collect([Failure("a", "too long")], row)
    with ledger(warehouse) as book:
        book.collect([Failure("a", "timed out")], row)
    assert warehouse.read(reasons).rows() == [("a", "timed out")]
    with ledger(warehouse) as book:
        book.collect(["a"], row)
    assert (present(warehouse), warehouse.read(reasons).rows()) == (["a"], [])


def test_missing_keeps_the_order() -> None:
    assert missing(["c", "a", "b"], ["a"]) == ["c", "b"]
