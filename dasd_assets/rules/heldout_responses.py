"""Held-out teacher responses: which they are, and the loss on each type of their sentences.

They are accepted responses that the selection did not keep, less those of the same words as one that it kept. Most are
answers to questions that a stage was trained on with another response, so they show how far a student has come towards
the teacher on these questions. What it makes of others is told apart: of those that the recipe holds out of training
(`heldout.questions`), or else of those of which nothing was selected, which are a biased rest.
"""

from collections.abc import Sequence

import numpy as np
import polars as pl

from dasd_assets.rules.candidates import (
    ACCEPTED,
    AT_ANY_TEMPERATURE,
    CANDIDATES,
    HELD_OUT,
    OF_BATCHES,
    OF_RECIPE,
    candidate_params,
    held_out_share,
)
from dasd_assets.rules.checkpoints import CHAIN
from dasd_assets.rules.filters.catalogue import FILTERING, filter_version, required_filters
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.scores import DIVERGENCE, TYPE_NAMES, threshold_version
from dasd_assets.rules.sentences import edges, sentence_spans
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake

HELDOUT_VERSION = "1"
HELDOUT = Rule(
    "held-out losses",
    HELDOUT_VERSION,
    ("heldout", "name", "filters.require_correct", "filters.required"),
    (CANDIDATES, FILTERING, DIVERGENCE, CHAIN),
)
UNTYPED, OUTSIDE, ALL = "untyped", "outside", "all"
TYPES = (*TYPE_NAMES, UNTYPED, OUTSIDE, ALL)
_TRAINED_ON = "checkpoint_examples WHERE list_contains($checkpoints, checkpoint_id)"


def heldout_logprobs_id(response_id: str, checkpoint_id: str) -> str:
    """Hash of a response and of the checkpoint that scores it."""
    return content_hash([response_id, checkpoint_id])[:32]


def heldout_responses(
    lake: Lake, recipe: Recipe, teacher: str, student: str, batches: Sequence[str], checkpoints: Sequence[str]
) -> pl.DataFrame:
    """(response_id, prompt_id, dataset, question_seen) of the responses held out from these checkpoints, in order.

    teacher, student: fingerprints. batches: existing, not quarantined. checkpoints: ids of all trained ones that are
    to be compared.
    """
    assert recipe.heldout is not None
    query = f"""WITH trained AS (SELECT DISTINCT t.prompt_id, t.text FROM responses t
            WHERE t.response_id IN (SELECT response_id FROM {_TRAINED_ON}))
        SELECT r.response_id, r.prompt_id, r.temperature,
            r.prompt_id IN (SELECT prompt_id FROM {_TRAINED_ON}) AS question_seen
        FROM responses r SEMI JOIN prompts USING (prompt_id) ANTI JOIN trained USING (prompt_id, text)
        WHERE {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND {OF_BATCHES}
          AND (question_seen OR $held_out_share = 0 OR {HELD_OUT})
          AND r.response_id IN ({ACCEPTED.format(scope="")})
          AND r.response_id IN (SELECT response_id FROM sentence_types
              WHERE student_fingerprint = $student AND threshold_version = $threshold_version)
        QUALIFY row_number() OVER (PARTITION BY r.temperature, question_seen ORDER BY r.response_id) <= $num_responses
        ORDER BY r.temperature, question_seen, r.response_id"""
    params = {
        **candidate_params(recipe, teacher),
        "temperatures": list(recipe.generation.temperatures),
        "batches": list(batches),
        "held_out_share": held_out_share(recipe),
        "filter_version": filter_version(recipe, student),
        "filters": list(required_filters(recipe.filters.require_correct, recipe.filters.required)),
        "student": student,
        "threshold_version": threshold_version(recipe),
        "checkpoints": list(checkpoints),
        "num_responses": recipe.heldout.num_responses,
    }
    datasets = {temperature: dataset for dataset, temperature in recipe.datasets.items()}
    found = lake.read(query, params)
    names = pl.col("temperature").replace_strict(datasets, return_dtype=pl.String)
    return found.select("response_id", "prompt_id", "question_seen", dataset=names)


