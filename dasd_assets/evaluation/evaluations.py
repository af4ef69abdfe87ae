"""Answers of every model of the recipe to held-out questions: `evaluations`, a ledger with one row per answer."""

import dagster as dg
import polars as pl

from dasd_assets.evaluation.accuracy import BY, accuracy
from dasd_assets.evaluation.accuracy_plots import accuracy_bars, accuracy_table
from dasd_assets.evaluation.answers import Asked, Checkpoint, ask_missing
from dasd_assets.evaluation.metrics import METRICS
from dasd_assets.evaluation.outcomes import SETTING, checkpoint_outcomes
from dasd_assets.evaluation.questions import EVALUATION
from dasd_assets.records.current_checkpoint import folder_of
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.plots import inline
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import retry_tags
from dasd_assets.records.unsafe import sandbox_figure
from dasd_assets.rules.checkpoints import CHAIN, chain_reads, current_checkpoints
from dasd_assets.rules.verdict import VERIFYING_LIMITS, not_decided
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`evaluations`."""
    declared = declare(
        recipe,
        "evaluations",
        ["evaluations", "evaluation_requests", "failed_requests"],
        reads={
            "benchmark_questions": "benchmark_questions",
            **chain_reads(recipe),
        },
        rules=[EVALUATION, METRICS, CHAIN],
        parts=["evaluation", *VERIFYING_LIMITS],
    )

    @declared.asset(
        group="training_results",
        kinds={"ducklake", ENGINES[recipe.student.engine].ui_kind},
        loads_model=True,
        description="One row per answer of a model to a held-out question, judged by its verifier.",
    )
    def evaluations(context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines) -> dg.MaterializeResult:
        asked = ask_missing(
            warehouse,
            engines,
            recipe,
            chain(warehouse, engines, recipe),
            origin=origin(context),
            say=context.log.info,
            warn=context.log.warning,
        )
        return _result(warehouse, recipe, asked, declared)

    return [evaluations]


def chain(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> list[Checkpoint]:
    """Teacher, student and every current stage of the recipe, each as it is to be asked."""
    specs = {"teacher": recipe.teacher}
    return [
        Checkpoint(
            row["checkpoint_id"],
            row["name"],
            specs.get(row["name"], recipe.student).model_copy(
                update={"model": str(folder_of(warehouse, engines, recipe, row))}
            ),
        )
        for row in current_checkpoints(warehouse, recipe).to_dicts()
    ]


def _content(answers: pl.DataFrame) -> list[str]:
    """What tells one state of the ledger from another: the ids of answers, and which requests failed."""
    failed = answers.filter(pl.col("status") == "failed").select(*SETTING, "question_id", "sample_index")
    return [*answers["evaluation_id"].drop_nulls(), *(f"failed {row}" for row in failed.iter_rows())]


def _result(warehouse: Warehouse, recipe: Recipe, asked: Asked, declared: Declaration) -> dg.MaterializeResult:
    answers = checkpoint_outcomes(warehouse, recipe)
    scores = accuracy(answers, BY)
    newest = scores.filter(pl.col("checkpoint") == pl.col("checkpoint").max())
    return dg.MaterializeResult(
        data_version=content_version(_content(answers)),
        tags=retry_tags(asked.ledgers),
        metadata=declared.result(
            warehouse,
            len(asked.ids),
            {"checkpoint_id": current_checkpoints(warehouse, recipe)["checkpoint_id"][-1]},
            **{
                f"accuracy_of_{r['checkpoint']}/{r['benchmark']}/T={r['temperature']:g}": r["accuracy"]
                for r in newest.to_dicts()
            },
            **sandbox_figure(recipe.verification.confinement),
            **not_decided(answers["kind"]),
            num_failed=answers.filter(pl.col("status") == "failed").height,
            num_not_asked=answers.filter(pl.col("status") == "missing").height,
            accuracies=accuracy_table(scores),
            accuracy=inline(accuracy_bars(scores)),
        ),
    )
