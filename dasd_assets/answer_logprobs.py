"""Raw logprobs of the checkpoints' own answers to held-out questions (report §4, Figures 5 and 6).

`evaluations` -> `answer_logprobs`, a ledger: teacher and undistilled student score every answer of the recipe's sample,
each checkpoint those that it gave. What is scored is the canonical text, by a forward pass, in each model's own tokens.
Left out: a teacher that is not here. Without it nothing can be said of an answer, so nothing is scored at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
import polars as pl

from dasd_assets.evaluation.answers import Checkpoint
from dasd_assets.evaluation.evaluations import chain
from dasd_assets.records.column_lineage import Sources
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import retry_tags
from dasd_assets.rules.answers import ANSWERS, answer_logprobs_id, answer_tokens, sampled_answers
from dasd_assets.rules.asset_names import ROLES
from dasd_assets.rules.checkpoints import chain_reads
from dasd_resources.chat import Encoded
from dasd_resources.inference.engine import Failure, Score, ScoringRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel, once_each
from dasd_resources.recipe import Model, Recipe
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse

ANSWERS_PER_SCORING = 256  # of 80,000 tokens, as Python objects: 0.7 GB
ANSWERS_PER_COMMIT = 64  # rows of three such lists


@dataclass(frozen=True)
class Scorer:
    """A checkpoint, its model, and the answers that it is to score, see `to_score`."""

    checkpoint: Checkpoint
    model: PromptedModel
    answers: pl.DataFrame


def answers_read(recipe: Recipe) -> Sources:
    """Table -> assets: what decides which answers are sampled."""
    return {
        "evaluations": "evaluations",
        "evaluation_requests": "evaluations",
        "benchmark_questions": "benchmark_questions",
        **chain_reads(recipe),
    }


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`answer_logprobs`, for a recipe with `provenance`."""
    return [] if recipe.provenance is None else [_answer_logprobs(recipe)]


def _answer_logprobs(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "answer_logprobs",
        ["answer_logprobs", "failed_requests"],
        reads=answers_read(recipe),
        rules=[ANSWERS],
    )

    @declared.asset(
        group="training_results",
        kinds={"ducklake", ENGINES[recipe.student.engine].ui_kind},
        loads_model=True,
        description="One row per answer and model: raw logprobs of a checkpoint's own answer to a held-out question "
        "under the teacher, the undistilled student and that checkpoint.",
    )
    def answer_logprobs(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        if ENGINES[recipe.teacher.engine].absent:
            why = f"teacher {recipe.teacher.stands_for} is not here to score them"
            context.log.warning(f"no answers are scored: {why}")
            return dg.MaterializeResult(
                data_version=content_version([]), metadata=declared.result(warehouse, 0, {}, not_scored=why)
            )
        ledgers, wanted, present = [], list[str](), set(_present(warehouse))
        for scorer in scorers(warehouse, engines, recipe):
            ids = scorer.answers["answer_logprobs_id"].to_list()
            todo = missing(ids, present)
            ledgers.append((_score(context, warehouse, engines, scorer, todo), scorer.model.spec))
            wanted += ids
        return _result(warehouse, wanted, ledgers, declared)

    return answer_logprobs


def scorers(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> Iterator[Scorer]:
    """Teacher, student and each current checkpoint, with the answers that each is to score."""
    answers = sampled_answers(warehouse, recipe)
    for one in chain(warehouse, engines, recipe):
        model = engines.find(one.spec, f"checkpoint {one.checkpoint_id}")
        yield Scorer(one, model, to_score(answers, one.name, one.checkpoint_id))


def to_score(answers: pl.DataFrame, name: str, checkpoint_id: str) -> pl.DataFrame:
    """The answers that a model is to score, each text once: all of them for teacher and student, else its own.

    answers: see `sampled_answers`. Returns their rows, with answer_logprobs_id.
    """
    own = answers if name in ROLES else answers.filter(pl.col("checkpoint_id") == checkpoint_id)
    own = own.unique("answer_id", keep="first", maintain_order=True)
    ids = [answer_logprobs_id(answer_id, checkpoint_id) for answer_id in own["answer_id"]]
    return own.with_columns(answer_logprobs_id=pl.Series(ids, dtype=pl.String))


def scored_rows(engines: Engines, scorer: Scorer, ids: list[str]) -> Iterator[Row | Failure]:
    """The `answer_logprobs` row of each answer, or why it has none; with nothing to do, no model is loaded."""
    if not ids:
        return
    todo = scorer.answers.filter(pl.col("answer_logprobs_id").is_in(ids))
    with engines.open(scorer.model) as engine:
        for part in todo.iter_slices(ANSWERS_PER_SCORING):
            answers = {row["answer_logprobs_id"]: row for row in part.iter_rows(named=True)}
            tokens = {key: answer_tokens(scorer.model.chat, answer, key) for key, answer in answers.items()}
            yield from (refused for refused in tokens.values() if isinstance(refused, Failure))
            encoded = {key: found for key, found in tokens.items() if isinstance(found, Encoded)}
            requests = [ScoringRequest(key, tuple(e.token_ids), e.num_prompt_tokens) for key, e in encoded.items()]
            for result in once_each(requests, engine.score(requests)):
                if isinstance(result, Failure):
                    yield result
                else:
                    yield answer_row(scorer, answers[result.request_id], result, encoded[result.request_id])


def answer_row(scorer: Scorer, answer: Row, score: Score, encoded: Encoded) -> Row:
    """The `answer_logprobs` row of a scored answer."""
    return {
        "answer_logprobs_id": score.request_id,
        "answer_id": answer["answer_id"],
        "question_id": answer["question_id"],
        "checkpoint_id": scorer.checkpoint.checkpoint_id,
        "engine": scorer.model.spec.engine,
        "dtype": scorer.model.spec.dtype,
        "token_ids": encoded.token_ids[encoded.num_prompt_tokens :],
        "logprobs": score.logprobs,
        "offsets": encoded.offsets,
    }


def _score(
    context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines, scorer: Scorer, ids: list[str]
) -> Ledger:
    """Have these answers scored; returns the closed ledger."""
    with Ledger(warehouse, "answer_logprobs", origin(context), max_rows=ANSWERS_PER_COMMIT) as ledger:
        rows = scored_rows(engines, scorer, ids)
        unit = f"answers scored by {scorer.checkpoint.name}"
        ledger.collect(logged(rows, len(ids), unit, context.log.info), lambda row: row)
    return ledger


def _present(warehouse: Warehouse) -> pl.Series:
    return warehouse.read("SELECT answer_logprobs_id FROM answer_logprobs")["answer_logprobs_id"]


def _result(
    warehouse: Warehouse, wanted: list[str], ledgers: list[tuple[Ledger, Model]], declared: Declaration
) -> dg.MaterializeResult:
    done = set(wanted) & set(_present(warehouse))
    return dg.MaterializeResult(
        data_version=content_version(done),
        tags=retry_tags(ledgers),
        metadata=declared.result(
            warehouse,
            len(done),
            {},
            num_new=sum(ledger.num_added for ledger, _ in ledgers),
            num_failed=len(wanted) - len(done),
        ),
    )
