"""The random control: as large as the selection per domain, of its questions, the same draw whatever the order."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_selection import budgets, chosen_of, kept, pool, pools, reading_of, rules

from dasd_assets.rules.competition import Competition
from dasd_assets.rules.random_control import draw_control


def control_of(
    pool: pl.DataFrame, chosen: pl.DataFrame, policy: str, seed: int, max_per_question: int | None = None
) -> pl.DataFrame:
    with reading_of(pool) as reading:
        return draw_control(reading, chosen, Competition(policy, max_per_question), seed)


@pytest.mark.parametrize("policy", ["best_per_question", "top_k"])
def test_the_control_is_as_large_per_domain_and_a_fixed_draw(policy: str) -> None:
    chosen = chosen_of(pool(), policy, {"math": 2})
    drawn = control_of(pool(), chosen, policy, seed=7)
    counts = [table.group_by("domain").len().sort("domain").rows() for table in (chosen, drawn)]
    assert counts[0] == counts[1]
    again = control_of(pool().sample(fraction=1.0, shuffle=True, seed=1), chosen, policy, seed=7)
    assert kept(drawn) == kept(again)
    if policy == "best_per_question":
        assert sorted(drawn["prompt_id"]) == sorted(chosen["prompt_id"])


def test_another_seed_draws_another_control() -> None:
    many = pl.DataFrame(
        {"response_id": [f"r{i:03d}" for i in range(200)], "prompt_id": [f"p{i}" for i in range(200)], "domain": "math"}
    ).with_columns(score=pl.lit(1.0))
    chosen = chosen_of(many, "top_k", {"math": 20})
    draws = [set(control_of(many, chosen, "top_k", seed)["response_id"]) for seed in (1, 2)]
    assert draws[0] != draws[1]
    assert len(draws[0]) == len(draws[1]) == 20


@settings(max_examples=30, deadline=None)
@given(pools, rules, budgets, st.integers(0, 3))
def test_the_control_matches_any_selection(
    pool: pl.DataFrame, rule: tuple[str, int | None], budget: dict[str, int], seed: int
) -> None:
    policy, most = rule
    chosen = chosen_of(pool, policy, budget, most)
    drawn = control_of(pool, chosen, policy, seed, most)
    costs = dict(pool.select("response_id", "cost").iter_rows())
    assert drawn["response_id"].is_unique().all()
    assert set(drawn["response_id"]) <= set(pool.filter("accepted")["response_id"])
    assert drawn["score"].null_count() == 0
    for domain in ("code", "math"):
        mine, its = (table.filter(domain=domain) for table in (drawn, chosen))
        assert mine["rank"].to_list() == list(range(1, len(mine) + 1))
        assert sum(costs[i] for i in mine["response_id"]) <= sum(costs[i] for i in its["response_id"])
    if most is not None:
        assert drawn["prompt_id"].value_counts()["count"].max() in (None, *range(1, most + 1))
    if policy == "best_per_question":
        assert set(drawn["prompt_id"]) <= set(chosen["prompt_id"])
    assert kept(control_of(pool.reverse(), chosen, policy, seed, most)) == kept(drawn)


@settings(max_examples=25, deadline=None)
@given(pools, rules, budgets)
def test_where_all_rows_cost_the_same_the_control_is_as_large(
    pool: pl.DataFrame, rule: tuple[str, int | None], budget: dict[str, int]
) -> None:
    policy, most = rule
    pool = pool.with_columns(cost=pl.lit(1))
    chosen = chosen_of(pool, policy, budget, most)
    assert sorted(control_of(pool, chosen, policy, 0, most)["domain"]) == sorted(chosen["domain"])