def nothing_typed(lake: Lake, recipe: Recipe, student: str) -> bool:
    """Whether the student has scored no response that has types of sentences, so that none can be held out."""
    query = "SELECT 1 FROM sentence_types WHERE student_fingerprint = $student AND threshold_version = $version LIMIT 1"
    return lake.read(query, {"student": student, "version": threshold_version(recipe)}).is_empty()


def sentence_sums(responses: pl.DataFrame) -> pl.DataFrame:
    """Sums of logprobs per sentence and, as one with no index, of the tokens outside of all.

    responses: response_id, text, offsets, and logprobs `before` and `after`, one per offset. Returns response_id,
    sentence_index, num_tokens, before, after (sums).
    """
    rows: list[tuple[str, int | None, int, float, float]] = []
    columns = responses.select("response_id", "text", "offsets", "before", "after")
    for response_id, text, offsets, before, after in columns.iter_rows():
        sentences = edges(text, sentence_spans(text))
        (sums_before, counts), (sums_after, _) = (sentences.sums(values, offsets) for values in (before, after))
        outside = len(offsets) - int(counts.sum())
        left = (float(np.sum(before)) - sums_before.sum(), float(np.sum(after)) - sums_after.sum())
        rows += [(response_id, i, int(counts[i]), sums_before[i], sums_after[i]) for i in range(len(counts))]
        rows.append((response_id, None, outside, *(left if outside else (0.0, 0.0))))
    schema = {"response_id": pl.String, "sentence_index": pl.Int32, "num_tokens": pl.Int64}
    return pl.DataFrame(rows, {**schema, "before": pl.Float64, "after": pl.Float64}, orient="row")


def losses_by_type(sums: pl.DataFrame, types: pl.DataFrame, responses: pl.DataFrame) -> pl.DataFrame:
    """The figures of `heldout_losses` for one checkpoint.

    sums: of `sentence_sums`. types: response_id, sentence_index, sentence_type. responses: response_id, prompt_id,
    dataset, question_seen.
    """
    kind = pl.when(pl.col("sentence_index").is_null()).then(pl.lit(OUTSIDE)).otherwise(pl.col("sentence_type"))
    typed = (
        sums.filter(pl.col("num_tokens") > 0)
        .join(types, on=["response_id", "sentence_index"], how="left")
        .join(responses, on="response_id")
        .with_columns(sentence_type=kind.fill_null(UNTYPED))
    )
    group = ["dataset", "question_seen", "sentence_type"]
    both = pl.concat([typed, typed.with_columns(sentence_type=pl.lit(ALL))])
    questions = both.group_by(*group, "prompt_id").agg(
        pl.col("num_tokens", "before", "after").sum(), num_responses=pl.col("response_id").n_unique()
    )
    found = questions.sort("prompt_id").group_by(group).agg(*_figures())  # sorted: a sum's last digits depend on it
    total = found.filter(pl.col("sentence_type") == ALL).select("dataset", "question_seen", whole="learned")
    share = pl.when(pl.col("whole") != 0).then(pl.col("learned") / pl.col("whole"))
    order = pl.col("sentence_type").cast(pl.Enum(TYPES))
    return (
        found.join(total, on=["dataset", "question_seen"])
        .with_columns(share_of_change=share)
        .drop("learned", "whole")
        .sort("dataset", "question_seen", order)
    )


def _figures() -> list[pl.Expr]:
    """Of a group's questions: mean loss, its change, and the standard error of a ratio of sums over clusters."""
    tokens, learned = pl.col("num_tokens"), pl.col("before") - pl.col("after")
    change = learned.sum() / tokens.sum()
    residuals = (learned - change * tokens).pow(2).sum() * pl.len() / (pl.len() - 1)
    return [
        pl.col("num_responses").sum().cast(pl.Int64),
        tokens.sum().alias("num_tokens"),
        (-pl.col("after").sum() / tokens.sum()).alias("loss"),
        change.alias("change"),
        pl.when(pl.len() > 1).then(residuals.sqrt() / tokens.sum()).alias("change_standard_error"),
        learned.sum().alias("learned"),
    ]
