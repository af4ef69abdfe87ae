from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from math import inf
from pathlib import Path

import dagster as dg
import duckdb
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd_assets.rules.competition import Competition
from dasd_assets.rules.selection import select
from dasd_assets.selection import write_selection
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.warehouse import Reading, Warehouse


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


@cache
def memory() -> duckdb.DuckDBPyConnection:
    """One database for all readings: to open one takes longer than to select. Temporary tables are a cursor's own."""
    return duckdb.connect()


@contextmanager
def reading_of(pool: pl.DataFrame) -> Iterator[Reading]:
    """A reading whose table `pool` holds these rows: accepted, ranked by score, of cost 1 unless they say otherwise."""
    usual = {"accepted": pl.lit(True), "key": pl.col("score"), "cost": pl.lit(1)}
    with memory().cursor() as connection:
        connection.register("rows", pool.with_columns(**{k: v for k, v in usual.items() if k not in pool.columns}))
        reading = Reading(connection)
        reading.create_temp_table("pool", "FROM rows")
        yield reading


def chosen_of(
    pool: pl.DataFrame, policy: str, budget: dict[str, int], max_per_question: int | None = None
) -> pl.DataFrame:
    with reading_of(pool) as reading:
        return select(reading, Competition(policy, max_per_question), budget)


def kept(table: pl.DataFrame) -> list[tuple[str, int]]:
    return table.select("response_id", "rank").rows()


def test_the_best_of_each_question_ranked_within_its_domain() -> None:
    assert kept(chosen_of(pool(), "best_per_question", {})) == [("c1", 1), ("a2", 1), ("b1", 2)]


def test_top_k_takes_several_of_one_question() -> None:
    assert kept(chosen_of(pool(), "top_k", {"math": 3})) == [("c1", 1), ("a2", 1), ("b1", 2), ("b2", 3)]


def test_ties_go_to_the_smaller_id_whatever_the_order() -> None:
    shuffled = pool().sample(fraction=1.0, shuffle=True, seed=3)
    assert kept(chosen_of(shuffled, "top_k", {"math": 1, "code": 1})) == [("c1", 1), ("a2", 1)]


def test_an_empty_pool_selects_nothing() -> None:
    assert chosen_of(pool().clear(), "top_k", {}).is_empty()


@pytest.fixture
def write(tmp_path: Path) -> Callable[[pl.DataFrame], Warehouse]:
    """Writes a selection as an asset does; returns the warehouse."""
    warehouse = Warehouse(home=str(tmp_path))

    def materialize(selected: pl.DataFrame) -> Warehouse:
        @dg.asset
        def selection(context: dg.AssetExecutionContext) -> None:
            write_selection(context, warehouse, load_recipe("demo"), "t060", "das", selected)

        with dg.DagsterInstance.ephemeral() as instance:
            dg.materialize([selection], instance=instance)
        return warehouse

    return materialize


def test_an_unchanged_selection_makes_no_commit(write: Callable[[pl.DataFrame], Warehouse]) -> None:
    selected = chosen_of(pool(), "top_k", {})
    before = write(selected).snapshot_id()
    assert write(selected.reverse()).snapshot_id() == before


def test_new_scores_of_the_same_responses_are_written(write: Callable[[pl.DataFrame], Warehouse]) -> None:
    write(chosen_of(pool(), "top_k", {}))
    rescored = pool().with_columns(score=1 - pl.col("score"))  # as under another student
    stored = write(chosen_of(rescored, "top_k", {})).read(
        "SELECT response_id, rank FROM selected_responses ORDER BY ALL"
    )
    assert stored.rows() == [("a1", 1), ("a2", 2), ("b1", 3), ("b2", 4), ("c1", 1)]


def test_a_smaller_selection_drops_the_rest(write: Callable[[pl.DataFrame], Warehouse]) -> None:
    write(chosen_of(pool(), "top_k", {}))
    stored = write(chosen_of(pool(), "top_k", {"math": 1})).read(
        "SELECT response_id FROM selected_responses ORDER BY ALL"
    )
    assert stored["response_id"].to_list() == ["a2", "c1"]


