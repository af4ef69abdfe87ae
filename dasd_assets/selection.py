"""Divergence-aware sampling (report §4): keep the responses richest in what the teacher knows and the student does not.

`response_scores` of all batches -> `selected_responses`, one asset per temperature (policy `das`), and the control
`random_responses` (policy `random`): drawn from the same pool, as many per domain and temperature, and for the same
questions where the policy is best-per-question. Table 3 of the report compares the two at equal budget.
"""

from collections.abc import Iterable, Mapping, Sequence
from math import inf

import dagster as dg
import polars as pl

from dasd_assets.divergence import divergence_version, threshold_version
from dasd_assets.records.code_versions import CodeVersion, of_recipe
from dasd_assets.records.plots import histogram, inline, shape
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.records.selection_rules import record_rule, selection_rule
from dasd_assets.records.table_metadata import Figure, TableAsset, audited, table
from dasd_assets.rules.ids import selection_id
from dasd_assets.rules.pool import drop_counts, keep_pool, pool_params
from dasd_assets.service.staleness import batches_tag
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Reading, Warehouse

SELECTION_VERSION = "1"
CONTROL_VERSION = "2"
PLOTTED = 100_000  # of the pool's scores
NUM_BUCKETS = 4096  # of equal width, from the least key to the greatest


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
        reading.keep("best", best_of_each_question("pool", "score"))
        return _rank(reading, "best", "key", budget)
    return _rank(reading, "pool", "score", budget)


def draw_control(reading: Reading, chosen: pl.DataFrame, policy: str, seed: int) -> pl.DataFrame:
    """The control: of table `pool`, as many responses per domain as `chosen`, drawn by a hash of seed and id.

    `best_per_question` draws one response of each chosen question; otherwise the questions are drawn, too.
    """
    same = "prompt_id" if policy == "best_per_question" else "domain"
    query = f"""SELECT *, md5_number_lower($seed || ' ' || response_id) / 2.0 ** 64 AS draw
        FROM pool WHERE accepted AND score IS NOT NULL AND {same} IN (SELECT unnest($same::VARCHAR[]))"""
    reading.keep("drawn", query, {"seed": str(seed), "same": chosen[same].unique().to_list()})
    budget = dict(chosen.group_by("domain").len().iter_rows())
    if policy == "best_per_question":
        reading.keep("best", best_of_each_question("drawn", "draw"))
        return _rank(reading, "best", "key", budget)
    return _rank(reading, "drawn", "draw", budget)


def _rank(reading: Reading, table: str, key: str, budget: Mapping[str, int]) -> pl.DataFrame:
    """The accepted among the rows of greatest key in each domain, with their rank from 1; ties as above.

    table: as for `best_of_each_question`. budget: domain -> how many rows to rank; all of a domain that is not named.
    """
    least = _least_keys(reading, table, key, budget)
    named = {"domain": list(least), "most": [budget.get(name) for name in least], "least": list(least.values())}
    limits = pl.DataFrame(named, {"domain": pl.String, "most": pl.Int64, "least": pl.Float64})
    rows = reading.read(  # a literal: with a parameter, DuckDB reads every column of every row
        f"""SELECT response_id, prompt_id, domain, score, accepted, {key} AS key FROM {table}
            WHERE {key} >= '{min(least.values(), default=-inf)!r}'::DOUBLE"""
    )
    return (
        rows.join(limits, on="domain", nulls_equal=True)
        .filter(pl.col("key") >= pl.col("least"))
        .sort("domain", "key", "response_id", descending=[False, True, False], nulls_last=True)
        .with_columns(rank=pl.int_range(1, pl.len() + 1).over("domain"))
        .filter((pl.col("rank") <= pl.col("most")).fill_null(True), "accepted")
        .select("response_id", "prompt_id", "domain", "score", "rank")
    )


def _least_keys(reading: Reading, table: str, key: str, budget: Mapping[str, int]) -> dict[str, float]:
    """Domain -> a key below which no row of it can be among the greatest it has a budget for; -inf if it keeps all.

    It is the least of a histogram's bucket, so that few more rows than are kept need to be sorted.
    """
    limits = reading.read(f"SELECT min({key}) AS low, max({key}) AS high FROM {table}").row(0, named=True)
    bucket = f"coalesce(try_cast(({key} - $low) / ($high - $low) * {NUM_BUCKETS} AS INTEGER), 0)"  # NaN: all in one
    query = f"""WITH budget AS (SELECT unnest($domains::VARCHAR[]) AS domain, unnest($most::BIGINT[]) AS most),
            buckets AS (SELECT domain, {bucket} AS bucket, count(*) AS number, min({key}) AS least FROM {table}
                WHERE {key} IS NOT NULL GROUP BY ALL),
            above AS (SELECT domain, least, sum(number) OVER (PARTITION BY domain ORDER BY bucket DESC) AS number
                FROM buckets)
        SELECT domain, coalesce(max(least) FILTER (number >= most), '-inf'::DOUBLE)
        FROM above LEFT JOIN budget USING (domain) GROUP BY domain"""
    params = {**limits, "domains": list(budget), "most": list(budget.values())}
    return dict(reading.read(query, params).iter_rows())


