"""Filter verdicts on the whole text, prefix and continuation: `continuation_tokens` -> `continuation_verdicts`.

What was cut off is often a loop, so the prefix is judged with what follows it.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl

from dasd_assets.mixed_policy.continuations import (
    CONTINUATIONS,
    continuation_texts,
    continuations_read,
    current_continuations,
)
from dasd_assets.mixed_policy.distilled_student import looked_up
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.partitions import batches
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.unsafe import confinement_of, sandbox_figure
from dasd_assets.rules.filters.catalogue import FILTERING, FILTERS, continuation_filter_version
from dasd_assets.rules.judging import VERDICTS_PER_COMMIT, judge_row, verdict_figures, verdict_rows
from dasd_assets.rules.prompt_ids import known_versions
from dasd_assets.rules.stored_tokens import BY_STUDENT, OF_CONTINUATIONS, TEXT_TOKENS, rows_with_tokens
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.verifiers.in_order import in_order
from dasd_resources.verifiers.verdict_cache import VERDICTS


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`continuation_verdicts`."""
    return [_verdicts(recipe)]


def _verdicts(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "continuation_verdicts",
        ["continuation_verdicts", "failed_requests"],
        reads={
            **continuations_read(recipe),
            "continuation_tokens": "continuation_tokens",
            "prompts": "prompts",  # a reference answer may land later
        },
        looks_up={name: assets for name, assets in looked_up(recipe).items() if name != "prompts"},
        models=["teacher_model", "student_model"],
        rules=[CONTINUATIONS, FILTERING],
    )

    @declared.asset(
        group="training_mixed_policy",
        kinds={"ducklake"},
        description="One row per continuation and filter: whether prefix and continuation together pass, and why not.",
    )
    def continuation_verdicts(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        read = declared.read_tags(context.instance, batches(context.instance))
        student = engines.fingerprint(recipe.student, "student.model")
        version = continuation_filter_version(recipe, student)
        confinement = confinement_of(recipe, context.log.warning)
        continuations = current_continuations(warehouse, engines, recipe)
        todo = missing(continuations["continuation_id"], _judged(warehouse, version))
        asked = partial(judge_row, filters=recipe.filters, thinking=recipe.teacher.thinking, confinement=confinement)
        with (
            Ledger(warehouse, "continuation_verdicts", origin(context), max_rows=VERDICTS_PER_COMMIT) as ledger,
            VERDICTS.kept_in(Path(warehouse.home)),
        ):
            judged = in_order(to_judge(warehouse, student, todo), lambda row: (row["continuation_id"], asked(row)))
            for name, found in logged(judged, len(todo), "continuations judged", context.log.info):
                for verdict in verdict_rows({"continuation_id": name}, found, version):
                    ledger.add(verdict)
        judged_by = known_versions(warehouse, continuations["prompt_id"].unique().to_list())
        ids, sandbox = continuations["continuation_id"], sandbox_figure(confinement)
        return dg.MaterializeResult(
            data_version=content_version([*ids, version, *judged_by]),
            tags=read,
            metadata=_metadata(warehouse, ids, version, declared, sandbox),
        )

    return continuation_verdicts


def _judged(warehouse: Warehouse, version: str) -> pl.Series:
    """The continuations that have a verdict of every filter."""
    query = """SELECT continuation_id FROM continuation_verdicts WHERE filter_version = $version
        GROUP BY continuation_id HAVING list_has_all(list(filter), $filters::VARCHAR[])"""
    return warehouse.read(query, {"version": version, "filters": list(FILTERS)})["continuation_id"]


def to_judge(warehouse: Warehouse, student: str, ids: Sequence[str]) -> Iterator[Row]:
    """Each continuation as `judge_row` takes it, on the student's tokens of its whole text, few in memory."""
    return rows_with_tokens(continuation_texts(warehouse, ids, _TOKENS, {"student": student}), OF_CONTINUATIONS)


_TOKENS = f"""SELECT s.continuation_id, {TEXT_TOKENS} AS token_ids, {BY_STUDENT}, TRUE AS has_tokens
    FROM continuation_tokens s
    WHERE s.student_fingerprint = $student AND s.continuation_id IN (SELECT unnest($keys::VARCHAR[]))"""


def _metadata(
    warehouse: Warehouse, ids: pl.Series, version: str, declared: Declaration, sandbox: dict[str, str]
) -> dict[str, Any]:
    """ids: of the continuations that are wanted now; the table may hold verdicts on others."""
    query = """SELECT filter, passed, kind, count(*) AS number FROM continuation_verdicts
        WHERE filter_version = $version AND list_contains($filters, filter)
          AND continuation_id IN (SELECT unnest($ids::VARCHAR[])) GROUP BY ALL"""
    counts = warehouse.read(query, {"version": version, "filters": list(FILTERS), "ids": ids.to_list()})
    return declared.result(
        warehouse,
        int(counts["number"].sum()),
        {"filter_version": version},
        {"passed": False},
        **sandbox,
        num_continuations=ids.len(),
        **verdict_figures(counts),
    )
