"""Every policy chooses what it says, at the cost of DAS's choice, the same whatever the order of rows."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_selection import budgets, chosen_of, kept, pool, pools, reading_of, rules

from dasd_assets.experiments.datasets import domain_budgets
from dasd_assets.rules.arms import arm_dataset
from dasd_assets.rules.asset_names import DAS, RANDOM
from dasd_assets.rules.competition import Competition
from dasd_assets.rules.policies import LENGTH_MATCHED, POLICIES, TOLERANCE, draw
from dasd_assets.rules.random_control import draw_control
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import ArmStage


def drawn(
    pool: pl.DataFrame,
    policy: str,
    rule: tuple[str, int | None],
    budget: dict[str, int],
    seed: int = 7,
    times: float = 1.0,
    max_of_question: int | None = None,
) -> pl.DataFrame:
    with reading_of(pool) as reading:
        return draw(reading, policy, Competition(*rule), budget, seed, times, max_of_question)


def control(pool: pl.DataFrame, rule: tuple[str, int | None], budget: dict[str, int], seed: int) -> pl.DataFrame:
    with reading_of(pool) as reading:
        return draw_control(reading, chosen_of(pool, rule[0], budget, rule[1]), Competition(*rule), seed)


def ids(table: pl.DataFrame) -> list[str]:
    return table["response_id"].to_list()


@st.composite
def measured_pools(draw: st.DrawFn) -> pl.DataFrame:
    """Pools whose rows have a length and a verdict; each costs 1, or its length."""
    table = draw(pools)
    lengths = draw(st.lists(st.integers(95, 125), min_size=len(table), max_size=len(table)))
    correct = draw(st.lists(st.booleans(), min_size=len(table), max_size=len(table)))
    table = table.with_columns(
        num_tokens=pl.Series(lengths, dtype=pl.Int64),
        mean_logprob=-pl.Series(lengths, dtype=pl.Float64),
        correct=pl.Series(correct, dtype=pl.Boolean),
    )
    return table.with_columns(cost=pl.col("num_tokens") if draw(st.booleans()) else pl.lit(1))


token_budgets = st.dictionaries(st.sampled_from(["math", "code"]), st.integers(1, 400))


@settings(max_examples=40, deadline=None)
@given(measured_pools(), rules, st.one_of(budgets, token_budgets), st.sampled_from(list(POLICIES)), st.integers(0, 3))
def test_every_policy_keeps_the_budget_and_depends_on_no_order(
    pool: pl.DataFrame, rule: tuple[str, int | None], budget: dict[str, int], policy: str, seed: int
) -> None:
    found, das = drawn(pool, policy, rule, budget, seed), chosen_of(pool, rule[0], budget, rule[1])
    rows = pool.filter("accepted", pl.col("score").is_not_null())
    assert found["response_id"].is_unique().all()
    assert set(ids(found)) <= set(ids(rows))
    cost = dict(pool.select("response_id", "cost").iter_rows())
    for domain in ("code", "math"):
        mine, its = (table.filter(domain=domain) for table in (found, das))
        assert mine["rank"].to_list() == list(range(1, len(mine) + 1))
        assert sum(cost[i] for i in ids(mine)) <= sum(cost[i] for i in ids(its))
    most = 1 if rule[0] == "best_per_question" else rule[1]
    if most is not None:
        assert found["prompt_id"].value_counts()["count"].max() in (None, *range(1, most + 1))
    if policy == "random_correct":
        assert set(ids(found)) <= set(ids(pool.filter("correct")))
    elif (pool["cost"] == 1).all():
        assert sorted(found["domain"]) == sorted(das["domain"])
        if rule[0] == "best_per_question":
            assert sorted(found["prompt_id"]) == sorted(das["prompt_id"])
    assert kept(drawn(pool.reverse(), policy, rule, budget, seed)) == kept(found)


@settings(max_examples=15, deadline=None)
@given(measured_pools(), rules, budgets, st.integers(0, 3))
def test_das_and_random_are_the_selection_and_the_control_that_homes_have(
    pool: pl.DataFrame, rule: tuple[str, int | None], budget: dict[str, int], seed: int
) -> None:
    assert drawn(pool, DAS, rule, budget).equals(chosen_of(pool, rule[0], budget, rule[1]))
    assert drawn(pool, RANDOM, rule, budget, seed).equals(control(pool, rule, budget, seed))


def measured() -> pl.DataFrame:
    """The pool of test_selection: questions a, b of math and c of code, here with c2 scored."""
    return pool().with_columns(
        score=pl.col("score").fill_null(0.0),
        num_tokens=pl.Series([10, 20, 30, 25, 7, 9]),
        mean_logprob=pl.Series([-0.3, -0.1, -0.2, -0.4, None, -0.5]),
        correct=pl.Series([True, False, False, True, False, True]),
    )


@pytest.mark.parametrize(
    ("policy", "of_questions", "of_all"),
    [
        ("anti_das", [("c2", 1), ("a1", 1), ("b1", 2)], [("c2", 1), ("a1", 1), ("a2", 2)]),
        ("longest", [("c2", 1), ("b1", 1), ("a2", 2)], [("c2", 1), ("b1", 1), ("b2", 2)]),
        ("shortest", [("c1", 1), ("a1", 1), ("b2", 2)], [("c1", 1), ("a1", 1), ("a2", 2)]),
        ("most_probable", [("c2", 1), ("a2", 1), ("b1", 2)], [("c2", 1), ("a2", 1), ("b1", 2)]),
        ("least_probable", [("c2", 1), ("b2", 1), ("a1", 2)], [("c2", 1), ("b2", 1), ("a1", 2)]),
    ],
)
def test_the_ends_of_score_length_and_probability(
    policy: str, of_questions: list[tuple[str, int]], of_all: list[tuple[str, int]]
) -> None:
    assert kept(drawn(measured(), policy, ("best_per_question", None), {})) == of_questions
    assert kept(drawn(measured(), policy, ("top_k", None), {"math": 2, "code": 1})) == of_all


def test_a_correct_draw_takes_other_questions_where_das_chose_one_without_a_right_answer() -> None:
    table = measured().with_columns(correct=pl.col("prompt_id") == "a", domain=pl.lit("math"))
    found = drawn(table, "random_correct", ("best_per_question", None), {"math": 1})
    assert chosen_of(table, "best_per_question", {"math": 1})["prompt_id"].to_list() == ["a"]
    assert found["prompt_id"].to_list() == ["a"]
    others = table.with_columns(correct=pl.col("prompt_id") == "c")
    assert drawn(others, "random_correct", ("best_per_question", None), {"math": 1})["prompt_id"].to_list() == ["c"]


def test_all_that_is_right_is_drawn_as_random_draws_it() -> None:
    table = big_pool(2_000).with_columns(correct=pl.lit(True))
    rule = ("best_per_question", None)
    assert (
        drawn(table, "random_correct", rule, {}, 3)
        .sort("response_id")
        .equals(drawn(table, RANDOM, rule, {}, 3).sort("response_id"))
    )


def test_twice_the_data_are_twice_as_many_questions_or_two_responses_of_each() -> None:
    table, rule = big_pool(2_000), ("best_per_question", None)
    for policy in (DAS, RANDOM, "anti_das", "shortest"):
        wide = drawn(table, policy, rule, {"math": 100}, times=2)
        assert wide.height == wide["prompt_id"].n_unique() == 200
        assert set(drawn(table, DAS, rule, {"math": 100})["prompt_id"]) <= set(wide["prompt_id"])
        exhausted = drawn(table, policy, rule, {}, times=2)  # 500 questions, all of them chosen
        assert exhausted.height == 1_000
        assert set(exhausted["prompt_id"].value_counts()["count"]) == {2}
        assert exhausted.sort("rank")["prompt_id"][:500].n_unique() == 500  # the second ones after all first ones


@pytest.mark.parametrize("policy", [DAS, RANDOM, "anti_das", "random_correct"])
@pytest.mark.parametrize("times", [0.5, 0.7, 2])
def test_a_multiple_is_of_the_budget_and_not_of_what_a_smaller_pool_has(policy: str, times: float) -> None:
    """240 responses to 60 questions, where the recipe's own selection had 100: half of it is 50, not half of 60."""
    table, rule = big_pool(240).with_columns(correct=pl.lit(True)), ("best_per_question", None)
    expected = {0.5: 50, 0.7: 60, 2: 120}  # as far as there are questions: of 60, one each, or two each
    assert drawn(table, policy, rule, {"math": 100}, times=times).height == expected[times]


