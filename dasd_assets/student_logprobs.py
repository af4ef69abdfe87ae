"""The undistilled student's raw logprobs of every candidate (report §4): one forward pass over its tokens.

`student_tokens` of the responses that passed the filters -> `student_logprobs`.
"""

from collections.abc import Iterator
from dataclasses import replace

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import retry_tags
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.candidates import CANDIDATES, Params, responses_to_score, to_score_params
from dasd_assets.rules.filters.catalogue import FILTERING, filter_version, required_filters
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.stored_tokens import OF_RESPONSES, require_tokens
from dasd_resources.inference.engine import Failure, Score, ScoringRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel, once_each
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.spool import spooled
from dasd_resources.storage.warehouse import Row, Warehouse

SCORING_VERSION = "1"
STUDENT_SCORING = Rule("scoring", SCORING_VERSION)
RESPONSES_PER_SCORING = 1024  # as Python objects, token ids take ten times as much
TOKENS_PER_SCORING = 8_000_000  # the same for long ones: 300 MB


def student_row(score: Score, batch: str, student: PromptedModel) -> Row:
    """The `student_logprobs` row of a scored response."""
    return {
        "response_id": score.request_id,
        "batch": batch,
        "student_fingerprint": student.fingerprint,
        "engine": student.spec.engine,
        "dtype": student.spec.dtype,
        "logprobs": score.logprobs,
    }


def scored_rows(
    warehouse: Warehouse, engines: Engines, student: PromptedModel, batch: str, ids: list[str]
) -> Iterator[Row | Failure]:
    """The `student_logprobs` row of each response, or why it has none; with nothing to do, no model is loaded."""
    if not ids:
        return
    with (
        spooled(_tokens(warehouse, student.fingerprint, batch, ids), warehouse.home) as parts,
        engines.open(student) as engine,
    ):
        for part in parts:
            for rows in slices_of_tokens(part, TOKENS_PER_SCORING):
                requests, refused = scoring_requests(rows)
                yield from refused
                for result in once_each(requests, engine.score(requests)):
                    yield result if isinstance(result, Failure) else student_row(result, batch, student)


def _tokens(warehouse: Warehouse, student: str, batch: str, ids: list[str]) -> Iterator[pl.DataFrame]:
    """What `scoring_requests` takes, of these responses. Raises NoTokens, at the end, if one has none."""
    query = """SELECT response_id, num_prompt_tokens, token_ids, kind, reason FROM student_tokens
        WHERE batch = $batch AND student_fingerprint = $student AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""
    num_found = 0
    with warehouse.reading() as reading:
        params = {"batch": batch, "student": student, "ids": ids}
        for part in reading.stream(query, params, RESPONSES_PER_SCORING):
            num_found += part.height
            yield part
    require_tokens(num_found, len(ids), OF_RESPONSES.name)


def slices_of_tokens(rows: pl.DataFrame, num_tokens: int) -> Iterator[pl.DataFrame]:
    """The rows in slices of so many token ids together, or of one row that has more."""
    lengths = rows["token_ids"].list.len().fill_null(0).to_list()
    start = total = 0
    for place, length in enumerate(lengths):
        if place > start and total + length > num_tokens:
            yield rows[start:place]
            start, total = place, 0
        total += length
    if start < rows.height:
        yield rows[start:]


def scoring_requests(tokens: pl.DataFrame) -> tuple[list[ScoringRequest], list[Failure]]:
    """What the student is to score, and the responses to questions that it cannot be asked."""
    asked = tokens.filter(pl.col("kind").is_null()).select("response_id", "token_ids", "num_prompt_tokens")
    refused = tokens.filter(pl.col("kind").is_not_null()).select("response_id", "reason", "kind")
    requests = [ScoringRequest(key, tuple(ids), num_prompt) for key, ids, num_prompt in asked.iter_rows()]
    return requests, [Failure(*row) for row in refused.iter_rows()]


def scoring_params(recipe: Recipe, teacher: str, student: str, batch: str) -> Params:
    """The parameters of `responses_to_score` and `num_scored`. teacher, student: their fingerprints."""
    filters = required_filters(False, recipe.filters.required)
    return to_score_params(recipe, teacher, batch, filter_version(recipe, student), filters)


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`student_logprobs`."""
    return [_student_logprobs(recipe)]


def _student_logprobs(recipe: Recipe) -> dg.AssetsDefinition:
    declared = _declaration(recipe)

    @declared.asset(
        group="scores",
        kinds={"ducklake", ENGINES[recipe.student.as_scored.engine].ui_kind},
        loads_model=True,
        description="One row per response in the pool: raw logprobs of its text under the undistilled student.",
    )
    def student_logprobs(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model")
        teacher = engines.fingerprint(recipe.teacher, "teacher.model")
        batch = context.partition_key
        pool = responses_to_score(warehouse, scoring_params(recipe, teacher, student.fingerprint, batch))
        todo = missing(pool, _present(warehouse, batch, student))
        num_new_tokens = 0
        scorer = replace(student, spec=student.spec.as_scored)  # the same weights, wherever they are: engine_parity
        with Ledger(warehouse, "student_logprobs", origin(context), batch) as ledger:
            rows = scored_rows(warehouse, engines, scorer, batch, todo)
            for row in logged(rows, len(todo), "responses scored", context.log.info):
                if isinstance(row, Failure):
                    ledger.fail(row)
                else:
                    ledger.add(row)
                    num_new_tokens += len(row["logprobs"])
        done = set(pool) & set(_present(warehouse, batch, student))
        return dg.MaterializeResult(
            data_version=content_version([*done, student.fingerprint]),
            tags=retry_tags([(ledger, student.spec)]),
            metadata=declared.result(
                warehouse,
                len(done),
                {"batch": batch, "student_fingerprint": student.fingerprint},
                num_new=ledger.num_added,
                num_failed=len(pool) - len(done),
                num_new_tokens=num_new_tokens,
            ),
        )

    return student_logprobs


def _declaration(recipe: Recipe) -> Declaration:
    return declare(
        recipe,
        "student_logprobs",
        ["student_logprobs", "failed_requests"],
        reads={"response_verdicts": "response_verdicts", "prompts": "prompts"},  # a withdrawal may be undone in between
        looks_up={"responses": list(map(generation_asset, recipe.datasets)), "student_tokens": "student_tokens"},
        models=["teacher_model", "student_model"],
        rules=[STUDENT_SCORING, CANDIDATES, FILTERING],
        parts=[
            "filters.apply",
            "filters.required",
            "generation.temperatures",
            "selection_from",
            *[f"parity.{part}" for part in ("num_responses", "max_tokens", "student")],  # the check blocks what follows
        ],
    )


def _present(warehouse: Warehouse, batch: str, student: PromptedModel) -> pl.Series:
    query = "SELECT response_id FROM student_logprobs WHERE batch = $batch AND student_fingerprint = $student"
    return warehouse.read(query, {"batch": batch, "student": student.fingerprint})["response_id"]
