"""Every model of the home by its accuracy: of all recipes and experiments, and those that were entered (no table)."""

from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from dasd_assets.evaluation.evaluation_metrics import question_sets, shown_figure
from dasd_assets.evaluation.metrics import METRICS
from dasd_assets.records.declaration import declare
from dasd_assets.records.markdown import table
from dasd_assets.records.plots import inline, labelled_axes
from dasd_assets.rules.asset_names import checkpoint_asset
from dasd_assets.rules.checkpoints import checkpoint_names
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.verdict import VERIFYING
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.verifiers.catalogue import VERIFIER_VERSION
from dasd_resources.whole_files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEADERBOARD_VERSION = "3"
LEADERBOARD = Rule("leaderboard", LEADERBOARD_VERSION)
NUM_DRAWN = 20  # models in the plot, the best
NUM_CHARACTERS = 36  # of a model's name beside it, the last
NUM_DIGITS = 8  # of its id, where another has that name
ROW_HEIGHT, HEAD = 0.2, 1.6  # inches
EVALUATION = ["benchmark", "temperature", "top_p", "max_tokens"]  # figures of another are not comparable
COLUMNS = ["rank", "model", "avg@k", "pass@k", "maj@k", "cut off", "mean tokens", "k", "failed", "checkpoint_id"]


# A checkpoint that only experiments have trained is called by the first arm that it is the end of: its own name is a
# stage's, which those of other arms and seeds share.
_ARMS = """SELECT checkpoint_id, min(experiment || '/' || arm || ', seed ' || seed) AS arm FROM (
        FROM experiment_cells QUALIFY stage = max(stage) OVER (PARTITION BY recipe, experiment, arm, seed))
    WHERE checkpoint_id IN (SELECT checkpoint_id FROM checkpoints GROUP BY ALL HAVING bool_and(contains(name, '/')))
    GROUP BY ALL"""


def standings(warehouse: Warehouse) -> pl.DataFrame:
    """The newest figures of every model of the home, best first in each evaluation; those without a rank last.

    The columns of `EVALUATION`; rank (equal accuracies share it; None where incomplete, or where `judged_alike` is
    false: another version of the verifier than the evaluation's judged the model), model, checkpoint_id, num_samples,
    accuracy, standard_error, and the figures as text. An evaluation's version is the current verifier's if any model
    has that, with the limits that most models have. Left out are figures of questions that are no longer the
    benchmark's, and those of fewer samples than the model has by now.
    """
    query = f"""SELECT m.*, c.recipe, coalesce(a.arm, c.name) AS name FROM evaluation_metrics m LEFT JOIN (
            FROM checkpoints QUALIFY row_number() OVER (PARTITION BY checkpoint_id ORDER BY materialized_at DESC) = 1
        ) c USING (checkpoint_id) LEFT JOIN ({_ARMS}) a USING (checkpoint_id)
        ORDER BY checkpoint_id, metric"""
    stored = warehouse.read(query)
    found = _newest(stored.join(question_sets(warehouse), on=["benchmark", "question_set"], how="semi"))
    return _ranked([_entry(part) for part in found.partition_by("checkpoint_id", *EVALUATION, maintain_order=True)])


def _newest(found: pl.DataFrame) -> pl.DataFrame:
    """Of each model in each evaluation the figures that count, with `judged_alike`."""
    version, order = pl.col("verifier_version"), ["is_current", "num_models", "verifier_version", "num_samples"]
    ordered = found.with_columns(
        is_current=version.str.starts_with(VERIFIER_VERSION),
        num_models=pl.col("checkpoint_id").n_unique().over(*EVALUATION, "verifier_version"),
    ).sort(order, descending=True, maintain_order=True)
    its_own = ["checkpoint_id", *EVALUATION]
    is_newest = (version == version.first().over(its_own)) & (
        pl.col("num_samples") == pl.col("num_samples").first().over(its_own)
    )
    alike = version == version.first().over(EVALUATION)
    return ordered.filter(is_newest).with_columns(judged_alike=alike).sort("checkpoint_id", maintain_order=True)


def _entry(part: pl.DataFrame) -> Row:
    first = part.row(0, named=True)
    figures: dict[str, Row] = {row["metric"]: row for row in part.to_dicts()}
    score = figures[f"avg@{first['num_samples']}"]
    return {
        **{name: first[name] for name in (*EVALUATION, "checkpoint_id", "num_samples", "judged_alike")},
        "model": " ".join(name for name in (first["recipe"], first["name"]) if name) or first["checkpoint_id"],
        "accuracy": score["value"],
        "standard_error": score["standard_error"],
        "num_failed": score["num_failed"],
        **_shown(figures, first["num_samples"]),
    }


def _shown(figures: dict[str, Row], k: int) -> dict[str, str]:
    names = {
        "avg@k": f"avg@{k}",
        "pass@k": f"pass@{k}",
        "maj@k": f"maj@{k}",
        "cut off": "cut_off_rate",
        "mean tokens": "mean_tokens",
    }
    return {column: shown_figure(figures[name]) for column, name in names.items()}


def _ranked(entries: list[Row]) -> pl.DataFrame:
    if not entries:
        return pl.DataFrame()
    found = pl.DataFrame(entries, schema_overrides={"accuracy": pl.Float64, "standard_error": pl.Float64})
    comparable = pl.when("judged_alike").then("accuracy")
    rank = comparable.rank("min", descending=True).over(EVALUATION).cast(pl.Int64)
    return found.with_columns(rank=rank).sort(*EVALUATION, "rank", "model", "checkpoint_id", nulls_last=True)


