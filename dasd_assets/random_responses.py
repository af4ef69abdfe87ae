"""The random control of divergence-aware sampling (report Table 3) -> `selected_responses`, policy `random`.

Drawn from the same pool, as many per domain and temperature, and for the same questions where the policy is
best-per-question: the report compares the two at equal budget.
"""

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import content_version
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.rules.control import CONTROL, draw_control
from dasd_assets.rules.pool import create_pool_table, pool_params
from dasd_assets.selection import selection_audit, write_selection
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Reading, Warehouse


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`random_responses`."""
    return [_random(recipe)]


def _random(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "random_responses",
        "selected_responses",
        reads={
            "selected_responses": [f"selected_responses_{dataset}" for dataset in recipe.datasets],
            "response_scores": "response_scores",
            "response_verdicts": "response_verdicts",
            "prompts": "prompts",
            "quarantined_batches": (),
        },
        looks_up={"responses": [f"teacher_generations_{dataset}" for dataset in recipe.datasets]},
        models=["teacher_model", "student_model"],
        rules=[CONTROL],
        parts=["name", "generation.temperatures"],
        rows="policy = 'random'",
    )

    @declared.asset(
        group="selection",
        kinds={"ducklake", "polars"},
        description="One row per response of the random control: same pool, budget and questions as the selection.",
    )
    def random_responses(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        drawn, existing = [], usable_batches(context.instance, warehouse)
        read = declared.read_tags(context.instance, existing)
        teacher = engines.find(recipe.teacher, "teacher.model").fingerprint
        student = engines.find(recipe.student, "student.model").fingerprint
        for dataset in recipe.datasets:
            with warehouse.reading() as reading, reading.all_cores():
                create_pool_table(reading, pool_params(recipe, teacher, student, dataset, existing))
                rows = draw_control(reading, _selected(reading, recipe, dataset), recipe.selection.policy, recipe.seed)
            write_selection(context, warehouse, recipe, dataset, "random", rows)
            drawn.append(rows)
        every = pl.concat(drawn)
        return dg.MaterializeResult(
            data_version=content_version(every["response_id"]),
            metadata=declared.result(
                warehouse,
                every.height,
                {"recipe": recipe.name, "policy": "random"},
                mean_score=every.select(pl.mean("score")).item(),
                **selection_audit(warehouse, recipe, "policy = 'random'"),
            ),
            tags=read,
        )

    return random_responses


def _selected(reading: Reading, recipe: Recipe, dataset: str) -> pl.DataFrame:
    query = """SELECT prompt_id, domain FROM selected_responses
        WHERE recipe = $recipe AND dataset = $dataset AND policy = 'das'"""
    return reading.read(query, {"recipe": recipe.name, "dataset": dataset})