def test_a_multiple_is_no_less_by_the_error_of_a_product() -> None:
    assert 100 * 0.29 < 29
    assert drawn(big_pool(240), DAS, ("top_k", None), {"math": 100}, times=0.29).height == 29


def test_a_multiple_of_a_domain_of_which_the_recipe_took_nothing_is_nothing(tiny: Recipe) -> None:
    stage = ArmStage.model_validate({"dataset": "t060", "budget": {"times": 2}})
    own = "'tiny' AS recipe, 't060' AS dataset, 'das' AS policy, 'math' AS domain, unnest(['b1', 'b2']) AS response_id"
    with reading_of(pool()) as reading:
        reading.create_temp_table("selected_responses", f"SELECT {own}")
        found = domain_budgets(reading, tiny, arm_dataset(tiny, stage, 42), "t060", {})
    assert found == ({"code": 0, "math": 2}, 2.0)


def test_equal_tokens_are_reached_by_further_responses_where_they_are_asked_for() -> None:
    table, rule = big_pool(2_000).with_columns(cost="num_tokens"), ("best_per_question", None)
    table = table.with_columns(score=pl.col("num_tokens").cast(pl.Float64))  # DAS takes the longest
    spent = dict(table.select("response_id", "cost").iter_rows())
    most = sum(spent[i] for i in ids(drawn(table, DAS, rule, {})))
    plain = sum(spent[i] for i in ids(drawn(table, RANDOM, rule, {})))
    filled = sum(spent[i] for i in ids(drawn(table, RANDOM, rule, {}, max_of_question=2)))
    assert plain < 0.9 * most
    assert most - table["cost"].max() < filled <= most


