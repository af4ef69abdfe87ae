"""The report of a distillation: figures, counts and accuracies, for the asset and for the summary of `dasd run`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from dasd_assets.evaluation import METRICS, accuracy_bars, accuracy_table, stored_accuracy
from dasd_assets.mixed_policy.distilled_student import looked_up, student_rollouts_now
from dasd_assets.mixed_policy.rollouts import cut_off_rates
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.loss_curve import loss_curve
from dasd_assets.records.markdown import table
from dasd_assets.records.plots import TYPE_COLOURS, inline, labelled_axes, png, with_legend
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.rules.asset_names import (
    CONTROL_ASSET,
    DAS,
    MIXED,
    generation_asset,
    selection_asset,
)
from dasd_assets.rules.candidates import (
    AT_ANY_TEMPERATURE,
    CANDIDATES,
    JUDGED,
    OF_BATCHES,
    OF_RECIPE,
    candidate_params,
    drop_counts,
)
from dasd_assets.rules.checkpoints import chain_reads, current_checkpoints
from dasd_assets.rules.filters import CORRECTNESS, FILTERING, FILTERS, filter_version
from dasd_assets.rules.rollouts import ROLLOUTS
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.scores import DIVERGENCE, TYPE_NAMES, threshold_version
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_assets.sentence_probabilities import probability_densities
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.sft.checkpoint import Trained
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.verifiers import UNVERIFIABLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

REPORT_VERSION = "1"
REPORT = Rule("report", REPORT_VERSION)
NUM_POSITIONS = 8


@dataclass(frozen=True)
class ReportData:
    """Tables behind the plots and the summary.

    drops: temperature, filter, num_dropped, num_judged. shares: position, correct, teacher_share.
    teacher_share: correct, num_responses, teacher_share. accuracies: see `evaluation.accuracy`.
    """

    drops: pl.DataFrame
    shares: pl.DataFrame
    teacher_share: pl.DataFrame
    accuracies: pl.DataFrame
    checkpoints: pl.DataFrame


def find(warehouse: Warehouse, engines: Engines, recipe: Recipe, batches: list[str]) -> ReportData:
    """Read what the recipe's pipeline has made so far from these batches."""
    return ReportData(
        drops=drop_counts(warehouse, _params(engines, recipe, batches), FILTERS),
        shares=_shares(warehouse, engines, recipe, batches),
        teacher_share=_teacher_share(warehouse, engines, recipe, batches),
        accuracies=stored_accuracy(warehouse, recipe),
        checkpoints=current_checkpoints(warehouse, recipe),
    )


def pictures(
    warehouse: Warehouse, engines: Engines, recipe: Recipe, data: ReportData, batches: list[str]
) -> dict[str, "Figure"]:
    """Name -> figure, for every figure of the report."""
    rollouts = student_rollouts_now(warehouse, engines, recipe)
    trained = data.checkpoints.filter(pl.col("parent_checkpoint_id").is_not_null())
    losses = {row["name"]: Trained.load(Path(row["path"])).losses for row in trained.iter_rows(named=True)}
    return {
        "response_probabilities": probability_densities(_response_probs(warehouse, engines, recipe, batches)),
        "sentence_probabilities": sentence_bars(_one_response(warehouse, engines, recipe)),
        "teacher_sentences_by_position": teacher_share_by_position(data.shares),
        "cut_off_rate": cut_off_rates(rollouts["reference_num_tokens"].to_list(), rollouts["cut_off"].to_list()),
        "training_loss": loss_curve(losses),
        "accuracy": accuracy_bars(data.accuracies),
    }


def sentence_bars(sentences: pl.DataFrame) -> "Figure":
    """Each sentence's probability under both models, coloured by its type (Figure 5).

    sentences: teacher_prob, student_prob, sentence_type, in order.
    """
    figure, axes = labelled_axes("sentence", "probability")
    position = np.arange(sentences.height)
    colours = [TYPE_COLOURS[kind] for kind in sentences["sentence_type"]]
    axes.bar(position - 0.2, sentences["teacher_prob"].fill_null(0), 0.38, color=colours)
    axes.bar(position + 0.2, sentences["student_prob"].fill_null(0), 0.38, color=colours, alpha=0.45)
    for kind in TYPE_NAMES:
        axes.bar([0], [0], color=TYPE_COLOURS[kind], label=f"{kind} sentence")
    axes.set_ylim(0, 1.2)
    axes.set_title("left bar: under the teacher, right and pale: under the student", fontsize=8)
    return with_legend(figure, axes, columns=3)


