"""Whose sentences the checkpoints' own answers consist of (report §4, Figure 5): from logprobs to sums to types.

`answer_logprobs`, `evaluations` -> `answer_sentences` (split by `rules/sentences.py`, summed under three models) ->
`answer_sentence_types` (by `rules/answer_types.py`). Another threshold types anew; nothing is scored for it.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from dasd_assets.answer_logprobs import answers_read
from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import Figure
from dasd_assets.rules.answer_types import ANSWER_TYPES, FOUR_TYPES, MODELS, answer_threshold_version, four_types
from dasd_assets.rules.answers import ANSWERS, sampled_answers
from dasd_assets.rules.sentence_table import SENTENCE_SUMS, sentence_table
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse

ANSWERS_PER_COMMIT = 1000
_KEY = ["answer_id", "checkpoint_id"]


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`answer_sentences` and `answer_sentence_types`, for a recipe with `provenance`."""
    return [] if recipe.provenance is None else [_answer_sentences(recipe), _answer_sentence_types(recipe)]


def _answer_sentences(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "answer_sentences",
        "answer_sentences",
        reads={"answer_logprobs": "answer_logprobs", **answers_read(recipe)},
        models=["teacher_model", "student_model"],
        rules=[ANSWERS, SENTENCE_SUMS],
    )

    @declared.asset(
        group="training_results",
        kinds={"ducklake", "polars"},
        description="One row per sentence of a checkpoint's own answer: its logprob sum and token count under the "
        "teacher, the undistilled student and that checkpoint.",
    )
    def answer_sentences(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        models = _models(engines, recipe)
        answers = sampled_answers(warehouse, recipe).unique(_KEY, keep="first", maintain_order=True)
        for rows in _unsplit(warehouse, answers, models):
            sums = sentence_table(rows, "answer_id", MODELS)
            owner = rows.select(*_KEY).with_columns(**{name: pl.lit(value) for name, value in models.items()})
            table = sums.join(owner, on="answer_id").with_columns(segmenter_version=pl.lit(SEGMENTER_VERSION))
            with warehouse.commit(origin(context)) as transaction:
                transaction.append_missing("answer_sentences", table)
        current = {**models, "segmenter_version": SEGMENTER_VERSION}
        query = f"SELECT {', '.join(_KEY)}, count(*) AS n FROM answer_sentences WHERE {_OF_MODELS} GROUP BY ALL"
        made = warehouse.read(query, current).join(answers, on=_KEY, how="semi")
        return dg.MaterializeResult(
            data_version=content_version([*made.select(*_KEY).iter_rows(), *current.values()]),
            metadata=declared.result(
                warehouse,
                int(made["n"].sum()),
                current,
                num_answers=made.height,
                num_answers_without=answers.height - made.height,
            ),
        )

    return answer_sentences


def _answer_sentence_types(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "answer_sentence_types",
        "answer_sentence_types",
        reads={"answer_sentences": "answer_sentences"},
        models=["teacher_model", "student_model"],
        rules=[ANSWER_TYPES],
    )

    @declared.asset(
        group="training_results",
        kinds={"ducklake", "polars"},
        description="One row per sentence of a checkpoint's own answer: its type (teacher, student, shared or boosted) "
        "under the recipe's threshold.",
    )
    def answer_sentence_types(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        models, version = _models(engines, recipe), answer_threshold_version(recipe)
        current = {**models, "segmenter_version": SEGMENTER_VERSION}
        types = typed(warehouse.read(f"SELECT * FROM answer_sentences WHERE {_OF_MODELS}", current), recipe)
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("answer_sentence_types", types)
        return dg.MaterializeResult(
            data_version=content_version([*types.select(*_KEY).unique().iter_rows(), *models.values(), version]),
            metadata=declared.result(
                warehouse, types.height, {**models, "threshold_version": version}, **_type_figures(types)
            ),
        )

    return answer_sentence_types


_OF_MODELS = """teacher_fingerprint = $teacher_fingerprint AND student_fingerprint = $student_fingerprint
    AND segmenter_version = $segmenter_version"""


def _models(engines: Engines, recipe: Recipe) -> dict[str, str]:
    return {
        "teacher_fingerprint": engines.fingerprint(recipe.teacher, "teacher.model"),
        "student_fingerprint": engines.fingerprint(recipe.student, "student.model"),
    }


def typed(sentences: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Rows of `answer_sentence_types` for rows of `answer_sentences`."""
    return sentences.select(
        *_KEY,
        "teacher_fingerprint",
        "student_fingerprint",
        "sentence_index",
        four_types(recipe.selection.divergence).alias("sentence_type"),
        pl.lit(recipe.selection.divergence.threshold).alias("threshold"),
        pl.lit(answer_threshold_version(recipe)).alias("threshold_version"),
    )


def _unsplit(warehouse: Warehouse, answers: pl.DataFrame, models: dict[str, str]) -> Iterator[pl.DataFrame]:
    """Text, and logprobs and offsets under three models, of answers without sentences, a commit's worth at a time.

    All of a part are of one checkpoint. An answer that one of the three has not scored, or not yet, is left out.
    """
    lists = ", ".join(f"{model}.{part} AS {model}_{part}" for model in MODELS for part in ("logprobs", "offsets"))
    query = f"""SELECT answer_id, {lists}
        FROM (SELECT unnest($ids::VARCHAR[]) AS answer_id)
            JOIN (FROM answer_logprobs WHERE checkpoint_id = $teacher_fingerprint) teacher USING (answer_id)
            JOIN (FROM answer_logprobs WHERE checkpoint_id = $student_fingerprint) student USING (answer_id)
            JOIN (FROM answer_logprobs WHERE checkpoint_id = $checkpoint) distilled USING (answer_id)
        WHERE answer_id NOT IN (SELECT answer_id FROM answer_sentences
            WHERE checkpoint_id = $checkpoint AND {_OF_MODELS})"""
    for own in answers.partition_by("checkpoint_id", maintain_order=True):
        checkpoint = own["checkpoint_id"][0]
        for part in own.iter_slices(ANSWERS_PER_COMMIT):
            params = {**models, "segmenter_version": SEGMENTER_VERSION, "ids": part["answer_id"].to_list()}
            found = warehouse.read(query, {**params, "checkpoint": checkpoint})
            rows = found.join(part.select(*_KEY, "text"), on="answer_id").sort("answer_id")
            if rows.height:
                yield rows


def _type_figures(types: pl.DataFrame) -> dict[str, Figure]:
    """The share of each type among the sentences that have one, and how many have none."""
    counts = dict(types["sentence_type"].value_counts().iter_rows())
    num_typed = types.height - counts.pop(None, 0)
    shares = {f"{kind}_share": counts.get(kind, 0) / max(num_typed, 1) for kind in FOUR_TYPES}
    return {"num_untyped": types.height - num_typed, **shares}
