"""Which answers count of a model that was asked with several prompts: those to the last."""

import polars as pl
import pytest

from dasd_assets.rules.last_prompts import OF_CHECKPOINTS, asked_with_several, last_prompts, newest_answers
from dasd_resources.storage.warehouse import Row, Warehouse

REQUEST = {
    "checkpoint_id": "c",
    "benchmark": "b",
    "temperature": 1.0,
    "top_p": 1.0,
    "max_tokens": 200,
    "question_id": "q",
    "sample_index": 0,
    "verifier_version": "v",
    "instruction": None,
}
ANSWER = {**REQUEST, "correct": True, "kind": None, "reason": None, "response_text": "", "num_tokens": 1}


def write(warehouse: Warehouse, table: str, *rows: Row) -> None:
    """One commit for each row, so that their order is certain."""
    base = {**ANSWER, "finish_reason": "stop"} if table == "evaluations" else REQUEST
    for row in rows:
        with warehouse.commit("test") as transaction:
            transaction.append_missing(table, pl.DataFrame([{**base, **row}]))


def prompts(warehouse: Warehouse) -> list[str | None]:
    found = warehouse.read(f"SELECT prompt FROM ({last_prompts(OF_CHECKPOINTS)}) ORDER BY max_tokens", {"ids": ["c"]})
    return found["prompt"].to_list()


def answers(warehouse: Warehouse) -> list[str]:
    query = f"""WITH asked_last AS ({last_prompts(OF_CHECKPOINTS)})
        SELECT evaluation_id FROM ({newest_answers(OF_CHECKPOINTS)}) ORDER BY max_tokens, sample_index"""
    return warehouse.read(query, {"ids": ["c"]})["evaluation_id"].to_list()


@pytest.fixture
def asked_twice(warehouse: Warehouse) -> Warehouse:
    """Two samples asked with prompt A, the first of them then with B."""
    of_a = [{"evaluation_id": f"a{i}", "template_version": "A", "sample_index": i} for i in range(2)]
    of_b = {"evaluation_id": "b0", "template_version": "B"}
    write(warehouse, "evaluation_requests", *of_a, of_b)
    write(warehouse, "evaluations", *of_a, of_b)
    return warehouse


def test_answers_to_the_last_prompt_count_alone(asked_twice: Warehouse) -> None:
    assert (prompts(asked_twice), answers(asked_twice)) == (["B"], ["b0"])
    write(asked_twice, "evaluation_requests", {"evaluation_id": "other", "template_version": "A", "max_tokens": 300})
    assert (prompts(asked_twice), answers(asked_twice)) == (["B", "A"], ["b0"])  # another limit is another evaluation
    [several] = asked_twice.read(asked_with_several(OF_CHECKPOINTS), {"ids": ["c"]}).to_dicts()
    assert (several["checkpoint_id"], several["max_tokens"]) == ("c", 200)


def test_what_was_asked_last_decides_not_what_was_answered_last(asked_twice: Warehouse) -> None:
    again = {"evaluation_id": "a2", "template_version": "A", "sample_index": 2}
    write(asked_twice, "evaluation_requests", again)
    assert (prompts(asked_twice), answers(asked_twice)) == (["A"], ["a0", "a1"])


def test_of_one_answer_the_last_verdict_counts(asked_twice: Warehouse) -> None:
    write(asked_twice, "evaluations", {"evaluation_id": "b0 new", "template_version": "B", "verifier_version": "new"})
    write(asked_twice, "evaluations", {"evaluation_id": "a0 new", "template_version": "A", "verifier_version": "new"})
    assert answers(asked_twice) == ["b0 new"]


def test_homes_that_stored_no_requests_have_the_order_of_answers(warehouse: Warehouse) -> None:
    """And answers whose prompt is not known count, until the same is answered to one that is."""
    unknown = [{"evaluation_id": f"old{i}", "template_version": None, "sample_index": i} for i in range(3)]
    write(warehouse, "evaluations", *unknown)
    assert (prompts(warehouse), answers(warehouse)) == ([None], ["old0", "old1", "old2"])
    write(warehouse, "evaluations", {"evaluation_id": "a0", "template_version": "A"})
    write(warehouse, "evaluations", {"evaluation_id": "b1", "template_version": "B", "sample_index": 1})
    assert (prompts(warehouse), answers(warehouse)) == (["B"], ["old0", "b1", "old2"])
