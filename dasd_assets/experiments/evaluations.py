"""The answers of an experiment's models to held-out questions, and their figures: a partition per arm and seed.

Each cell's last checkpoint is asked, under the benchmarks and sampling of the experiment; what it has answered before,
for whatever asked it, is not asked again. As many are asked side by side as there are cores, or one where there is a
GPU.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import dagster as dg

from dasd_assets.evaluation.accuracy import accuracy
from dasd_assets.evaluation.accuracy_plots import shown_accuracy
from dasd_assets.evaluation.answers import Asked, Checkpoint, ask_missing
from dasd_assets.evaluation.evaluation_metrics import store_metrics
from dasd_assets.evaluation.metrics import METRICS
from dasd_assets.evaluation.outcomes import SETTING, outcomes
from dasd_assets.evaluation.questions import EVALUATION
from dasd_assets.evaluation.traits import TRAITS
from dasd_assets.experiments.cells import (
    CHECKPOINTS,
    EVALUATIONS,
    Cell,
    cells_of,
    partition_key,
    partitions,
    trained_cells,
)
from dasd_assets.experiments.side_by_side import places, side_by_side
from dasd_assets.experiments.wording import described_as
from dasd_assets.records.current_checkpoint import folder_of
from dasd_assets.records.declaration import declare
from dasd_assets.records.markdown import viewer_link
from dasd_assets.records.progress import Tally
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import EXPERIMENTS, retry_tags
from dasd_assets.records.unsafe import sandbox_figure
from dasd_assets.rules.arms import declared_rule
from dasd_assets.rules.verdict import VERIFYING_LIMITS
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.recipe.experiment_recipes import evaluated_recipe
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.verifiers.verdict_cache import VERDICTS


def build(recipe: Recipe, experiment: Experiment) -> dg.AssetsDefinition:
    """`experiment_evaluations_…`."""
    asked = evaluated_recipe(recipe, experiment)
    declared = declare(
        asked,
        EVALUATIONS + experiment.name,
        ["evaluations", "evaluation_requests", "failed_requests", "evaluation_metrics", "answer_traits"],
        reads={
            "benchmark_questions": "benchmark_questions",
            "experiment_cells": CHECKPOINTS + experiment.name,
            "checkpoints": CHECKPOINTS + experiment.name,
        },
        rules=[declared_rule(experiment), EVALUATION, METRICS, TRAITS],
        parts=["name", "evaluation", *VERIFYING_LIMITS],
        rows=f"checkpoint_id IN (SELECT checkpoint_id FROM experiment_cells WHERE experiment = '{experiment.name}')",
    )

    @declared.asset(
        group=EXPERIMENTS,
        kinds={"ducklake", ENGINES[recipe.student.engine].ui_kind},
        loads_model=True,
        description=f"One row per answer of an arm's student to a held-out question. {described_as(experiment)}",
        partitions_def=partitions(experiment),
    )
    def experiment_evaluations(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        wanted = cells_of(context)
        rows = {(row["arm"], row["seed"]): row for row in trained_cells(warehouse, recipe, experiment).to_dicts()}
        if lacking := [partition_key(cell) for cell in wanted if cell not in rows]:
            raise dg.Failure(f"not trained yet: {', '.join(lacking)}; materialize {CHECKPOINTS}{experiment.name} first")
        models = {  # of two cells with one checkpoint, the first names it
            rows[cell]["checkpoint_id"]: Checkpoint(
                rows[cell]["checkpoint_id"],
                f"{cell[0]}, seed {cell[1]}",
                recipe.student.model_copy(update={"model": str(folder_of(warehouse, engines, recipe, rows[cell]))}),
            )
            for cell in reversed(wanted)
        }
        answered = _ask(context, warehouse, engines, asked, list(reversed(models.values())))
        store_metrics(warehouse, asked, sorted(models), origin=origin(context), say=context.log.info)
        _tell_cells(context, warehouse, asked, {cell: rows[cell]["checkpoint_id"] for cell in wanted})
        return dg.MaterializeResult(
            data_version=content_version(answered.ids),
            tags=retry_tags(answered.ledgers),
            metadata=declared.result(
                warehouse,
                len(answered.ids),
                {"checkpoint_id": next(iter(models))},
                num_models=len(models),
                **sandbox_figure(recipe.verification.confinement),
            ),
        )

    return experiment_evaluations


def _tell_cells(
    context: dg.AssetExecutionContext, warehouse: Warehouse, recipe: Recipe, checkpoints: Mapping[Cell, str]
) -> None:
    """What the page of each partition says besides: how accurate its student is. checkpoints: cell -> its last."""
    answers = outcomes(warehouse, recipe, list(checkpoints.values()))
    scores = accuracy(answers, SETTING)
    for cell, checkpoint in checkpoints.items():
        shown = {
            f"accuracy/{row['benchmark']}/T={row['temperature']:g}": shown_accuracy(row)
            for row in scores.filter(checkpoint_id=checkpoint).to_dicts()
        }
        link = viewer_link(f"checkpoint/{checkpoint}")
        context.add_asset_metadata(
            {**shown, "checkpoint_id": checkpoint, "viewer": link}, partition_key=partition_key(cell)
        )


def _ask(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    engines: Engines,
    recipe: Recipe,
    models: Sequence[Checkpoint],
) -> Asked:
    """Ask all of them, as many at once as there are places; each answer is stored as it comes."""
    at_once = places(recipe)
    tally = Tally(len(models), "models asked", context.log.info)
    found, warned = dict[str, Asked](), set[str]()
    of_id = {model.checkpoint_id: model for model in models}

    def warn(line: str) -> None:
        if line not in warned:
            warned.add(line)
            context.log.warning(line)

    def ask(checkpoint_id: str) -> None:
        found[checkpoint_id] = ask_missing(
            warehouse, apart, recipe, [of_id[checkpoint_id]], origin=origin(context), say=context.log.info, warn=warn
        )
        tally.add(is_new=True)

    num = min(at_once.num_at_once, len(models))
    with engines.apart(num, at_once.num_threads or 1) as apart, VERDICTS.kept_in(Path(warehouse.home)):
        side_by_side(dict.fromkeys(of_id, ""), ask, num)
    every = [found[checkpoint_id] for checkpoint_id in of_id]
    return Asked([key for one in every for key in one.ids], [ledger for one in every for ledger in one.ledgers])