def big_pool(num_rows: int) -> pl.DataFrame:
    """Four responses a question, their lengths log-normal and the score following them, so that DAS takes long ones."""
    drawn = np.random.default_rng(0)
    lengths = np.exp(drawn.normal(6, 0.5, num_rows)).astype(int) + 1
    return pl.DataFrame(
        {
            "response_id": [f"r{i:06d}" for i in range(num_rows)],
            "prompt_id": [f"p{i // 4:06d}" for i in range(num_rows)],
            "domain": "math",
            "score": np.log(lengths) + drawn.normal(0, 0.5, num_rows),
            "num_tokens": lengths,
        }
    )


def distance(found: Iterable[int], expected: Iterable[int]) -> float:
    """Kolmogorov-Smirnov: the greatest difference between the two distribution functions."""
    left, right = np.sort(list(found)), np.sort(list(expected))
    points = np.concatenate([left, right])
    shares = (np.searchsorted(side, points, side="right") / len(side) for side in (left, right))
    return float(np.abs(np.subtract(*shares)).max())


@pytest.mark.parametrize(
    ("rule", "budget", "most_kept"),
    [
        (("top_k", None), {"math": 2_000}, 0.1),
        (("best_per_question", None), {}, 0.9),
        (("top_k", 2), {"math": 2_000}, 0.9),
    ],
)
def test_matched_lengths_are_distributed_as_those_of_das(
    rule: tuple[str, int | None], budget: dict[str, int], most_kept: float
) -> None:
    table = big_pool(20_000)
    lengths = dict(table.select("response_id", "num_tokens").iter_rows())
    das, matched, random = (ids(drawn(table, policy, rule, budget)) for policy in (DAS, LENGTH_MATCHED, RANDOM))
    mine, its, drawn_at_random = ([lengths[i] for i in chosen] for chosen in (matched, das, random))
    assert len(mine) == len(its)
    assert distance(mine, its) < 0.03 < 0.2 < distance(drawn_at_random, its)
    assert np.abs(np.log(np.sort(mine) / np.sort(its))).max() <= np.log(1 + TOLERANCE)
    assert len(set(matched) & set(das)) / len(das) < most_kept


def test_the_documentation_lists_the_policies() -> None:
    page = (Path(__file__).parents[1] / "docs" / "selection.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    assert [f"| `{name}` | {entry.meaning} | {entry.controls_for} |" for name, entry in POLICIES.items()] == [
        row for row in rows if row.split("`")[1] in POLICIES
    ]