def selection_version(recipe: Recipe) -> str:
    """Identifies the rule that selected a row."""
    return content_hash([SELECTION_VERSION, threshold_version(recipe), recipe.version("selection", "filters")])[:12]


def _code_version(recipe: Recipe) -> CodeVersion:
    """What `selection_version` stands for."""
    below = divergence_version(recipe)
    parts = recipe.parts("selection", "filters")
    return CodeVersion(selection_version(recipe), {"selection": SELECTION_VERSION, **below.code}, parts)


def _control_version(recipe: Recipe) -> CodeVersion:
    below, seed = _code_version(recipe), recipe.parts("seed")
    text = content_hash([CONTROL_VERSION, below.text, recipe.version("seed")])[:12]
    return CodeVersion(text, {"control": CONTROL_VERSION, **below.code}, {**below.recipe, **seed})


def selected_rows(selected: pl.DataFrame, recipe: Recipe, dataset: str, policy: str) -> pl.DataFrame:
    """Rows of `selected_responses`: the choice with the rule, threshold and score that made it."""
    return selected.select(
        "response_id",
        "prompt_id",
        "domain",
        "rank",
        "score",
        recipe=pl.lit(recipe.name),
        dataset=pl.lit(dataset),
        policy=pl.lit(policy),
        score_name=pl.lit(recipe.selection.score),
        threshold=pl.lit(recipe.selection.divergence.threshold),
        selection_version=pl.lit(selection_version(recipe)),
        selection_id=pl.lit(selection_id(dataset, policy, selection_version(recipe), selected["response_id"])),
    )


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`selected_responses_…` per temperature, and `random_responses`."""
    return [*[_selection(recipe, dataset) for dataset in recipe.datasets], _random(recipe)]


def _table(recipe: Recipe, datasets: Iterable[str]) -> TableAsset:
    generations = [f"teacher_generations_{dataset}" for dataset in datasets]
    return table("selected_responses", responses=generations, prompts="prompts", response_scores="response_scores")


def _selection(recipe: Recipe, dataset: str) -> dg.AssetsDefinition:
    chosen_table = _table(recipe, [dataset]).made_with(of_recipe(recipe, _code_version(recipe)))

    @dg.asset(
        name=f"selected_responses_{dataset}",
        deps=["response_scores", "prompts"],
        group_name="selection",
        kinds={"ducklake", "polars"},
        metadata=chosen_table.part(f"dataset = '{dataset}' AND policy = 'das'"),
        code_version=chosen_table.code_version,
        description=f"One row per response of {dataset} that divergence-aware sampling keeps, with rank and score.",
    )
    def selected_responses(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        budget, existing = recipe.selection.budgets.get(dataset, {}), usable_batches(context.instance, warehouse)
        read = _read_tags(context.instance, ("response_scores", "prompts"), existing)
        with warehouse.reading() as reading, reading.all_cores():
            keep_pool(reading, engines, recipe, dataset, existing)
            selected = select(reading, recipe.selection.policy, budget)
            statistics = reading.read("SELECT count(*) AS num_candidates, avg(score) AS mean_score_of_pool FROM pool")
            domains = reading.read("SELECT DISTINCT domain FROM pool ORDER BY domain")["domain"].to_list()
            sample = reading.read(f"SELECT score FROM (SELECT score FROM pool LIMIT {PLOTTED}) WHERE score IS NOT NULL")
        without = ", ".join(sorted(set(budget) - set(domains)))
        if without:
            context.log.warning(
                f"selection.budgets.{dataset} names {without}, of which there is no response; of domains that it does "
                f"not name all are kept; there are {', '.join(domains)}"
            )
        if selected.is_empty():
            raise dg.Failure(
                f"no response of {dataset} is left to select; {_drops(warehouse, engines, recipe, dataset, existing)}"
            )
        write_selection(context, warehouse, recipe, dataset, "das", selected)
        rule = selection_rule(recipe, dataset, pool_params(engines, recipe, dataset, existing))
        record_rule(context, warehouse, recipe, dataset, rule)
        densities = {"pool": sample["score"].to_list(), "selected": selected["score"].to_list()}
        return dg.MaterializeResult(
            data_version=content_version(selected["response_id"]),
            tags=read,
            metadata=chosen_table.result(
                warehouse,
                selected.height,
                {"recipe": recipe.name, "dataset": dataset, "policy": "das"},
                num_questions=selected["prompt_id"].n_unique(),
                mean_score=selected.select(pl.mean("score")).item(),
                domains_without_responses=without or None,
                **statistics.row(0, named=True),
                scores_shape=shape(selected["score"].drop_nulls().to_list()),
                scores=inline(histogram(densities, recipe.selection.score)),
                **_audited(warehouse, recipe, f"dataset = '{dataset}' AND policy = 'das'"),
            ),
        )

    return selected_responses


def _random(recipe: Recipe) -> dg.AssetsDefinition:
    drawn_table = _table(recipe, recipe.datasets).made_with(of_recipe(recipe, _control_version(recipe)))

    @dg.asset(
        deps=[*[f"selected_responses_{dataset}" for dataset in recipe.datasets], "prompts"],
        group_name="selection",
        kinds={"ducklake", "polars"},
        metadata=drawn_table.part("policy = 'random'"),
        code_version=drawn_table.code_version,
        description="One row per response of the random control: same pool, budget and questions as the selection.",
    )
    def random_responses(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        drawn, existing = [], usable_batches(context.instance, warehouse)
        read = _read_tags(context.instance, ("prompts",), existing)
        for dataset in recipe.datasets:
            with warehouse.reading() as reading, reading.all_cores():
                keep_pool(reading, engines, recipe, dataset, existing)
                rows = draw_control(reading, _selected(reading, recipe, dataset), recipe.selection.policy, recipe.seed)
            write_selection(context, warehouse, recipe, dataset, "random", rows)
            drawn.append(rows)
        every = pl.concat(drawn)
        return dg.MaterializeResult(
            data_version=content_version(every["response_id"]),
            metadata=drawn_table.result(
                warehouse,
                every.height,
                {"recipe": recipe.name, "policy": "random"},
                mean_score=every.select(pl.mean("score")).item(),
                **_audited(warehouse, recipe, "policy = 'random'"),
            ),
            tags=read,
        )

    return random_responses


def _read_tags(instance: dg.DagsterInstance, assets: Sequence[str], batches: list[str]) -> dict[str, str]:
    """What was read of each asset; `prompts` is one, for a withdrawal changes the pool and nothing in between."""
    return {key: value for asset in assets for key, value in batches_tag(instance, asset, batches).items()}


def _audited(warehouse: Warehouse, recipe: Recipe, where: str) -> dict[str, Figure]:
    query = f"SELECT * FROM selected_responses WHERE recipe = '{recipe.name}' AND {where}"
    return audited("response RESPONSE_ID", query, warehouse.snapshot_id())


def _selected(reading: Reading, recipe: Recipe, dataset: str) -> pl.DataFrame:
    query = """SELECT prompt_id, domain FROM selected_responses
        WHERE recipe = $recipe AND dataset = $dataset AND policy = 'das'"""
    return reading.read(query, {"recipe": recipe.name, "dataset": dataset})


def _drops(warehouse: Warehouse, engines: Engines, recipe: Recipe, dataset: str, existing: list[str]) -> str:
    counts = drop_counts(warehouse, engines, recipe, existing).filter(pl.col("temperature") == recipe.datasets[dataset])
    listed = ", ".join(
        f"{row['filter']} dropped {row['num_dropped']} of {row['num_judged']}" for row in counts.to_dicts()
    )
    return listed or "there are no responses: are there prompts in the landing folder?"


def write_selection(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    recipe: Recipe,
    dataset: str,
    policy: str,
    selected: pl.DataFrame,
) -> None:
    """Replace this recipe's rows of a dataset and policy; unchanged ones, rank and score included, make no commit."""
    rows = selected_rows(selected, recipe, dataset, policy)
    key = {"recipe": recipe.name, "dataset": dataset, "policy": policy}
    query = f"""SELECT {", ".join(rows.columns)} FROM selected_responses
        WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy ORDER BY response_id"""
    if not warehouse.read(query, key).equals(rows.sort("response_id")):
        with warehouse.commit(origin(context)) as transaction:
            transaction.replace("selected_responses", key, rows)
