"""What the report reads from the warehouse: counts, drops, accuracies, what changed, and what its figures draw."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, reduce

import dagster as dg
import polars as pl

from dasd_assets.evaluation.evaluation_metrics import stored_accuracy
from dasd_assets.evaluation.outcomes import checkpoint_outcomes
from dasd_assets.mixed_policy.distilled_student import student_rollouts_now
from dasd_assets.records.markdown import table
from dasd_assets.report.one_response import OneResponse, one_response
from dasd_assets.rules.asset_names import DAS, MIXED
from dasd_assets.rules.candidates import (
    AT_ANY_TEMPERATURE,
    OF_BATCHES,
    OF_RECIPE,
    candidate_params,
    drop_counts,
    num_answered,
)
from dasd_assets.rules.checkpoints import current_checkpoints, trained_names
from dasd_assets.rules.filters.catalogue import CORRECTNESS, FILTERS, filter_version
from dasd_assets.rules.scores import threshold_version
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_assets.rules.statistics.comparison import comparisons
from dasd_assets.rules.verdict import DECIDED
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.sft.checkpoint import Progress, Trained
from dasd_resources.storage.tables import measured
from dasd_resources.storage.warehouse import Warehouse

NUM_POSITIONS = 8
STUDENT = "student"
_OF_CANDIDATES = (
    "response_id",
    "prompt_id",
    "batch",
    "temperature",
    "top_p",
    "max_tokens",
    "sample_index",
    "teacher_fingerprint",
    "instruction",
)


@dataclass(frozen=True)
class ReportData:
    """Tables behind the page, the plots and the summary.

    drops: temperature, filter, num_dropped, num_judged. shares: position, correct, teacher_share.
    teacher_share: correct, num_responses, teacher_share. accuracies: see `evaluation.accuracy`.
    num_questions: answered ones. responses: temperature, num_responses. datasets: dataset, num_selected, num_examples,
    num_tokens, in the order of training. gains: `comparisons` of each checkpoint with the undistilled student; without
    incomplete evaluations. response_probs: of the teacher's responses, by group. rollouts: reference_num_tokens,
    cut_off. losses: the curve of each trained checkpoint whose folder is there. response: None until one is selected.
    """

    drops: pl.DataFrame
    shares: pl.DataFrame
    teacher_share: pl.DataFrame
    accuracies: pl.DataFrame
    checkpoints: pl.DataFrame
    num_questions: int
    responses: pl.DataFrame
    datasets: pl.DataFrame
    gains: pl.DataFrame
    response_probs: Mapping[str, Sequence[float]]
    rollouts: pl.DataFrame
    losses: Mapping[str, Sequence[Progress]]
    response: OneResponse | None

    @property
    def trained(self) -> pl.DataFrame:
        """The rows of the trained checkpoints, in order."""
        return _trained(self.checkpoints)


def find(warehouse: Warehouse, engines: Engines, recipe: Recipe, batches: list[str]) -> ReportData:
    """Read what the recipe's pipeline has made so far from these batches."""
    params = _params(engines, recipe, batches)
    checkpoints = current_checkpoints(warehouse, recipe)
    shares, teacher_share = _teacher_shares(warehouse, params)
    return ReportData(
        drops=drop_counts(warehouse, params, FILTERS),
        shares=shares,
        teacher_share=teacher_share,
        accuracies=stored_accuracy(warehouse, recipe),
        checkpoints=checkpoints,
        num_questions=num_answered(warehouse, params),
        responses=warehouse.read(_NUM_RESPONSES, params),
        datasets=_datasets(warehouse, recipe),
        gains=gains(checkpoint_outcomes(warehouse, recipe)),
        response_probs=_response_probs(warehouse, params, recipe),
        rollouts=_rollouts(warehouse, engines, recipe),
        losses=_losses(warehouse, checkpoints),
        response=one_response(warehouse, params, recipe),
    )


