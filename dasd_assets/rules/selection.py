"""Divergence-aware sampling (report §4): the greatest keys of the pool, per question or per domain, within budgets."""

from collections.abc import Mapping
from math import inf

import polars as pl

from dasd_assets.rules.competition import Competition
from dasd_assets.rules.pool import POOL
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.scores import threshold_version
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Reading

SELECTION_VERSION = "2"
SELECTION = Rule("selection", SELECTION_VERSION, ("selection", "filters", "heldout.questions"), (POOL,))
# Buckets of equal width, from the least key to the greatest. Where 100,000 of 2 M rows are kept, 64 buckets leave
# 109,181 rows to sort and 4,096 leave 102,135 in the same time; 262,144 leave 101,736 and take 3.5 times as long.
NUM_BUCKETS = 4096


def selection_version(recipe: Recipe) -> str:
    """Identifies the rule that selected a row."""
    return content_hash([SELECTION_VERSION, threshold_version(recipe), recipe.version(*SELECTION.parts)])[:12]


def competition(recipe: Recipe) -> Competition:
    """Which rows of the pool compete under a recipe."""
    return Competition(recipe.selection.policy, recipe.selection.max_per_question)


def select(reading: Reading, rule: Competition, budget: Mapping[str, int], table: str = "pool") -> pl.DataFrame:
    """The competing rows of greatest key in each domain, with their rank from 1; ties go to the smaller response_id.

    table: see `Competition`. budget: domain -> how much the kept rows may cost together, the best first and none past
    over; a domain that is not named keeps all.
    """
    # Read three times below: a table where a question's rows compete with one another, which costs a pass of its own.
    rows = f"({rule.rows(table)})"
    if not rule.is_plain:
        reading.create_temp_table("competing", rule.rows(table))
        rows = "competing"
    # 1. A key per domain below which nothing can be kept.
    cutoffs = _key_cutoffs(reading, rows, budget)
    named = {"domain": list(cutoffs), "most": [budget.get(name) for name in cutoffs], "cutoff": list(cutoffs.values())}
    limits = pl.DataFrame(named, {"domain": pl.String, "most": pl.Int64, "cutoff": pl.Float64})
    # 2. Only rows above the lowest of them leave DuckDB. The value stands in the query as a literal: compared with a
    #    parameter, DuckDB 1.5 reads every column of every row (1.8 s over 7.7 M rows; with a literal 0.3 s).
    found = reading.read(
        f"""SELECT response_id, prompt_id, domain, score, key, cost FROM {rows}
            WHERE key >= '{min(cutoffs.values(), default=-inf)!r}'::DOUBLE"""
    )
    # 3. Sort what is left, number it within its domain, and keep as many as the budget allows.
    return (
        found.join(limits, on="domain", nulls_equal=True)
        .filter(pl.col("key") >= pl.col("cutoff"))
        .sort("domain", "key", "response_id", descending=[False, True, False], nulls_last=True)
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("domain"), spent=pl.col("cost").cum_sum().over("domain"))
        .filter((pl.col("spent") <= pl.col("most")).fill_null(True))
        .select("response_id", "prompt_id", "domain", "score", "rank")
    )


def _key_cutoffs(reading: Reading, rows: str, budget: Mapping[str, int]) -> dict[str, float]:
    """Domain -> the key below which no row can be within the domain's budget; -inf for a domain that keeps all.

    From a histogram of the keys: the least key of the bucket in which the budget is used up. Sorting all rows instead
    (`row_number`) made the whole selection 5 times as slow over 7.7 M rows; `max(key, n)` is slow for a large n.
    """
    # 1. The range that the buckets divide.
    limits = reading.read(f"SELECT min(key) AS low, max(key) AS high FROM {rows}").row(0, named=True)
    # 2. A row's bucket. Where all keys are equal, the division gives NaN: then all are in bucket 0.
    bucket = f"coalesce(try_cast((key - $low) / ($high - $low) * {NUM_BUCKETS} AS INTEGER), 0)"
    # 3. Per domain, costs added up from the highest bucket down, as far as the first sum that reaches the budget.
    query = f"""WITH budget AS (SELECT unnest($domains::VARCHAR[]) AS domain, unnest($most::BIGINT[]) AS most),
            buckets AS (SELECT domain, {bucket} AS bucket, sum(cost) AS cost, min(key) AS least FROM {rows}
                GROUP BY ALL),
            above AS (SELECT domain, least, sum(cost) OVER (PARTITION BY domain ORDER BY bucket DESC) AS cost
                FROM buckets)
        SELECT domain, coalesce(max(least) FILTER (cost >= most), '-inf'::DOUBLE)
        FROM above LEFT JOIN budget USING (domain) GROUP BY domain"""
    params = {**limits, "domains": list(budget), "most": list(budget.values())}
    return dict(reading.read(query, params).iter_rows())