def test_top_k_takes_no_more_of_a_question_than_it_may() -> None:
    assert kept(chosen_of(pool(), "top_k", {"math": 3}, 1)) == [("c1", 1), ("a2", 1), ("b1", 2)]
    assert kept(chosen_of(pool(), "top_k", {"math": 4}, 2)) == kept(chosen_of(pool(), "top_k", {"math": 4}))


def test_a_budget_is_filled_with_the_next_best_accepted_response() -> None:
    table = pool().with_columns(accepted=pl.col("response_id") != "a2")
    assert kept(chosen_of(table, "top_k", {"math": 2})) == [("c1", 1), ("b1", 1), ("b2", 2)]
    # The best of question a is rejected, and with it the question: its next best was not what the score chose.
    assert kept(chosen_of(table, "best_per_question", {"math": 2})) == [("c1", 1), ("b1", 1)]


def test_a_budget_of_tokens_is_spent_and_not_exceeded() -> None:
    table = pool().with_columns(cost=pl.Series([10, 60, 30, 20, 5, 5]))
    assert kept(chosen_of(table, "top_k", {"math": 89})) == [("c1", 1), ("a2", 1)]
    assert kept(chosen_of(table, "top_k", {"math": 90})) == [("c1", 1), ("a2", 1), ("b1", 2)]
    assert chosen_of(table, "top_k", {"math": 59, "code": 4}).is_empty()


pools = st.lists(
    st.tuples(
        st.integers(0, 9),
        st.sampled_from(["math", "code"]),
        st.sampled_from([None, 0.0, 0.5, 1.0]),
        st.booleans(),
        st.integers(1, 4),
    ),
    max_size=25,
).map(
    lambda rows: pl.DataFrame(
        [
            {
                "response_id": f"r{i:02d}",
                "prompt_id": f"{domain}{question}",
                "domain": domain,
                "score": score,
                "accepted": accepted,
                "cost": cost,
            }
            for i, (question, domain, score, accepted, cost) in enumerate(rows)
        ],
        schema={
            "response_id": pl.String,
            "prompt_id": pl.String,
            "domain": pl.String,
            "score": pl.Float64,
            "accepted": pl.Boolean,
            "cost": pl.Int32,
        },
    )
)
rules = st.sampled_from([("best_per_question", None), ("top_k", None), ("top_k", 1), ("top_k", 2)])
budgets = st.dictionaries(st.sampled_from(["math", "code"]), st.integers(1, 9))


def plainly_chosen(pool: pl.DataFrame, policy: str, most: int | None, budget: dict[str, int]) -> list[tuple[str, int]]:
    """The selection as a loop over the rows, best first."""
    found: list[tuple[str, int]] = []
    for domain in ("code", "math"):
        rows = [row for row in pool.to_dicts() if row["domain"] == domain and row["score"] is not None]
        rows.sort(key=lambda row: (-row["score"], row["response_id"]))
        if policy == "best_per_question":
            rows = [row for i, row in enumerate(rows) if row["prompt_id"] not in {r["prompt_id"] for r in rows[:i]}]
        rank, spent, taken = 0, 0, Counter[str]()
        for row in (row for row in rows if row["accepted"]):
            taken[row["prompt_id"]] += 1
            if most is not None and taken[row["prompt_id"]] > most:
                continue
            spent += row["cost"]
            if spent > budget.get(domain, inf):
                break
            rank += 1
            found.append((row["response_id"], rank))
    return found


@settings(max_examples=100, deadline=None)
@given(pools, rules, budgets)
def test_a_selection_is_what_a_plain_loop_selects(
    pool: pl.DataFrame, rule: tuple[str, int | None], budget: dict[str, int]
) -> None:
    policy, most = rule
    assert kept(chosen_of(pool, policy, budget, most)) == plainly_chosen(pool, policy, most, budget)
