"""Which rollouts a recipe wants: questions drawn once each, ids of what decides them, caps rounded up once."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasd_assets.rules.rollouts import draw_questions, length_cap, wanted_rollouts
from dasd_resources.recipe import load_recipe

RECIPE = load_recipe("demo")


def references() -> pl.DataFrame:
    rows = [("p", "q?", None, "r", 10), ("s", "t?", None, "u", 7)]
    names = ["prompt_id", "question", "system_prompt", "response_id", "reference_num_tokens"]
    return pl.DataFrame(rows, schema=names, orient="row")


@pytest.mark.parametrize(("length", "cap", "expected"), [(10, 1.5, 15), (7, 1.5, 11), (10, 1.1, 11), (3, 1.0, 3)])
def test_the_cap_is_rounded_up_once(length: int, cap: float, expected: int) -> None:
    assert length_cap(length, cap) == expected


@given(st.integers(1, 5000), st.integers(100, 300))
def test_the_cap_is_the_ceiling_of_the_exact_product(length: int, hundredths: int) -> None:
    assert length_cap(length, hundredths / 100) == -(-length * hundredths // 100)


def test_rollout_ids_follow_what_decides_them() -> None:
    first = wanted_rollouts(references(), "c1", RECIPE.mixed_policy)
    assert [row["max_tokens"] for row in first] == [15, 11]
    again = wanted_rollouts(references().reverse(), "c1", RECIPE.mixed_policy)
    assert {row["rollout_id"] for row in first} == {row["rollout_id"] for row in again}
    other = wanted_rollouts(references(), "c2", RECIPE.mixed_policy)
    assert not {row["rollout_id"] for row in first} & {row["rollout_id"] for row in other}


@pytest.mark.parametrize(
    "other", [{"length_cap": 2.0}, {"rollout_temperature": 0.9}, {"rollout_top_p": 0.9}, {"num_questions": 1}]
)
def test_a_rollout_id_follows_its_sampling(other: dict[str, float]) -> None:
    policy = RECIPE.mixed_policy.model_copy(update=other)
    ids = [{row["rollout_id"] for row in wanted_rollouts(references(), "c1", p)} for p in (RECIPE.mixed_policy, policy)]
    assert (ids[0] == ids[1]) is ("num_questions" in other)
    assert ids[0] == ids[1] or not ids[0] & ids[1]


def test_a_rollout_id_follows_its_reference() -> None:
    other = references().with_columns(response_id=pl.lit("x"))
    longer = references().with_columns(pl.col("reference_num_tokens") + 10)
    tables = (references(), other, longer)
    ids = [row["rollout_id"] for table in tables for row in wanted_rollouts(table, "c1", RECIPE.mixed_policy)]
    assert len(set(ids)) == 6
    assert wanted_rollouts(references().clear(), "c1", RECIPE.mixed_policy) == []


def test_questions_are_drawn_once_each() -> None:
    assert draw_questions(references(), None, 1).height == 2
    assert draw_questions(references(), 1, 1).height == 1
    assert draw_questions(pl.concat([references()] * 2), None, 1).height == 2


def test_the_first_reference_of_a_question_is_drawn_whatever_the_order_of_questions() -> None:
    rows = [(f"p{number % 20}", f"r{number}") for number in range(60)]
    table = pl.DataFrame(rows, schema=["prompt_id", "response_id"], orient="row")
    drawn = draw_questions(table, 7, 1)
    assert drawn["prompt_id"].n_unique() == drawn.height == 7
    assert all(int(response[1:]) < 20 for response in drawn["response_id"])
    swapped = pl.concat([table[10:20], table[:10], table[20:]])
    assert set(draw_questions(swapped, 7, 1)["response_id"]) == set(drawn["response_id"])
    assert set(draw_questions(table, 7, 2)["response_id"]) != set(drawn["response_id"])
    assert set(drawn["response_id"]) < set(draw_questions(table, 8, 1)["response_id"])
    assert draw_questions(table.clear(), 7, 1).is_empty()
