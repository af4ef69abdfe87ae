"""Divergence-aware sampling (report §4): keep the responses richest in what the teacher knows and the student does not.

`response_scores` of all batches -> `selected_responses`, one asset per temperature (policy `das`), and the control
`random_responses` (policy `random`): drawn from the same pool, as many per domain and temperature, and for the same
questions where the policy is best-per-question. Table 3 of the report compares the two at equal budget.
"""

from collections.abc import Mapping

import dagster as dg
import polars as pl

from dasd_assets.divergence import threshold_version
from dasd_assets.pool import drop_counts, scored_responses
from dasd_assets.provenance import content_version, origin
from dasd_assets.quarantine import usable_batches
from dasd_assets.staleness import batches_tag
from dasd_resources.engines import Engines
from dasd_resources.recipe import Recipe, Selection, content_hash
from dasd_resources.warehouse import Warehouse

SELECTION_VERSION = "1"


def select(pool: pl.DataFrame, policy: str, budget: Mapping[str, int]) -> pl.DataFrame:
    """The highest scores of the pool, with their rank (from 1) within the domain; ties go to the smaller response_id.

    pool: response_id, prompt_id, domain, score. `best_per_question` first keeps one response a question.
    budget: domain -> most rows to keep; a domain that is not named keeps all.
    """
    ranked = pool.drop_nulls("score").sort("score", "response_id", descending=[True, False])
    if policy == "best_per_question":
        ranked = ranked.unique("prompt_id", keep="first", maintain_order=True)
    ranked = ranked.with_columns(rank=pl.int_range(1, pl.len() + 1).over("domain"))
    limit = pl.col("domain").replace_strict(dict(budget), default=None, return_dtype=pl.Int64)
    return ranked.filter(limit.is_null() | (pl.col("rank") <= limit)).sort("domain", "rank")


def select_random(pool: pl.DataFrame, chosen: pl.DataFrame, policy: str, seed: int) -> pl.DataFrame:
    """The control: as many responses per domain as `chosen`, drawn by a hash of seed and id, whatever the order."""
    draw = [content_hash([seed, key]) for key in pool["response_id"]]
    ranked = pool.drop_nulls("score").join(
        pl.DataFrame({"response_id": pool["response_id"], "draw": draw}), on="response_id"
    )
    ranked = ranked.sort("draw")
    if policy == "best_per_question":
        ranked = ranked.filter(pl.col("prompt_id").is_in(chosen["prompt_id"].implode()))
        ranked = ranked.unique("prompt_id", keep="first", maintain_order=True)
    ranked = ranked.with_columns(rank=pl.int_range(1, pl.len() + 1).over("domain"))
    counts = chosen.group_by("domain").len("count")
    kept = ranked.join(counts, on="domain").filter(pl.col("rank") <= pl.col("count"))
    return kept.drop("draw", "count").sort("domain", "rank")


def selection_version(recipe: Recipe) -> str:
    """Identifies the rule that selected a row."""
    return content_hash([SELECTION_VERSION, threshold_version(recipe), recipe.version("selection", "filters")])[:12]


def dataset_id(recipe: Recipe, dataset: str, policy: str, ids: pl.Series) -> str:
    """Identifies a dataset by its content and the parts of the recipe that made it."""
    return content_hash([dataset, policy, selection_version(recipe), sorted(ids)])[:16]


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
        dataset_id=pl.lit(dataset_id(recipe, dataset, policy, selected["response_id"])),
    )


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`selected_responses_…` per temperature, and `random_responses`."""
    return [*[_selected(recipe, dataset) for dataset in recipe.datasets], _random(recipe)]


def _selected(recipe: Recipe, dataset: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=f"selected_responses_{dataset}",
        deps=["response_scores"],
        group_name="selection",
        kinds={"duckdb", "polars"},
        code_version=selection_version(recipe),
        description=f"One row per response of {dataset} that divergence-aware sampling keeps, with rank and score.",
    )
    def selected_responses(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        read = batches_tag(context.instance, "response_scores", usable_batches(context.instance, warehouse))
        pool = scored_responses(context, warehouse, engines, recipe, dataset)
        selected = _keep(pool, recipe.selection, dataset)
        if selected.is_empty():
            raise dg.Failure(
                f"no response of {dataset} is left to select; {_drops(warehouse, engines, recipe, dataset)}"
            )
        write_selection(context, warehouse, recipe, dataset, "das", selected)
        return _selection_result(selected, pool, read)

    return selected_responses


def _random(recipe: Recipe) -> dg.AssetsDefinition:
    @dg.asset(
        deps=[f"selected_responses_{dataset}" for dataset in recipe.datasets],
        group_name="selection",
        kinds={"duckdb", "polars"},
        code_version=content_hash([selection_version(recipe), recipe.version("seed")])[:12],
        description="One row per response of the random control: same pool, budget and questions as the selection.",
    )
    def random_responses(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        drawn = []
        for dataset in recipe.datasets:
            pool = scored_responses(context, warehouse, engines, recipe, dataset)
            chosen = _keep(pool, recipe.selection, dataset)
            rows = select_random(pool.filter("accepted"), chosen, recipe.selection.policy, recipe.seed)
            write_selection(context, warehouse, recipe, dataset, "random", rows)
            drawn.append(rows)
        table = pl.concat(drawn)
        return dg.MaterializeResult(
            data_version=content_version(table["response_id"]), metadata={"dagster/row_count": table.height}
        )

    return random_responses


def _keep(pool: pl.DataFrame, selection: Selection, dataset: str) -> pl.DataFrame:
    selected = select(pool, selection.policy, selection.budgets.get(dataset, {}))
    return selected.filter("accepted")


def _drops(warehouse: Warehouse, engines: Engines, recipe: Recipe, dataset: str) -> str:
    counts = drop_counts(warehouse, engines, recipe).filter(pl.col("temperature") == recipe.datasets[dataset])
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


def _selection_result(selected: pl.DataFrame, pool: pl.DataFrame, tags: dict[str, str]) -> dg.MaterializeResult:
    return dg.MaterializeResult(
        data_version=content_version(selected["response_id"]),
        tags=tags,
        metadata={
            "dagster/row_count": selected.height,
            "num_candidates": pool.height,
            "mean_score": selected.select(pl.mean("score")).item(),
            "mean_score_of_pool": pool.select(pl.mean("score")).item(),
        },
    )
