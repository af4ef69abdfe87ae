"""The undistilled student's raw logprobs of every candidate (report §4): one forward pass over the canonical text.

`responses` that passed the filters -> `student_logprobs`, under the student's own chat template.
"""

from collections.abc import Iterator

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import retry_tag
from dasd_assets.rules.candidates import CANDIDATES, responses_to_score, to_score_params
from dasd_assets.rules.filters import FILTERING, filter_version, required_filters
from dasd_assets.rules.rule import Rule
from dasd_resources.chat import Encoded, UnsupportedQuestion
from dasd_resources.inference.engine import Failure, Score, ScoringRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel, once_each
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import Ledger
from dasd_resources.storage.warehouse import Row, Warehouse

SCORING_VERSION = "1"
SCORING = Rule("scoring", SCORING_VERSION)
RESPONSES_PER_SCORING = 1024


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
        except UnsupportedQuestion as error:
            refused.append(Failure(key, str(error), "unsupported_question"))
    return encoded, refused


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`student_logprobs`."""
    return [_student_logprobs(recipe)]


def _student_logprobs(recipe: Recipe) -> dg.AssetsDefinition:
    generations = [f"teacher_generations_{dataset}" for dataset in recipe.datasets]
    declared = declare(
        recipe,
        "student_logprobs",
        ["student_logprobs", "failed_requests"],
        reads={"response_verdicts": "response_verdicts"},
        looks_up={"responses": generations, "prompts": "prompts"},
        models=["teacher_model", "student_model"],
        rules=[SCORING, CANDIDATES, FILTERING],
        parts=[
            "filters.apply",
            "generation.temperatures",
            *[f"parity.{part}" for part in ("num_responses", "max_tokens", "student")],  # the check blocks what follows
        ],
    )

    @declared.asset(
        group="scores",
        kinds={"ducklake", ENGINES[recipe.student.engine].ui_kind},
        pool="engine",
        description="One row per response in the pool: raw logprobs of its text under the undistilled student.",
    )
    def student_logprobs(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model")
        teacher = engines.find(recipe.teacher, "teacher.model")
        batch = context.partition_key
        version = filter_version(recipe, student.fingerprint)
        params = to_score_params(recipe, teacher.fingerprint, batch, version, required_filters(False))
        pool = responses_to_score(warehouse, params)
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
            metadata=declared.result(
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
