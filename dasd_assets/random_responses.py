"""The random control of divergence-aware sampling (report Table 3) -> `selected_responses`, policy `random`.

Drawn from the same pool, as many per domain and temperature, and for the same questions where the policy is
best-per-question: the report compares the two at equal budget.
"""

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import content_version
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.rules.asset_names import CONTROL_ASSET, RANDOM, generation_asset, selection_asset
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_assets.rules.pool import create_pool_table, pool_params
from dasd_assets.rules.random_control import CONTROL, draw_control
from dasd_assets.rules.selection import competition
from dasd_assets.selection import looked_up_for_cost, selection_audit, write_selection
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Reading, Warehouse

OF_CONTROL = f"policy = '{RANDOM}'"  # its rows of `selected_responses`


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`random_responses`; `selection_source` has it where another recipe selects."""
    if recipe.selection_from is not None:
        return []
    return [_random(recipe)]


def _random(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        CONTROL_ASSET,
        "selected_responses",
        reads={
            "selected_responses": list(map(selection_asset, recipe.datasets)),
            "empty_datasets": list(map(selection_asset, recipe.datasets)),
            "response_scores": "response_scores",
            "response_verdicts": "response_verdicts",
            "prompts": "prompts",
            "quarantined_batches": (),
        },
        looks_up={"responses": list(map(generation_asset, recipe.datasets)), **looked_up_for_cost(recipe)},
        models=["teacher_model", "student_model"],
        rules=[CONTROL],
        parts=["name", "generation.temperatures"],
        rows=OF_CONTROL,
    )

    @declared.asset(
        group="selection",
        kinds={"ducklake", "polars"},
        description="One row per response of the random control: same pool, budget and questions as the selection.",
    )
    def random_responses(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        existing = usable_batches(context.instance, warehouse)
        read = declared.read_tags(context.instance, existing)
        require_some(warehouse, recipe)
        teacher = engines.fingerprint(recipe.teacher, "teacher.model")
        student = engines.fingerprint(recipe.student, "student.model")
        controls = []
        for dataset in recipe.datasets:
            control = _control(warehouse, recipe, dataset, pool_params(recipe, teacher, student, dataset, existing))
            write_selection(context, warehouse, recipe, dataset, RANDOM, control)
            controls.append(control)
        drawn = pl.concat(controls)
        mean_score, rows = drawn.select(pl.mean("score")).item(), {"recipe": recipe.name, "policy": RANDOM}
        audit = selection_audit(warehouse, recipe, OF_CONTROL)
        return dg.MaterializeResult(
            data_version=content_version(drawn["response_id"]),
            tags=read,
            metadata=declared.result(warehouse, drawn.height, rows, mean_score=mean_score, **audit),
        )

    return random_responses


def require_some(warehouse: Warehouse, recipe: Recipe) -> None:
    """Raise dg.Failure where every dataset is empty: then there is nothing to train on."""
    empty = empty_datasets(warehouse, recipe.name)
    if empty.keys() >= recipe.datasets.keys():
        why = "; ".join(f"{dataset}: {empty[dataset]['reason']}" for dataset in recipe.datasets)
        raise dg.Failure(f"no response is left to select, at any temperature. {why}")


def _control(warehouse: Warehouse, recipe: Recipe, dataset: str, params: dict[str, object]) -> pl.DataFrame:
    """The control of a dataset's selection, see `draw_control`. params: of `pool_params`."""
    with warehouse.reading() as reading, reading.all_cores():
        create_pool_table(reading, params)
        return draw_control(reading, _selected(reading, recipe, dataset), competition(recipe), recipe.seed)


def _selected(reading: Reading, recipe: Recipe, dataset: str) -> pl.DataFrame:
    query = """SELECT response_id, prompt_id, domain FROM selected_responses
        WHERE recipe = $recipe AND dataset = $dataset AND policy = 'das'"""
    return reading.read(query, {"recipe": recipe.name, "dataset": dataset})
