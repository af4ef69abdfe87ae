"""What an experiment has found: its pairs of arms compared by question and seed, with intervals.

The answers of all its cells -> `experiment_comparisons`, and the table and figures of its report.
"""

from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from dasd_assets.evaluation.questions import EVALUATION
from dasd_assets.experiments.cells import (
    CHECKPOINTS,
    EVALUATIONS,
    REPORT,
    answers,
    current,
    every_cell,
    failed_text,
    outdated_cells,
    outdated_text,
    stage_rows,
)
from dasd_assets.experiments.claims import claims_table, verdicts
from dasd_assets.experiments.figure_data import loss_curves, losses, probabilities, rollouts
from dasd_assets.experiments.figures import (
    cut_off_by_length,
    forest,
    loss_against_accuracy,
    loss_over_steps,
    rolled_out,
    told_apart,
)
from dasd_assets.experiments.report_tables import by_difficulty, by_way, difference_table, of_training, trait_table
from dasd_assets.experiments.result_table import COLUMNS, Results, ShownTable, compared_arms, of_models, result_rows
from dasd_assets.experiments.wording import described_as
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.markdown import table
from dasd_assets.records.plots import inline
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import EXPERIMENTS
from dasd_assets.rules.arms import ARMS, compared_rule
from dasd_assets.rules.asset_names import MIXED, generation_asset, selection_asset
from dasd_assets.rules.filters.catalogue import FILTERING
from dasd_assets.rules.rollouts import ROLLOUTS
from dasd_assets.rules.scores import RESPONSE_SCORING
from dasd_assets.rules.statistics.comparison import STATISTICS
from dasd_assets.sentence_probabilities import probability_densities
from dasd_assets.stage_training import TRAINING
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.storage.warehouse import Warehouse

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def build(recipe: Recipe, experiment: Experiment) -> dg.AssetsDefinition:
    """`experiment_report_…`."""
    declared = _declaration(recipe, experiment)

    @declared.asset(
        group=EXPERIMENTS,
        kinds={"polars", "matplotlib"},
        description=f"One row per pair of arms, benchmark and temperature: the difference between them. "
        f"{described_as(experiment)}",
    )
    def experiment_report(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        found = answers(warehouse, recipe, experiment)
        if found.is_empty():
            raise dg.Failure(f"no cell has answered yet: materialize {EVALUATIONS}{experiment.name} first")
        compared = compared_arms(found, experiment)
        write(warehouse, origin(context), recipe, experiment, compared)
        stages, outdated = stage_rows(warehouse, recipe, experiment), outdated_cells(warehouse, recipe, experiment)
        results = Results(found, compared, stages, outdated)
        rows = result_rows(found, stages, compared, experiment, outdated)
        figures = pictures(warehouse, recipe, experiment, results)
        tables = details(warehouse, recipe, experiment, results)
        return dg.MaterializeResult(
            data_version=content_version(map(str, rows)),
            metadata=declared.result(
                warehouse,
                compared.height,
                {"recipe": recipe.name, "experiment": experiment.name},
                result=table(COLUMNS, rows),
                report=experiment.report,
                baseline=experiment.baseline,
                num_cells=found.select("arm", "seed").n_unique(),
                num_cells_declared=len(every_cell(experiment)),
                **({"failed": failed} if (failed := failed_text(found)) else {}),
                **({"outdated": outdated_text(outdated)} if outdated else {}),
                **{name: inline(figure) for name, figure in figures.items()},
                **{name: table(*one) for name, one in tables.items()},
            ),
        )

    return experiment_report


def _declaration(recipe: Recipe, experiment: Experiment) -> Declaration:
    mixed = MIXED in experiment.datasets
    return declare(
        recipe,
        REPORT + experiment.name,
        "experiment_comparisons",
        reads={
            "experiment_cells": CHECKPOINTS + experiment.name,
            "checkpoints": CHECKPOINTS + experiment.name,
            "selected_responses": CHECKPOINTS + experiment.name,
            "evaluations": EVALUATIONS + experiment.name,
            "evaluation_requests": EVALUATIONS + experiment.name,
            "failed_requests": EVALUATIONS + experiment.name,
            "benchmark_questions": "benchmark_questions",
            "sft_examples": CHECKPOINTS + experiment.name,
            "checkpoint_examples": CHECKPOINTS + experiment.name,
            "withdrawn_prompts": (),
            "empty_datasets": (),
            **({"prompts": "prompts", "student_rollouts": "student_rollouts"} if mixed else {}),
        },
        looks_up={
            "responses": list(map(generation_asset, recipe.datasets)),
            "selection_rules": list(map(selection_asset, recipe.datasets)),
            "experiment_datasets": CHECKPOINTS + experiment.name,
            "response_scores": "response_scores",
            "response_verdicts": "response_verdicts",
            "student_tokens": "student_tokens",
            "teacher_continuations": ["teacher_continuations"] if mixed else [],
        },
        rules=[
            compared_rule(experiment),
            ARMS,
            TRAINING,
            EVALUATION,
            STATISTICS,
            FILTERING,
            RESPONSE_SCORING,
            *([ROLLOUTS] if mixed else []),
        ],
        parts=["name", "evaluation", "heldout.questions"],
        rows=f"experiment = '{experiment.name}'",
    )


def write(warehouse: Warehouse, text: str, recipe: Recipe, experiment: Experiment, compared: pl.DataFrame) -> None:
    """Replace the experiment's rows of `experiment_comparisons`; unchanged ones make no commit. text: its message."""
    key, by = {"recipe": recipe.name, "experiment": experiment.name}, ["arm", "baseline", "benchmark", "temperature"]
    query = "SELECT * EXCLUDE run_id FROM experiment_comparisons WHERE recipe = $recipe AND experiment = $experiment"
    stored = warehouse.read(query, key)
    new = compared.with_columns(pl.lit(value).alias(name) for name, value in key.items()).select(stored.columns)
    if not stored.sort(by).equals(new.sort(by)):
        with warehouse.commit(text) as transaction:
            transaction.replace("experiment_comparisons", key, new)


def details(warehouse: Warehouse, recipe: Recipe, experiment: Experiment, results: Results) -> dict[str, ShownTable]:
    """Name -> table, for every table of the report beside its result; without those that have no row."""
    found, _, stages, outdated = results
    by_level, of_now = by_difficulty(warehouse, experiment, stages, found), current(stages, outdated)
    traits, differences = of_training(warehouse, recipe, experiment, of_now)
    tables = {
        "claims": claims_table(verdicts(warehouse, recipe, experiment, results, differences)),
        **{f"by_difficulty {setting}, {of}": one for setting, both in by_level.items() for of, one in both.items()},
        "trained_on": trait_table(traits),
        "training_differences": difference_table(differences),
        **{f"ways {name}": one for name, one in by_way(warehouse, recipe, experiment, of_now, found).items()},
    }
    return {name: one for name, one in tables.items() if one.rows}


def pictures(warehouse: Warehouse, recipe: Recipe, experiment: Experiment, results: Results) -> dict[str, "Figure"]:
    """Name -> figure, for every figure of the report."""
    found, compared, stages, outdated = results
    chosen = probabilities(warehouse, recipe, current(stages, outdated))
    return {
        **({} if compared.is_empty() else {"differences": forest(compared, experiment.baseline)}),
        "training_loss": loss_over_steps(loss_curves(warehouse, stages)),
        "loss_against_accuracy": loss_against_accuracy(losses(warehouse, stages, found)),
        "cut_off_rate": cut_off_by_length(of_models(found, experiment)),
        "response_probabilities": told_apart(probability_densities(chosen)),
        **rolled_out(rollouts(warehouse, recipe, stages)),
    }