def teacher_share_by_position(shares: pl.DataFrame) -> "Figure":
    """Share of teacher sentences at each relative position, in right and wrong candidates (Figure 6).

    Of the teacher's own responses, all questions pooled, so that difficulty confounds right and wrong; those of the
    checkpoints' answers, also within questions, are in `answer_provenance`. shares: position (0 to 1), correct,
    teacher_share.
    """
    figure, axes = labelled_axes("position in the response", "share of teacher sentences")
    axes.set_title("the teacher's candidates, all questions pooled: difficulty confounds right and wrong", fontsize=8)
    for correct, label in ((True, "correct"), (False, "incorrect")):
        part = shares.filter(pl.col("correct") == correct).sort("position")
        axes.plot(part["position"], part["teacher_share"], marker="o", markersize=3, label=label)
    return with_legend(figure, axes)


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`distillation_report`."""
    declared = _declared(recipe)

    @declared.asset(
        group="training_results",
        kinds={"matplotlib"},
        description="The figures of the technical report for this distillation, also as files in DASD_HOME/reports. "
        "Figure 6 is of the teacher's candidates, all questions pooled; `answer_provenance` has it of the checkpoints' "
        "own answers.",
    )
    def distillation_report(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        existing = usable_batches(context.instance, warehouse)
        read = declared.read_tags(context.instance, existing)
        data = find(warehouse, engines, recipe, existing)
        figures = pictures(warehouse, engines, recipe, data, existing)
        folder = Path(warehouse.home) / "reports" / recipe.name
        files = _write(figures, folder)
        return dg.MaterializeResult(
            tags=read,
            metadata={
                "accuracies": accuracy_table(data.accuracies),
                "drops": drop_table(data.drops),
                **{name: inline(figure) for name, figure in figures.items()},
                "folder": dg.MetadataValue.path(str(folder)),
                **{f"{name}_file": dg.MetadataValue.path(str(file)) for name, file in files.items()},
                **declared.code_version.metadata,
            },
        )

    return [distillation_report]


def _declared(recipe: Recipe) -> Declaration:
    """The report reads every stage of the pipeline."""
    generations = list(map(generation_asset, recipe.datasets))
    selections = map(selection_asset, recipe.datasets)
    return declare(
        recipe,
        "distillation_report",
        reads={
            "responses": generations,
            "response_verdicts": "response_verdicts",
            "sentence_types": "sentence_types",
            "selected_responses": [*selections, CONTROL_ASSET],
            **chain_reads(recipe),
            "student_rollouts": "student_rollouts",
            "evaluation_metrics": "evaluation_metrics",
            "quarantined_batches": (),
        },
        looks_up={**looked_up(recipe), "sentence_probabilities": "sentence_probabilities"},
        models=["teacher_model", "student_model"],
        rules=[REPORT, METRICS, CANDIDATES, FILTERING, DIVERGENCE, ROLLOUTS],
        parts=["evaluation"],
    )


def _write(figures: dict[str, "Figure"], folder: Path) -> dict[str, Path]:
    """Write each figure to a PNG file of its name."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{name}.png" for name in figures}
    for name, figure in figures.items():
        files[name].write_bytes(png(figure))
    return files


def _params(engines: Engines, recipe: Recipe, batches: list[str]) -> dict[str, object]:
    teacher = engines.fingerprint(recipe.teacher, "teacher.model")
    student = engines.fingerprint(recipe.student, "student.model")
    return {
        **candidate_params(recipe, teacher),
        "temperatures": list(recipe.generation.temperatures),
        "filter_version": filter_version(recipe, student),
        "student": student,
        "batches": batches,
        "threshold_version": threshold_version(recipe),
        "segmenter_version": SEGMENTER_VERSION,
    }


