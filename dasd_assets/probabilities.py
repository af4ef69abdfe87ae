"""Both models' probability of every sentence (report §4).

`responses` that passed the filters -> `student_logprobs` (one forward pass of the undistilled student over the same
canonical text, under its own template) -> `sentence_probabilities`, from which everything later is cheap to redo.
"""

from collections.abc import Iterator

import dagster as dg
import numpy as np
import polars as pl

from dasd_assets.partitions import PROMPT_BATCH
from dasd_assets.pool import responses_to_score
from dasd_assets.progress import logged
from dasd_assets.provenance import content_version, origin
from dasd_assets.sentences import SEGMENTER_VERSION, edges, mean_probs, sentence_spans
from dasd_assets.staleness import retry_tag
from dasd_resources.chat import Encoded
from dasd_resources.engine import Score, ScoringRequest
from dasd_resources.engines import Engines, PromptedModel
from dasd_resources.ledger import Ledger
from dasd_resources.recipe import Recipe
from dasd_resources.warehouse import Row, Warehouse

SCORING_VERSION = "1"
RESPONSES_PER_COMMIT = 2000


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


def sentence_rows(response: Row) -> pl.DataFrame:
    """One row per sentence of a response: span, and sum and number of token logprobs under both models.

    `response` holds text, and logprobs and offsets of teacher and student (`teacher_logprobs`, `student_offsets`, …).
    """
    text = response["text"]
    spans = sentence_spans(text)
    where = edges(text, spans)
    teacher_sums, teacher_counts = where.sums(response["teacher_logprobs"], response["teacher_offsets"])
    student_sums, student_counts = where.sums(response["student_logprobs"], response["student_offsets"])
    bounds = np.asarray(spans, dtype=np.int32).reshape(-1, 2)
    return pl.DataFrame(
        {
            "sentence_index": np.arange(len(spans), dtype=np.int32),
            "start": bounds[:, 0],
            "stop": bounds[:, 1],
            "teacher_sum_logprob": teacher_sums,
            "teacher_num_tokens": teacher_counts.astype(np.int32),
            "student_sum_logprob": student_sums,
            "student_num_tokens": student_counts.astype(np.int32),
            "teacher_prob": mean_probs(teacher_sums, teacher_counts),
            "student_prob": mean_probs(student_sums, student_counts),
        }
    ).with_columns(pl.col("teacher_prob", "student_prob").fill_nan(None), response_id=pl.lit(response["response_id"]))


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`student_logprobs` and `sentence_probabilities`."""
    return [_student_logprobs(recipe), _sentence_probabilities(recipe)]


def _student_logprobs(recipe: Recipe) -> dg.AssetsDefinition:
    @dg.asset(
        partitions_def=PROMPT_BATCH,
        deps=["response_verdicts", "student_model"],
        group_name="probabilities",
        kinds={"duckdb"},
        pool="engine",
        code_version=SCORING_VERSION + recipe.version("filters.apply", "parity"),
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
        encoded = {key: student.chat.encode_response(*texts) for key, *texts in todo.iter_rows()}
        requests = [ScoringRequest(key, tuple(e.token_ids), e.num_prompt_tokens) for key, e in encoded.items()]
        key = ("response_id", "student_fingerprint")
        with Ledger(warehouse, "student_logprobs", key, origin(context), batch) as ledger:
            scores = logged(engines.score(student, requests), len(requests), "responses scored", context.log.info)
            ledger.collect(scores, lambda score: student_row(score, encoded[score.request_id], batch, student))
        done = set(pool["response_id"]) & set(_present(warehouse, batch, student))
        return dg.MaterializeResult(
            data_version=content_version([*done, student.fingerprint]),
            tags=retry_tag(ledger.num_retryable),
            metadata={
                "dagster/row_count": len(done),
                "num_new": ledger.num_added,
                "num_failed": pool.height - len(done),
                "num_tokens": sum(len(e.token_ids) for e in encoded.values()),
            },
        )

    return student_logprobs


def _present(warehouse: Warehouse, batch: str, student: PromptedModel) -> pl.Series:
    query = "SELECT response_id FROM student_logprobs WHERE batch = $batch AND student_fingerprint = $student"
    return warehouse.read(query, {"batch": batch, "student": student.fingerprint})["response_id"]


def _sentence_probabilities(recipe: Recipe) -> dg.AssetsDefinition:
    @dg.asset(
        partitions_def=PROMPT_BATCH,
        deps=["student_logprobs"],
        group_name="probabilities",
        kinds={"duckdb", "polars"},
        code_version=SEGMENTER_VERSION,
        description="One row per sentence of a scored response: its logprob sum and token count under both models.",
    )
    def sentence_probabilities(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model")
        batch = context.partition_key
        for rows in _unsplit(warehouse, batch, student):
            table = pl.concat([sentence_rows(row) for row in rows.iter_rows(named=True)]).with_columns(
                batch=pl.lit(batch),
                student_fingerprint=pl.lit(student.fingerprint),
                segmenter_version=pl.lit(SEGMENTER_VERSION),
            )
            with warehouse.commit(origin(context)) as transaction:
                key = ("response_id", "student_fingerprint", "segmenter_version", "sentence_index")
                transaction.append_missing("sentence_probabilities", key, table, batch)
        sentences = _sentences(warehouse, batch, student)
        return dg.MaterializeResult(
            data_version=content_version(
                [*_present(warehouse, batch, student), student.fingerprint, SEGMENTER_VERSION]
            ),
            metadata={"dagster/row_count": sentences},
        )

    return sentence_probabilities


def _unsplit(warehouse: Warehouse, batch: str, student: PromptedModel) -> Iterator[pl.DataFrame]:
    """Scored responses that have no sentences of this segmenter version yet, a commit's worth at a time."""
    query = """SELECT r.response_id, r.text, r.logprobs AS teacher_logprobs, r.offsets AS teacher_offsets,
            s.logprobs AS student_logprobs, s.offsets AS student_offsets
        FROM student_logprobs s JOIN responses r USING (response_id)
        WHERE s.batch = $batch AND r.batch = $batch AND s.student_fingerprint = $student
          AND s.response_id NOT IN (SELECT response_id FROM sentence_probabilities
            WHERE batch = $batch AND student_fingerprint = $student AND segmenter_version = $version)
          AND r.response_id > $after
        ORDER BY r.response_id LIMIT $limit"""
    params = {
        "batch": batch,
        "student": student.fingerprint,
        "version": SEGMENTER_VERSION,
        "limit": RESPONSES_PER_COMMIT,
    }
    after = ""
    while not (rows := warehouse.read(query, {**params, "after": after})).is_empty():
        yield rows
        after = rows["response_id"][-1]


def _sentences(warehouse: Warehouse, batch: str, student: PromptedModel) -> int:
    query = """SELECT count(*) FROM sentence_probabilities
        WHERE batch = $batch AND student_fingerprint = $student AND segmenter_version = $version"""
    params = {"batch": batch, "student": student.fingerprint, "version": SEGMENTER_VERSION}
    return int(warehouse.read(query, params).item())
