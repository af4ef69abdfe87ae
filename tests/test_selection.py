import polars as pl
import pytest

from dasd_assets.selection import select, select_random


def pool() -> pl.DataFrame:
    rows = [
        ("a1", "a", "math", 0.5),
        ("a2", "a", "math", 0.9),
        ("b1", "b", "math", 0.9),
        ("b2", "b", "math", 0.9),
        ("c1", "c", "code", 0.1),
        ("c2", "c", "code", None),
    ]
    return pl.DataFrame(rows, schema=["response_id", "prompt_id", "domain", "score"], orient="row")


def kept(table: pl.DataFrame) -> list[tuple[str, int]]:
    return table.select("response_id", "rank").rows()


def test_the_best_of_each_question_ranked_within_its_domain() -> None:
    assert kept(select(pool(), "best_per_question", {})) == [("c1", 1), ("a2", 1), ("b1", 2)]


def test_top_k_takes_several_of_one_question() -> None:
    assert kept(select(pool(), "top_k", {"math": 3})) == [("c1", 1), ("a2", 1), ("b1", 2), ("b2", 3)]


def test_ties_go_to_the_smaller_id_whatever_the_order() -> None:
    shuffled = pool().sample(fraction=1.0, shuffle=True, seed=3)
    assert kept(select(shuffled, "top_k", {"math": 1, "code": 1})) == [("c1", 1), ("a2", 1)]


@pytest.mark.parametrize("policy", ["best_per_question", "top_k"])
def test_the_control_is_as_large_per_domain_and_a_fixed_draw(policy: str) -> None:
    chosen = select(pool(), policy, {"math": 2})
    drawn = select_random(pool(), chosen, policy, seed=7)
    counts = [table.group_by("domain").len().sort("domain").rows() for table in (chosen, drawn)]
    assert counts[0] == counts[1]
    again = select_random(pool().sample(fraction=1.0, shuffle=True, seed=1), chosen, policy, seed=7)
    assert kept(drawn) == kept(again)
    if policy == "best_per_question":
        assert sorted(drawn["prompt_id"]) == sorted(chosen["prompt_id"])


def test_another_seed_draws_another_control() -> None:
    many = pl.DataFrame(
        {"response_id": [f"r{i:03d}" for i in range(200)], "prompt_id": [f"p{i}" for i in range(200)], "domain": "math"}
    ).with_columns(score=pl.lit(1.0))
    chosen = select(many, "top_k", {"math": 20})
    draws = [set(select_random(many, chosen, "top_k", seed)["response_id"]) for seed in (1, 2)]
    assert draws[0] != draws[1]
    assert len(draws[0]) == len(draws[1]) == 20


def test_an_empty_pool_selects_nothing() -> None:
    assert select(pool().clear(), "top_k", {}).is_empty()