def title(row: Row) -> str:
    """What an evaluation is called: `aime24, T=1, top-p 1, 102,400 tokens`."""
    return f"{row['benchmark']}, T={row['temperature']:g}, top-p {row['top_p']:g}, {row['max_tokens']:,} tokens"


def leaderboard_table(found: pl.DataFrame) -> dg.TableMetadataValue:
    """A row per model and evaluation. found: `standings`."""
    return table(["evaluation", *COLUMNS], [{"evaluation": title(row), **cells(row)} for row in found.to_dicts()])


def cells(row: Row) -> Row:
    """What COLUMNS show of a row of `standings`, and the row."""
    judged = "" if row["judged_alike"] else " (judged by another version of the verifier)"
    return {**row, "model": f"{row['model']}{judged}", "k": row["num_samples"], "failed": row["num_failed"]}


def leaderboard_page(found: pl.DataFrame) -> str:
    """The leaderboard as Markdown, a table for each evaluation."""
    lines = [
        "# Leaderboard",
        "",
        "What each figure is: `docs/evaluation.md`. ± is one standard error over questions.",
        "",
    ]
    for part in found.partition_by(EVALUATION, maintain_order=True) if found.height else []:
        lines += [
            f"## {title(part.row(0, named=True))}",
            "",
            f"| {' | '.join(COLUMNS)} |",
            "| --- " * len(COLUMNS) + "|",
        ]
        rows = [[cells(row)[name] for name in COLUMNS] for row in part.to_dicts()]
        lines += [f"| {' | '.join('–' if value is None else str(value) for value in row)} |" for row in rows]
        lines.append("")
    return "\n".join(lines)


def labels(found: pl.DataFrame) -> dict[str, str]:
    """checkpoint_id -> what a plot calls the model: its name, with digits of the id where others have it, too."""
    models = found.select("checkpoint_id", pl.col("model").str.tail(NUM_CHARACTERS)).unique(maintain_order=True)
    is_shared = pl.len().over("model") > 1
    with_id = pl.format("{} {}", "model", pl.col("checkpoint_id").str.head(NUM_DIGITS))
    return dict(models.select("checkpoint_id", pl.when(is_shared).then(with_id).otherwise("model")).iter_rows())


def leaderboard_plot(found: pl.DataFrame) -> "Figure":
    """Accuracy with one standard error of the best models that have a rank, a colour for each evaluation and its k."""
    figure, axes = labelled_axes("accuracy", "")
    known = found.drop_nulls("rank") if found.height else found
    models = known["checkpoint_id"].unique(maintain_order=True).to_list()[:NUM_DRAWN] if known.height else []
    places = {model: -place for place, model in enumerate(models)}
    drawn = known.filter(pl.col("checkpoint_id").is_in(models)) if models else known
    for part in drawn.partition_by(*EVALUATION, "num_samples", maintain_order=True) if models else []:
        errors = np.asarray(part["standard_error"].fill_null(float("nan")), dtype=np.float64)  # NaN: none is drawn
        y, first = [places[model] for model in part["checkpoint_id"]], part.row(0, named=True)
        label = f"{title(first)}, k={first['num_samples']}"
        axes.errorbar(part["accuracy"], y, xerr=errors, fmt="o", markersize=4, capsize=2, label=label)
    named = labels(drawn) if models else {}
    axes.set_yticks(list(places.values()), [named[model] for model in places], fontsize=7)
    figure.set_figheight(HEAD + ROW_HEIGHT * len(models))
    figure.subplots_adjust(left=0.43, top=1 - HEAD / 2 / figure.get_figheight(), bottom=0.45 / figure.get_figheight())
    if models:  # above the axes, as the models fill them
        axes.legend(loc="lower left", bbox_to_anchor=(-0.7, 1), fontsize=7, frameon=False)
    return figure


def write_leaderboard(warehouse: Warehouse) -> tuple[pl.DataFrame, Path]:
    """Write the page into the home's reports; returns the `standings` and the file."""
    found = standings(warehouse)
    page = Path(warehouse.home) / "reports" / "leaderboard.md"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_whole(page, leaderboard_page(found).encode())
    return found, page


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`leaderboard`."""
    declared = declare(
        recipe,
        "leaderboard",
        reads={
            "evaluation_metrics": "evaluation_metrics",
            "benchmark_questions": "benchmark_questions",
            "experiment_cells": (),
            "checkpoints": [checkpoint_asset(name) for name in checkpoint_names(recipe)],
        },
        rules=[LEADERBOARD, METRICS, VERIFYING],
    )

    @declared.asset(
        group="training_results",
        kinds={"matplotlib"},
        description="Every model of the home by its accuracy, also as DASD_HOME/reports/leaderboard.md.",
    )
    def leaderboard(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        found, page = write_leaderboard(warehouse)
        return dg.MaterializeResult(
            metadata={
                "num_models": found["checkpoint_id"].n_unique() if found.height else 0,
                "leaderboard": leaderboard_table(found),
                "accuracy": inline(leaderboard_plot(found)),
                "page": dg.MetadataValue.path(str(page)),
                **declared.code_version.metadata,
            }
        )

    return [leaderboard]
