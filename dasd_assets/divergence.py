"""Sentence types and response scores (report §4, Figure 5): computed from stored sums, without a forward pass.

`sentence_probabilities` -> `sentence_types` -> `response_scores`, by the rules of `rules/scores.py`.
"""

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.plots import histogram, inline, shape
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import Figure
from dasd_assets.rules.scores import (
    DIVERGENCE,
    RESPONSE_SCORING,
    SCORES,
    TYPE_NAMES,
    response_scores,
    sentence_type,
    threshold_version,
)
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`sentence_types` and `response_scores`."""
    return [_sentence_types(recipe), _response_scores(recipe)]


def _sentence_types(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "sentence_types",
        "sentence_types",
        reads={"sentence_probabilities": "sentence_probabilities"},
        models=["student_model"],
        rules=[DIVERGENCE],
    )

    @declared.asset(
        group="scores",
        kinds={"ducklake", "polars"},
        description="One row per sentence: its type (teacher, student or close) under the recipe's threshold.",
    )
    def sentence_types(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.fingerprint(recipe.student, "student.model")
        batch = context.partition_key
        types = typed(_sentences(warehouse, batch, student), recipe)
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("sentence_types", types, batch)
        rows = {"batch": batch, "student_fingerprint": student, "threshold_version": threshold_version(recipe)}
        return dg.MaterializeResult(
            data_version=content_version([*types["response_id"].unique(), student, threshold_version(recipe)]),
            metadata=declared.result(warehouse, types.height, rows, **_type_figures(types)),
        )

    return sentence_types


def _response_scores(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "response_scores",
        "response_scores",
        reads={"sentence_types": "sentence_types", "sentence_probabilities": "sentence_probabilities"},
        models=["student_model"],
        rules=[RESPONSE_SCORING],
        parts=["selection.score"],
    )

    @declared.asset(
        group="scores",
        kinds={"ducklake", "polars"},
        description="One row per response and score; the recipe names the score that ranks responses. Scores are:\n\n"
        + "\n".join(f"- `{name}`: {entry.meaning}" for name, entry in SCORES.items()),
    )
    def response_scores(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.fingerprint(recipe.student, "student.model")
        batch = context.partition_key
        version = threshold_version(recipe)
        scores = _scored(warehouse, batch, student, recipe)
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("response_scores", scores, batch)
        rows = {"batch": batch, "student_fingerprint": student, "threshold_version": version}
        shown = {"score_name": recipe.selection.score}
        return dg.MaterializeResult(
            data_version=content_version([*scores["response_id"].unique(), student, version]),
            metadata=declared.result(warehouse, scores.height, rows, shown, **_score_figures(scores, recipe)),
        )

    return response_scores


def _scored(warehouse: Warehouse, batch: str, student: str, recipe: Recipe) -> pl.DataFrame:
    """The rows of `response_scores` of a batch."""
    return response_scores(_typed_sentences(warehouse, batch, student, recipe)).with_columns(
        batch=pl.lit(batch), student_fingerprint=pl.lit(student), threshold_version=pl.lit(threshold_version(recipe))
    )


def typed(sentences: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Rows of `sentence_types` for rows of `sentence_probabilities`."""
    return sentences.select(
        "response_id",
        "batch",
        "student_fingerprint",
        "sentence_index",
        sentence_type(recipe.selection.divergence).alias("sentence_type"),
        pl.lit(recipe.selection.divergence.threshold).alias("threshold"),
        pl.lit(threshold_version(recipe)).alias("threshold_version"),
    )


def _type_figures(types: pl.DataFrame) -> dict[str, Figure]:
    """The share of each type among the sentences that have one, and how many have none."""
    counts = dict(types["sentence_type"].value_counts().iter_rows())
    num_typed = types.height - counts.pop(None, 0)
    shares = {f"{kind}_share": counts.get(kind, 0) / max(num_typed, 1) for kind in TYPE_NAMES}
    return {"num_untyped": types.height - num_typed, **shares}


def _score_figures(scores: pl.DataFrame, recipe: Recipe) -> dict[str, Figure]:
    """How the score that ranks the responses is distributed."""
    name = recipe.selection.score
    ranking = scores.filter(pl.col("score_name") == name)
    values = ranking["score"].drop_nulls().to_list()
    return {
        "num_responses": ranking.height,
        "mean_score": ranking.select(pl.mean("score")).item(),
        "scores_shape": shape(values),
        "scores": inline(histogram({name: values}, name)) if values else None,
    }


def _sentences(warehouse: Warehouse, batch: str, student: str) -> pl.DataFrame:
    query = """SELECT * FROM sentence_probabilities
        WHERE batch = $batch AND student_fingerprint = $student AND segmenter_version = $version"""
    return warehouse.read(query, {"batch": batch, "student": student, "version": SEGMENTER_VERSION})


def _typed_sentences(warehouse: Warehouse, batch: str, student: str, recipe: Recipe) -> pl.DataFrame:
    query = """SELECT p.*, t.sentence_type
        FROM sentence_probabilities p JOIN sentence_types t USING (response_id, student_fingerprint, sentence_index)
        WHERE p.batch = $batch AND t.batch = $batch AND p.student_fingerprint = $student
          AND p.segmenter_version = $segmenter AND t.threshold_version = $threshold
        ORDER BY p.response_id, p.sentence_index"""  # a sum's last digits depend on the order
    params = {
        "batch": batch,
        "student": student,
        "segmenter": SEGMENTER_VERSION,
        "threshold": threshold_version(recipe),
    }
    return warehouse.read(query, params)
