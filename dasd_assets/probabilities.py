"""Both models' probability of every sentence (report §4).

`responses` that passed the filters -> `student_logprobs` (one forward pass of the undistilled student over the same
canonical text, under its own template) -> `sentence_probabilities`, from which everything later is cheap to redo.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import dagster as dg
import numpy as np
import polars as pl
from numpy.typing import NDArray

from dasd_assets.generations import KINDS
from dasd_assets.records.code_versions import code_version, of_code
from dasd_assets.records.partitions import PROMPT_BATCH
from dasd_assets.records.plots import inline, probability_densities, shape
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import table
from dasd_assets.rules.pool import responses_to_score
from dasd_assets.rules.sentences import SEGMENTER_VERSION, Edges, Floats, Ints, edges, mean_probs, sentence_spans
from dasd_assets.service.staleness import retry_tag
from dasd_resources.chat import Encoded, UnfitQuestion
from dasd_resources.inference.engine import Failure, Score, ScoringRequest
from dasd_resources.inference.engines import Engines, PromptedModel, once_each
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import Ledger
from dasd_resources.storage.warehouse import Row, Warehouse

SCORING_VERSION = "1"
RESPONSES_PER_COMMIT = 2000
RESPONSES_PER_SCORING = 1024
PROBS = """SELECT teacher_prob AS teacher, student_prob AS student FROM sentence_probabilities WHERE batch = $batch
    AND student_fingerprint = $student_fingerprint AND segmenter_version = $segmenter_version"""


def student_row(score: Score, encoded: Encoded, batch: str, student: PromptedModel) -> Row:
    """The `student_logprobs` row of a scored response: its tokens after the prompt, end of turn included."""
    return {
        "response_id": score.request_id,
        "batch": batch,
        "student_fingerprint": student.fingerprint,
        "engine": student.spec.engine,
        "dtype": student.spec.dtype,
        "token_ids": encoded.token_ids[encoded.num_prompt_tokens :],
        "logprobs": score.logprobs,
        "offsets": encoded.offsets,
    }


def scored_rows(
    engines: Engines, student: PromptedModel, responses: pl.DataFrame, batch: str
) -> Iterator[Row | Failure]:
    """The `student_logprobs` row of each response, or why it has none; with nothing to do, no model is loaded.

    responses: response_id, question, text, system_prompt. Token ids are made for a part of them at a time: as Python
    objects they take twenty times as much memory as the text.
    """
    if responses.is_empty():
        return
    with engines.open(student) as engine:
        for part in responses.iter_slices(RESPONSES_PER_SCORING):
            encoded, refused = _encode(part, student)
            yield from refused
            requests = [ScoringRequest(key, tuple(e.token_ids), e.num_prompt_tokens) for key, e in encoded.items()]
            for result in once_each(requests, engine.score(requests)):
                if isinstance(result, Failure):
                    yield result
                else:
                    yield student_row(result, encoded[result.request_id], batch, student)


def _encode(responses: pl.DataFrame, student: PromptedModel) -> tuple[dict[str, Encoded], list[Failure]]:
    encoded, refused = dict[str, Encoded](), list[Failure]()
    for key, question, text, system_prompt in responses.iter_rows():
        try:
            encoded[key] = student.chat.encode_response(question, text, system_prompt)
        except UnfitQuestion as error:
            refused.append(Failure(key, str(error)))
    return encoded, refused


def sentence_table(responses: pl.DataFrame) -> pl.DataFrame:
    """One row per sentence of each response: span, and sum and number of token logprobs under both models.

    responses: response_id, text, and logprobs and offsets of teacher and student (`teacher_logprobs`, …). Lists reach
    numpy without passing through Python objects, and all responses make one table: that is most of the speed.
    """
    texts = responses["text"].to_list()
    spans = [sentence_spans(text) for text in texts]
    bounds = np.asarray([bound for found in spans for bound in found], np.int32).reshape(-1, 2)
    num_sentences = np.asarray([len(found) for found in spans], np.int64)
    where = [edges(text, found) for text, found in zip(texts, spans, strict=True)]
    columns = {
        "response_id": responses["response_id"].gather(np.repeat(np.arange(len(texts)), num_sentences)),
        "sentence_index": np.arange(len(bounds), dtype=np.int32) - _firsts(num_sentences).astype(np.int32),
        "start": bounds[:, 0],
        "stop": bounds[:, 1],
    }
    for model in ("teacher", "student"):
        sums, counts = _sums(where, responses[f"{model}_logprobs"], responses[f"{model}_offsets"])
        columns |= {f"{model}_sum_logprob": sums, f"{model}_num_tokens": counts.astype(np.int32)}
        columns[f"{model}_prob"] = mean_probs(sums, counts)
    return pl.DataFrame(columns).with_columns(pl.col("teacher_prob", "student_prob").fill_nan(None))


def _firsts(num_sentences: Ints) -> Ints:
    """For every sentence, how many the responses before its own have."""
    return np.repeat(np.cumsum(num_sentences) - num_sentences, num_sentences)


def _sums(where: Sequence[Edges], logprobs: pl.Series, offsets: pl.Series) -> tuple[Floats, Ints]:
    """Sum and number of token logprobs of every sentence, response after response."""
    pairs = zip(where, _arrays(logprobs), _arrays(offsets), strict=True)
    found = [sentences.sums(values, starts) for sentences, values, starts in pairs]
    return (
        np.concatenate([sums for sums, _ in found] or [np.zeros(0)]),
        np.concatenate([counts for _, counts in found] or [np.zeros(0, np.int64)]),
    )


def _arrays(lists: pl.Series) -> Iterator[NDArray[np.generic]]:
    """Each row of a list column as a view of the column's one buffer."""
    lists = lists.rechunk()
    values = lists.explode(empty_as_null=False, keep_nulls=False).to_numpy()
    stops = lists.list.len().to_numpy().astype(np.int64).cumsum()
    return (values[start:stop] for start, stop in pairwise([0, *stops.tolist()]))


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`student_logprobs` and `sentence_probabilities`."""
    return [_student_logprobs(recipe), _sentence_probabilities(recipe)]


def _student_logprobs(recipe: Recipe) -> dg.AssetsDefinition:
    generations = [f"teacher_generations_{dataset}" for dataset in recipe.datasets]
    logprobs = table("student_logprobs", responses=generations, prompts="prompts", checkpoints="student_model")
    logprobs = logprobs.made_with(code_version(recipe, "filters.apply", "parity", scoring=SCORING_VERSION))

    @dg.asset(
        partitions_def=PROMPT_BATCH,
        deps=["response_verdicts", "student_model"],
        group_name="scores",
        kinds={"ducklake", KINDS[recipe.student.engine]},
        metadata=logprobs.definition,
        pool="engine",
        code_version=logprobs.code_version,
        description="One row per response in the pool: raw logprobs of its text under the undistilled student.",
    )
    def student_logprobs(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model")
        teacher = engines.find(recipe.teacher, "teacher.model")
        batch = context.partition_key
        pool = responses_to_score(warehouse, recipe, teacher, student, batch)
        present = _present(warehouse, batch, student)
        todo = pool.filter(~pl.col("response_id").is_in(present.implode()))
        num_new_tokens = 0
        with Ledger(warehouse, "student_logprobs", origin(context), batch) as ledger:
            rows = scored_rows(engines, student, todo, batch)
            for row in logged(rows, todo.height, "responses scored", context.log.info):
                if isinstance(row, Failure):
                    ledger.fail(row)
                else:
                    ledger.add(row)
                    num_new_tokens += len(row["token_ids"])
        done = set(pool["response_id"]) & set(_present(warehouse, batch, student))
        return dg.MaterializeResult(
            data_version=content_version([*done, student.fingerprint]),
            tags=retry_tag(ledger.num_retryable),
            metadata=logprobs.result(
                warehouse,
                len(done),
                {"batch": batch, "student_fingerprint": student.fingerprint},
                num_new=ledger.num_added,
                num_failed=pool.height - len(done),
                num_new_tokens=num_new_tokens,
            ),
        )

    return student_logprobs


def _present(warehouse: Warehouse, batch: str, student: PromptedModel) -> pl.Series:
    query = "SELECT response_id FROM student_logprobs WHERE batch = $batch AND student_fingerprint = $student"
    return warehouse.read(query, {"batch": batch, "student": student.fingerprint})["response_id"]


def _sentence_probabilities(recipe: Recipe) -> dg.AssetsDefinition:
    generations = [f"teacher_generations_{dataset}" for dataset in recipe.datasets]
    probabilities = table("sentence_probabilities", responses=generations, student_logprobs="student_logprobs")
    probabilities = probabilities.made_with(of_code(segmenter=SEGMENTER_VERSION))

    @dg.asset(
        partitions_def=PROMPT_BATCH,
        deps=["student_logprobs"],
        group_name="scores",
        kinds={"ducklake", "polars"},
        metadata=probabilities.definition,
        code_version=probabilities.code_version,
        description="One row per sentence of a scored response: its logprob sum and token count under both models.",
    )
    def sentence_probabilities(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model")
        batch = context.partition_key
        write_sentences(warehouse, batch, student.fingerprint, origin(context))
        current = {"batch": batch, "student_fingerprint": student.fingerprint, "segmenter_version": SEGMENTER_VERSION}
        probs = warehouse.read(PROBS, current)
        return dg.MaterializeResult(
            data_version=content_version(
                [*_present(warehouse, batch, student), student.fingerprint, SEGMENTER_VERSION]
            ),
            metadata=probabilities.result(
                warehouse,
                probs.height,
                current,
                mean_teacher_prob=probs.select(pl.mean("teacher")).item(),
                mean_student_prob=probs.select(pl.mean("student")).item(),
                teacher_prob_shape=shape(probs["teacher"].drop_nulls().to_list()),
                student_prob_shape=shape(probs["student"].drop_nulls().to_list()),
                densities=inline(
                    probability_densities({name: probs[name].drop_nulls().to_list() for name in probs.columns})
                ),
            ),
        )

    return sentence_probabilities


def write_sentences(warehouse: Warehouse, batch: str, student: str, origin: str) -> None:
    """Read, split, sum and commit what the batch's scored responses lack, a commit's worth at a time."""
    for rows in _unsplit(warehouse, batch, student):
        table = sentence_table(rows).with_columns(
            batch=pl.lit(batch),
            student_fingerprint=pl.lit(student),
            segmenter_version=pl.lit(SEGMENTER_VERSION),
        )
        with warehouse.commit(origin) as transaction:
            transaction.append_missing("sentence_probabilities", table, batch)


def _unsplit(warehouse: Warehouse, batch: str, student: str) -> Iterator[pl.DataFrame]:
    """Scored responses that have no sentences of this segmenter version yet, a commit's worth at a time."""
    query = """SELECT r.response_id, r.text, r.logprobs AS teacher_logprobs, r.offsets AS teacher_offsets,
            s.logprobs AS student_logprobs, s.offsets AS student_offsets
        FROM student_logprobs s JOIN responses r USING (response_id)
        WHERE s.batch = $batch AND r.batch = $batch AND s.student_fingerprint = $student
          AND s.response_id NOT IN (SELECT response_id FROM sentence_probabilities
            WHERE batch = $batch AND student_fingerprint = $student AND segmenter_version = $version)"""
    params = {"batch": batch, "student": student, "version": SEGMENTER_VERSION}
    with warehouse.reading() as reading:
        yield from reading.stream(query, params, RESPONSES_PER_COMMIT)
