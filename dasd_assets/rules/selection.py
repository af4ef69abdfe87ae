"""Divergence-aware sampling (report §4): the highest scores of the pool, per question or per domain, within budgets."""

from collections.abc import Mapping
from math import inf

import polars as pl

from dasd_assets.rules.pool import POOL
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.scores import threshold_version
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Reading

SELECTION_VERSION = "1"
SELECTION = Rule("selection", SELECTION_VERSION, ("selection", "filters"), (POOL,))
# Buckets of equal width, from the least key to the greatest. Where 100,000 of 2 M rows are kept, 64 buckets leave
# 109,181 rows to sort and 4,096 leave 102,135 in the same time; 262,144 leave 101,736 and take 3.5 times as long.
NUM_BUCKETS = 4096


def selection_version(recipe: Recipe) -> str:
    """Identifies the rule that selected a row."""
    return content_hash([SELECTION_VERSION, threshold_version(recipe), recipe.version(*SELECTION.parts)])[:12]


def best_of_each_question(table: str, key: str) -> str:
    """SQL for one row a question: that of greatest key, called `key` in it; ties go to the smaller response_id.

    table: response_id, prompt_id, domain, score, accepted, and the key, a DOUBLE.
    """
    return f"""SELECT prompt_id, domain, -best.minus_key AS key, best.response_id, best.score, best.accepted
        FROM (SELECT prompt_id, any_value(domain) AS domain, min({{
                minus_key: -{key}, response_id: response_id, score: score, accepted: accepted}}) AS best
            FROM {table} WHERE {key} IS NOT NULL GROUP BY prompt_id)"""


def select(reading: Reading, policy: str, budget: Mapping[str, int]) -> pl.DataFrame:
    """The highest scores of table `pool`, with their rank within the domain; of the accepted ones, where not all are.

    `best_per_question` first keeps one response a question. budget: domain -> most rows to keep; a domain that is not
    named keeps all.
    """
    if policy == "best_per_question":
        reading.create_temp_table("best", best_of_each_question("pool", "score"))
        return rank(reading, "best", "key", budget)
    return rank(reading, "pool", "score", budget)


def rank(reading: Reading, table: str, key: str, budget: Mapping[str, int]) -> pl.DataFrame:
    """The accepted among the rows of greatest key in each domain, with their rank from 1; ties as above.

    table: as for `best_of_each_question`. budget: domain -> how many rows to rank; all of a domain that is not named.
    """
    # 1. A key per domain below which nothing can be kept.
    cutoffs = _key_cutoffs(reading, table, key, budget)
    named = {"domain": list(cutoffs), "most": [budget.get(name) for name in cutoffs], "cutoff": list(cutoffs.values())}
    limits = pl.DataFrame(named, {"domain": pl.String, "most": pl.Int64, "cutoff": pl.Float64})
    # 2. Only rows above the lowest of them leave DuckDB. The value stands in the query as a literal: compared with a
    #    parameter, DuckDB 1.5 reads every column of every row (1.8 s over 7.7 M rows; with a literal 0.3 s).
    rows = reading.read(
        f"""SELECT response_id, prompt_id, domain, score, accepted, {key} AS key FROM {table}
            WHERE {key} >= '{min(cutoffs.values(), default=-inf)!r}'::DOUBLE"""
    )
    # 3. Sort what is left, number it within its domain, and keep as many as the budget allows.
    return (
        rows.join(limits, on="domain", nulls_equal=True)
        .filter(pl.col("key") >= pl.col("cutoff"))
        .sort("domain", "key", "response_id", descending=[False, True, False], nulls_last=True)
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("domain"))
        .filter((pl.col("rank") <= pl.col("most")).fill_null(True), "accepted")
        .select("response_id", "prompt_id", "domain", "score", "rank")
    )


def _key_cutoffs(reading: Reading, table: str, key: str, budget: Mapping[str, int]) -> dict[str, float]:
    """Domain -> the key below which no row can be within the domain's budget; -inf for a domain that keeps all.

    From a histogram of the keys: the least key of the bucket in which the budget is used up. Sorting all rows instead
    (`row_number`) made the whole selection 5 times as slow over 7.7 M rows; `max(key, n)` is slow for a large n.
    """
    # 1. The range that the buckets divide.
    limits = reading.read(f"SELECT min({key}) AS low, max({key}) AS high FROM {table}").row(0, named=True)
    # 2. A row's bucket. Where all keys are equal, the division gives NaN: then all are in bucket 0.
    bucket = f"coalesce(try_cast(({key} - $low) / ($high - $low) * {NUM_BUCKETS} AS INTEGER), 0)"
    # 3. Per domain, counts added up from the highest bucket down, as far as the first sum that reaches the budget.
    query = f"""WITH budget AS (SELECT unnest($domains::VARCHAR[]) AS domain, unnest($most::BIGINT[]) AS most),
            buckets AS (SELECT domain, {bucket} AS bucket, count(*) AS number, min({key}) AS least FROM {table}
                WHERE {key} IS NOT NULL GROUP BY ALL),
            above AS (SELECT domain, least, sum(number) OVER (PARTITION BY domain ORDER BY bucket DESC) AS number
                FROM buckets)
        SELECT domain, coalesce(max(least) FILTER (number >= most), '-inf'::DOUBLE)
        FROM above LEFT JOIN budget USING (domain) GROUP BY domain"""
    params = {**limits, "domains": list(budget), "most": list(budget.values())}
    return dict(reading.read(query, params).iter_rows())
