import time
import tracemalloc

import duckdb
import pytest

from dasd_resources.inference.engine import PERMANENT, Failure, FailureKind
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse

pytestmark = pytest.mark.storage


def ledger(warehouse: Warehouse, max_rows: int = 100) -> Ledger:
    return Ledger(warehouse, "prefix_cuts", "test", max_rows=max_rows)


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


def test_rows_with_long_lists_are_durable_after_fewer(warehouse: Warehouse) -> None:
    def tokens(key: str) -> Row:
        lists = {"token_ids": [1] * 30, "offsets": [0] * 30}
        return {"response_id": key, "batch": "b", "student_fingerprint": "s", "num_prompt_tokens": 0, **lists}

    with Ledger(warehouse, "student_tokens", "test", max_values=100) as book:
        book.add(tokens("a"))
        assert book.num_added == 0
        book.add(tokens("b"))
        assert book.num_added == 2
        book.add(tokens("c"))
        assert book.num_added == 2, "the values were counted anew"


def test_waiting_lists_are_held_as_arrays(warehouse: Warehouse) -> None:
    def tokens(key: str) -> Row:
        lists = {"token_ids": list(range(1000, 51_000)), "offsets": [*range(1000, 50_999), -1]}
        return {"response_id": key, "batch": "b", "student_fingerprint": "s", "num_prompt_tokens": 0, **lists}

    with Ledger(warehouse, "student_tokens", "test") as book:
        tracemalloc.start()  # sees Python's objects: 4 MB of each row
        for key in "abc":
            book.add(tokens(key))
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert held < 1_000_000
    stored = warehouse.read("SELECT token_ids, offsets FROM student_tokens WHERE response_id = 'c'").row(0)
    assert stored == (tokens("c")["token_ids"], tokens("c")["offsets"])


def test_a_logprob_of_exactly_zero_may_come_as_an_integer(warehouse: Warehouse) -> None:
    model = {"batch": "b", "student_fingerprint": "s", "engine": "openai", "dtype": "float32"}
    with Ledger(warehouse, "student_logprobs", "test") as book:
        book.add({"response_id": "a", **model, "logprobs": [0, -1.5]})
        book.add({"response_id": "b", **model, "logprobs": [0]})
    stored = warehouse.read("SELECT logprobs FROM student_logprobs ORDER BY response_id")["logprobs"].to_list()
    assert stored == [[0.0, -1.5], [0.0]]


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


def failures(warehouse: Warehouse) -> list[tuple[str, str, str | None]]:
    return warehouse.read("SELECT asset, request_id, batch FROM failed_requests ORDER BY ALL").rows()


def test_a_success_clears_the_failures_of_its_own_asset_alone(warehouse: Warehouse) -> None:
    scoring = Ledger(warehouse, "student_logprobs", "test", "b1")
    with scoring, ledger(warehouse) as cutting:
        scoring.fail(Failure("a", "too long"))
        cutting.fail(Failure("a", "no point"))
    assert failures(warehouse) == [("prefix_cuts", "a", None), ("student_logprobs", "a", "b1")]
    with ledger(warehouse) as cutting:
        cutting.add(row("a"))
    assert failures(warehouse) == [("student_logprobs", "a", "b1")]


def test_rows_and_failures_are_durable_after_max_seconds(warehouse: Warehouse) -> None:
    with Ledger(warehouse, "prefix_cuts", "test", max_seconds=0.0) as book:
        book.add(row("a"))
        assert present(warehouse) == ["a"]
        book.fail(Failure("b", "too long"))
        assert failures(warehouse) == [("prefix_cuts", "b", None)]


def test_a_row_is_durable_after_max_seconds_though_no_other_follows(warehouse: Warehouse) -> None:
    with Ledger(warehouse, "prefix_cuts", "test", max_seconds=2.0) as book:
        book.add(row("a"))
        assert present(warehouse) == []
        for _ in range(200):
            if present(warehouse):
                break
            time.sleep(0.05)
        assert present(warehouse) == ["a"]
        book.add(row("b"))
    assert (present(warehouse), book.num_added) == (["a", "b"], 2)


def test_a_flush_that_failed_between_rows_is_raised_by_the_next(warehouse: Warehouse) -> None:
    with pytest.raises(duckdb.Error), Ledger(warehouse, "prefix_cuts", "t", max_seconds=0.05) as book:
        book.add({**row("a"), "seed": None})
        time.sleep(0.5)
    assert present(warehouse) == []


def test_a_reason_that_is_no_text_is_stored_as_what_can_be(warehouse: Warehouse) -> None:
    with ledger(warehouse) as book:
        book.collect(["b", Failure("a", "it said \ud800")], row)
    assert present(warehouse) == ["b"]
    assert warehouse.read("SELECT reason FROM failed_requests").item() == "it said ?"


def test_results_are_counted_as_rows_added_and_failures(warehouse: Warehouse) -> None:
    with ledger(warehouse, max_rows=2) as book:
        book.collect(["a", Failure("b", "too long"), "c", "a", "d"], row)
    assert (book.num_added, book.num_failed) == (3, 1)
    assert present(warehouse) == ["a", "c", "d"]


def test_nothing_added_makes_no_commit(warehouse: Warehouse) -> None:
    before = warehouse.snapshot_id()
    with ledger(warehouse):
        pass
    assert warehouse.snapshot_id() == before


def test_a_commit_carries_the_ledgers_origin(warehouse: Warehouse) -> None:
    with ledger(warehouse) as book:
        book.add(row("a"))
    messages = warehouse.read("SELECT commit_message FROM dasd.snapshots() ORDER BY snapshot_id")["commit_message"]
    assert messages[-1] == "test"


def test_a_row_that_cannot_be_stored_keeps_its_companions_out(warehouse: Warehouse) -> None:
    with pytest.raises(duckdb.Error), ledger(warehouse) as book:
        book.add(row("a"))
        book.add({**row("b"), "seed": None})
    assert present(warehouse) == []


def test_failures_are_worth_another_attempt_three_times(warehouse: Warehouse) -> None:
    for attempt, num_retryable in ((1, 2), (2, 1), (3, 0), (4, 0)):
        with ledger(warehouse) as book:
            book.collect([Failure("a", "refused"), *[Failure("b", "busy")] * (attempt == 1)], row)
        assert (book.num_failed, book.num_retryable) == (2 if attempt == 1 else 1, num_retryable)
        counted = "SELECT num_attempts FROM failed_requests WHERE request_id = 'a'"
        assert warehouse.read(counted).item() == attempt


@pytest.mark.parametrize("kind", PERMANENT)
def test_a_permanent_failure_is_worth_no_other_attempt_and_counts_once(warehouse: Warehouse, kind: FailureKind) -> None:
    for _ in range(2):
        with ledger(warehouse) as book:
            book.collect([Failure("a", "it never fits", kind)], row)
        assert (book.num_failed, book.num_retryable) == (1, 0)
        assert book.num_overflowed == (kind == "context_overflow")
    assert warehouse.read("SELECT kind, num_attempts FROM failed_requests").rows() == [(kind, 1)]


def test_what_nobody_was_there_to_answer_counts_as_no_attempt(warehouse: Warehouse) -> None:
    attempts: list[tuple[FailureKind, int]] = [
        ("server_refused", 1),
        ("server_unavailable", 1),
        ("server_error", 2),
        ("server_busy", 2),
    ]
    for kind, number in attempts:
        with ledger(warehouse) as book:
            book.collect([Failure("a", "no server", kind)], row)
        assert warehouse.read("SELECT kind, num_attempts FROM failed_requests").row(0) == (kind, number)
        assert book.num_retryable == 1