# Not what a verifier could not compare: it is neither right nor known to be wrong.
_DECIDED = f"{JUDGED} AND coalesce(NOT list_contains({[*UNVERIFIABLE, 'verifier_failed']}, v.kind), TRUE)"
_TYPED = f"""responses r JOIN sentence_types t USING (response_id)
    JOIN response_verdicts v ON v.response_id = r.response_id AND v.filter = '{CORRECTNESS}'
    WHERE {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND {OF_BATCHES}
      AND v.filter_version = $filter_version AND t.student_fingerprint = $student
      AND t.threshold_version = $threshold_version
      AND {_DECIDED}"""


def _teacher_share(warehouse: Warehouse, engines: Engines, recipe: Recipe, batches: list[str]) -> pl.DataFrame:
    query = f"""WITH each AS (SELECT r.response_id, v.passed, avg((t.sentence_type = 'teacher')::INT) AS share
            FROM {_TYPED} GROUP BY ALL)
        SELECT passed AS correct, count(*) AS num_responses, avg(share) AS teacher_share FROM each
        WHERE share IS NOT NULL GROUP BY ALL ORDER BY correct DESC"""
    return warehouse.read(query, _params(engines, recipe, batches))


def _shares(warehouse: Warehouse, engines: Engines, recipe: Recipe, batches: list[str]) -> pl.DataFrame:
    query = f"""WITH each AS (SELECT v.passed AS correct, (t.sentence_type = 'teacher')::INT AS is_teacher,
            floor({NUM_POSITIONS} * t.sentence_index / count(*) OVER (PARTITION BY r.response_id)) AS eighth
            FROM {_TYPED})
        SELECT (eighth + 0.5) / {NUM_POSITIONS} AS position, correct, avg(is_teacher) AS teacher_share FROM each
        WHERE is_teacher IS NOT NULL GROUP BY ALL ORDER BY ALL"""
    return warehouse.read(query, _params(engines, recipe, batches))


def _response_probs(
    warehouse: Warehouse, engines: Engines, recipe: Recipe, batches: list[str]
) -> dict[str, list[float]]:
    query = f"""SELECT r.temperature, exp(list_avg(r.logprobs)) AS prob,
            r.response_id IN (SELECT response_id FROM selected_responses
                WHERE recipe = $recipe AND policy = '{DAS}' AND dataset <> '{MIXED}') AS selected
        FROM responses r WHERE {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND {OF_BATCHES}"""
    params = _params(engines, recipe, batches) | {"recipe": recipe.name}
    probs = warehouse.read(query, params)
    groups: dict[str, list[float]] = {}
    for temperature in recipe.generation.temperatures:
        part = probs.filter(pl.col("temperature") == temperature)
        groups[f"T={temperature:g}"] = part["prob"].to_list()
        groups[f"T={temperature:g}, selected"] = part.filter("selected")["prob"].to_list()
    return groups


def _one_response(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> pl.DataFrame:
    """Sentences of the best-ranked selected response of the highest temperature."""
    query = """SELECT p.sentence_index, p.teacher_prob, p.student_prob, t.sentence_type
        FROM selected_responses s JOIN sentence_probabilities p USING (response_id)
        JOIN sentence_types t USING (response_id, student_fingerprint, sentence_index)
        WHERE s.recipe = $recipe AND s.dataset = $dataset AND s.policy = 'das' AND s.rank = 1
          AND p.student_fingerprint = $student AND p.segmenter_version = $segmenter_version
          AND t.threshold_version = $threshold_version
        QUALIFY dense_rank() OVER (ORDER BY response_id) = 1 ORDER BY p.sentence_index"""
    params = _params(engines, recipe, []) | {"recipe": recipe.name, "dataset": recipe.last_dataset}
    return warehouse.read(query, params)


def drop_table(drops: pl.DataFrame) -> dg.TableMetadataValue:
    """A row per filter, a column per temperature, each with the share and number of responses that fail."""
    temperatures = drops["temperature"].unique().sort().to_list()
    columns = ["filter", *[f"T={temperature:g}" for temperature in temperatures]]
    rows: dict[str, dict[str, str | None]] = {}
    for row in drops.to_dicts():
        share = f"{row['num_dropped'] / row['num_judged']:.1%}"
        column = f"T={row['temperature']:g}"
        dropped = f"{share} ({row['num_dropped']:,} of {row['num_judged']:,})"
        rows.setdefault(row["filter"], {"filter": row["filter"]})[column] = dropped
    return table(columns, [dict.fromkeys(columns) | row for row in rows.values()])