def _rollouts(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> pl.DataFrame:
    """Those of the distilled student; none where no student is trained yet."""
    try:
        found = student_rollouts_now(warehouse, engines, recipe)
    except dg.Failure:
        return pl.DataFrame(schema={"reference_num_tokens": pl.Int32, "cut_off": pl.Boolean})
    return found.select("reference_num_tokens", "cut_off")


def gains(outcomes: pl.DataFrame) -> pl.DataFrame:
    """Each trained checkpoint against the undistilled student, paired by question. outcomes: `checkpoint_outcomes`.

    Where either has answers missing, the two are not compared; a request that failed is a wrong answer.
    """
    setting = ["checkpoint", "benchmark", "temperature"]
    complete = outcomes.filter(pl.col("correct").is_not_null().all().over(setting))
    answers = complete.select(*setting[1:], "question_id", "correct", arm="checkpoint", seed=pl.lit(0))
    both = answers.filter((pl.col("arm") == STUDENT).any().over(setting[1:]))
    names = [name for name in both["arm"].unique().sort() if name not in (STUDENT, "teacher")]
    found = [comparisons(of_arm(both, name), [(name, STUDENT)]) for name in names]
    return pl.concat(found) if found else comparisons(both.clear(), [])


def of_arm(answers: pl.DataFrame, name: str) -> pl.DataFrame:
    """The answers of an arm and the student in the settings that the arm has answered."""
    own = (pl.col("arm") == name).any().over("benchmark", "temperature")
    return answers.filter(own & pl.col("arm").is_in([name, STUDENT]))


def figures_over_time(data: ReportData) -> dict[str, float]:
    """Numbers that the web UI plots over the report's materializations; what is not known is absent, not 0."""
    drops = data.drops.group_by("filter", maintain_order=True).agg(pl.col("num_dropped", "num_judged").sum())
    return {
        **{
            f"accuracy_{row['checkpoint']}_{row['benchmark']}_T{row['temperature']:g}": row["accuracy"]
            for row in data.accuracies.drop_nulls("accuracy").to_dicts()
        },
        **{
            f"dropped_share_{row['filter']}": row["num_dropped"] / row["num_judged"]
            for row in drops.to_dicts()
            if row["num_judged"]
        },
        **{
            f"teacher_sentence_share_{'correct' if row['correct'] else 'incorrect'}": row["teacher_share"]
            for row in data.teacher_share.to_dicts()
        },
        **({"cut_off_share": data.rollouts["cut_off"].sum() / data.rollouts.height} if data.rollouts.height else {}),
    }


def drop_table(drops: pl.DataFrame) -> dg.TableMetadataValue:
    """A row per filter, a column per temperature, each with the share and number of responses that fail."""
    columns, rows = drop_rows(drops)
    return table(columns, rows)


def drop_rows(drops: pl.DataFrame) -> tuple[list[str], list[dict[str, str | None]]]:
    """The columns of that table, and its rows."""
    temperatures = drops["temperature"].unique().sort().to_list()
    columns = ["filter", *[f"T={temperature:g}" for temperature in temperatures]]
    rows: dict[str, dict[str, str | None]] = {}
    for row in drops.to_dicts():
        share = f"{row['num_dropped'] / row['num_judged']:.1%}"
        column = f"T={row['temperature']:g}"
        dropped = f"{share} ({row['num_dropped']:,} of {row['num_judged']:,})"
        rows.setdefault(row["filter"], {"filter": row["filter"]})[column] = dropped
    return columns, [dict.fromkeys(columns) | row for row in rows.values()]


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


_NUM_RESPONSES = f"""SELECT r.temperature, count(*) AS num_responses FROM responses r
    WHERE {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND {OF_BATCHES} GROUP BY ALL ORDER BY ALL"""
# Each judged response with the number of its typed sentences, as a table: so that each query below reads the sentences
# once past it. DuckDB thinks them fewer than they are, and would hold all of them.
_RESPONSES = f"""SELECT r.response_id, v.passed AS correct, l.num_sentences
    FROM responses r JOIN response_verdicts v ON v.response_id = r.response_id AND v.filter = '{CORRECTNESS}'
        JOIN (SELECT response_id, count(*) AS num_sentences FROM sentence_types
            WHERE student_fingerprint = $student AND threshold_version = $threshold_version GROUP BY ALL) l
            ON l.response_id = r.response_id
    WHERE {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND {OF_BATCHES} AND v.filter_version = $filter_version
      AND {DECIDED}"""
_TYPED = """judged JOIN (SELECT response_id, sentence_index, (sentence_type = 'teacher')::INT AS is_teacher
        FROM sentence_types WHERE student_fingerprint = $student AND threshold_version = $threshold_version
          AND sentence_type IS NOT NULL) t USING (response_id)"""
_TEACHER_SHARE = f"""WITH each AS (SELECT response_id, correct, avg(is_teacher) AS share FROM {_TYPED} GROUP BY ALL)
    SELECT correct, count(*) AS num_responses, avg(share) AS teacher_share FROM each
    GROUP BY ALL ORDER BY correct DESC"""
_SHARES = f"""SELECT (floor({NUM_POSITIONS} * sentence_index / num_sentences) + 0.5) / {NUM_POSITIONS} AS position,
        correct, avg(is_teacher) AS teacher_share
    FROM {_TYPED} GROUP BY ALL ORDER BY ALL"""


def _teacher_shares(warehouse: Warehouse, params: Mapping[str, object]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`shares` and `teacher_share` of `ReportData`."""
    with warehouse.reading() as reading:
        reading.create_temp_table("judged", _RESPONSES, params)
        return reading.read(_SHARES, params), reading.read(_TEACHER_SHARE, params)


def _response_probs(warehouse: Warehouse, params: Mapping[str, object], recipe: Recipe) -> dict[str, list[float]]:
    query = f"""SELECT r.temperature, exp(r.mean_logprob) AS prob,
            r.response_id IN (SELECT response_id FROM selected_responses
                WHERE recipe = $recipe AND policy = '{DAS}' AND dataset <> '{MIXED}') AS selected
        FROM {measured("responses", "mean_logprob", *_OF_CANDIDATES)} r
        WHERE {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND {OF_BATCHES}"""
    probs = warehouse.read(query, {**params, "recipe": recipe.name})
    groups: dict[str, list[float]] = {}
    for temperature in recipe.generation.temperatures:
        part = probs.filter(pl.col("temperature") == temperature)
        groups[f"T={temperature:g}"] = part["prob"].to_list()
        groups[f"T={temperature:g}, selected"] = part.filter("selected")["prob"].to_list()
    return groups


def _datasets(warehouse: Warehouse, recipe: Recipe) -> pl.DataFrame:
    examples = f"""SELECT e.dataset, count(*) AS num_examples, sum(len(e.input_ids))::BIGINT AS num_tokens
        FROM sft_examples e WHERE e.recipe = $recipe AND e.policy = '{DAS}' GROUP BY ALL"""
    selected = f"""SELECT s.dataset, count(*) AS num_selected FROM selected_responses s
        WHERE s.recipe = $recipe AND s.policy = '{DAS}' GROUP BY ALL"""
    names = pl.DataFrame({"dataset": trained_names(recipe)}, schema={"dataset": pl.String})
    counts = [warehouse.read(query, {"recipe": recipe.name}) for query in (selected, examples)]
    return reduce(partial(pl.DataFrame.join, on="dataset", how="left", maintain_order="left"), counts, names)


def _trained(checkpoints: pl.DataFrame) -> pl.DataFrame:
    return checkpoints.filter(pl.col("parent_checkpoint_id").is_not_null())


def _losses(warehouse: Warehouse, checkpoints: pl.DataFrame) -> dict[str, list[Progress]]:
    found: dict[str, list[Progress]] = {}
    for row in _trained(checkpoints).to_dicts():
        with suppress(FileNotFoundError):
            found[row["name"]] = Trained.load(warehouse.folder(row["path"])).losses
    return found
