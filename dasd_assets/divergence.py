"""Sentence types and response scores (report §4, Figure 5): computed from stored sums, without a forward pass.

`sentence_probabilities` -> `sentence_types` -> `response_scores`, by the rules of `rules/scores.py`. Both are made and
committed a part at a time: the report's responses have hundreds of millions of sentences.
"""

from collections.abc import Iterable, Iterator

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
from dasd_assets.sentence_probabilities import SENTENCES
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.passes import passes
from dasd_resources.storage.warehouse import Reading, Warehouse

SENTENCES_AT_ONCE = 200_000  # of 250 bytes, twice that with what is made of them
TYPED_AT_ONCE = 100_000  # 760,000 sentences peaked at 809 MB, 190,000 at 729; with 200,000 at 876 and 742


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
        write_types(warehouse, batch, student, recipe, origin(context))
        rows = _keys(batch, student, recipe)
        counts = dict(warehouse.read(_TYPE_COUNTS, rows).iter_rows())
        ids = warehouse.read(f"SELECT DISTINCT response_id FROM sentence_types WHERE {_OF_RULE}", rows)
        return dg.MaterializeResult(
            data_version=content_version([*ids["response_id"], student, threshold_version(recipe)]),
            metadata=declared.result(warehouse, sum(counts.values()), rows, **_type_figures(counts)),
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
        write_scores(warehouse, batch, student, recipe, origin(context))
        rows, shown = _keys(batch, student, recipe), {"score_name": recipe.selection.score}
        ranking = warehouse.read(_RANKING, {**rows, **shown})
        return dg.MaterializeResult(
            data_version=content_version([*ranking["response_id"], student, threshold_version(recipe)]),
            metadata=declared.result(
                warehouse, len(SCORES) * ranking.height, rows, shown, **_score_figures(ranking["score"], recipe)
            ),
        )

    return response_scores


def write_types(
    warehouse: Warehouse, batch: str, student: str, recipe: Recipe, origin: str, at_once: int = TYPED_AT_ONCE
) -> None:
    """Type and commit the batch's sentences that this rule has not typed yet, about `at_once` at a time."""
    params: dict[str, object] = {**_keys(batch, student, recipe), "segmenter_version": SEGMENTER_VERSION}
    with warehouse.reading() as reading:
        for sentences in reading.stream(_UNTYPED, params, at_once):
            with warehouse.commit(origin) as transaction:
                transaction.append_missing("sentence_types", typed(sentences, recipe), batch)


def write_scores(
    warehouse: Warehouse, batch: str, student: str, recipe: Recipe, origin: str, at_once: int = SENTENCES_AT_ONCE
) -> None:
    """Score and commit the batch's typed responses that lack a score, about `at_once` sentences at a time."""
    keys = _keys(batch, student, recipe)
    columns = {name: pl.lit(value) for name, value in keys.items()}
    params: dict[str, object] = {**keys, "segmenter_version": SEGMENTER_VERSION, "names": list(SCORES)}
    with warehouse.reading() as reading:
        for part in _passes(reading, params, at_once):
            for sentences in whole_responses(reading.stream(_UNSCORED, part, at_once)):
                scores = response_scores(sentences).with_columns(**columns)
                with warehouse.commit(origin) as transaction:
                    transaction.append_missing("response_scores", scores, batch)


def _passes(reading: Reading, params: dict[str, object], at_once: int) -> Iterator[dict[str, object]]:
    """The parameters of each pass over a batch's responses: joined and sorted as a whole, they would all be kept."""
    for first, last in passes(reading.read(_LENGTHS, params).rows(), at_once):
        yield {**params, "first": first, "last": last}


def _keys(batch: str, student: str, recipe: Recipe) -> dict[str, str]:
    """What the rows of a batch have in common in both tables."""
    return {"batch": batch, "student_fingerprint": student, "threshold_version": threshold_version(recipe)}


def whole_responses(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in parts that hold no response by halves. parts: in the order of response_id."""
    held: pl.DataFrame | None = None  # the last response so far, which may go on
    for part in parts:
        rows = part if held is None else pl.concat([held, part])
        of_last = pl.col("response_id") == pl.last("response_id")
        held = rows.filter(of_last)
        if held.height < rows.height:
            yield rows.filter(~of_last)
    if held is not None and held.height:
        yield held


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


def _type_figures(counts: dict[str | None, int]) -> dict[str, Figure]:
    """The share of each type among the sentences that have one, and how many have none. counts: by type."""
    num_untyped = counts.get(None, 0)
    num_typed = sum(counts.values()) - num_untyped
    shares = {f"{kind}_share": counts.get(kind, 0) / max(num_typed, 1) for kind in TYPE_NAMES}
    return {"num_untyped": num_untyped, **shares}


def _score_figures(scores: pl.Series, recipe: Recipe) -> dict[str, Figure]:
    """How the score that ranks the responses is distributed."""
    name, values = recipe.selection.score, scores.drop_nulls().to_list()
    return {
        "num_responses": scores.len(),
        "mean_score": scores.to_frame().select(pl.mean("score")).item(),
        "scores_shape": shape(values),
        "scores": inline(histogram({name: values}, name)) if values else None,
    }


_OF_RULE = "batch = $batch AND student_fingerprint = $student_fingerprint AND threshold_version = $threshold_version"
_TYPE_COUNTS = f"SELECT sentence_type, count(*) FROM sentence_types WHERE {_OF_RULE} GROUP BY ALL"
_RANKING = f"""SELECT response_id, score FROM response_scores WHERE {_OF_RULE} AND score_name = $score_name
    ORDER BY response_id"""
_LENGTHS = f"SELECT response_id, count(*) AS num_sentences {SENTENCES} GROUP BY response_id ORDER BY response_id"
_IN_PASS = "response_id BETWEEN $first AND $last"
# What a difference is made of, per token and per character.
_COMPARED = "p.start, p.stop, p.teacher_sum_logprob, p.teacher_num_tokens, p.student_sum_logprob, p.student_num_tokens"
# The join keeps the ids of responses alone: sentences stream by, each file of them read once.
_UNTYPED = f"""SELECT p.response_id, p.batch, p.student_fingerprint, p.sentence_index, {_COMPARED} FROM ({SENTENCES}) p
    WHERE p.response_id NOT IN (SELECT s.response_id FROM ({_LENGTHS}) s
        JOIN (SELECT response_id, count(*) AS num_sentences FROM sentence_types WHERE {_OF_RULE} GROUP BY response_id) t
        USING (response_id) WHERE t.num_sentences >= s.num_sentences)"""
_TYPES = f"FROM sentence_types WHERE {_OF_RULE} AND {_IN_PASS}"
# A response that was typed by halves, as after a kill, waits for the other: what is scored is not scored again.
_UNSCORED = f"""SELECT p.response_id, {_COMPARED}, t.sentence_type FROM ({SENTENCES} AND {_IN_PASS}) p
        JOIN ({_TYPES}) t USING (response_id, sentence_index)
    WHERE p.response_id NOT IN (SELECT s.response_id FROM ({SENTENCES} AND {_IN_PASS}) s
        ANTI JOIN ({_TYPES}) USING (response_id, sentence_index))
    AND p.response_id NOT IN (SELECT response_id FROM response_scores
        WHERE {_OF_RULE} AND {_IN_PASS} AND list_contains($names, score_name)
        GROUP BY ALL HAVING count(*) = len($names))
    ORDER BY p.response_id, p.sentence_index"""  # a sum's last digits depend on the order
