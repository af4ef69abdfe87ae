"""Filter verdicts on the whole text, prefix and continuation: `continuation_tokens` -> `continuation_verdicts`.

What was cut off is often a loop, so the prefix is judged with what follows it.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import dagster as dg
import polars as pl

from dasd_assets.mixed_policy.continuations import CONTINUATIONS, continuations_read, current_continuations
from dasd_assets.mixed_policy.distilled_student import looked_up
from dasd_assets.records.declaration import declare
from dasd_assets.records.partitions import batches
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.unsafe import confinement_of, sandbox_figure
from dasd_assets.rules.filters import FILTERING, FILTERS, continuation_filter_version
from dasd_assets.rules.judging import judge_row, verdict_rows
from dasd_assets.rules.prompt_ids import known_versions
from dasd_assets.rules.stored_tokens import BY_STUDENT, OF_CONTINUATIONS, TEXT_TOKENS, stored_tokens
from dasd_assets.rules.verdict import not_decided
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.verifiers import VERDICTS, in_order

CONTINUATIONS_AT_ONCE = 1024


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`continuation_verdicts`."""
    return [_verdicts(recipe)]


def _verdicts(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "continuation_verdicts",
        "continuation_verdicts",
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
        to_do = to_judge(warehouse, student, continuations)
        judged = partial(judge_row, filters=recipe.filters, thinking=recipe.teacher.thinking, confinement=confinement)
        with VERDICTS.kept_in(Path(warehouse.home)):
            rows = [
                verdict
                for name, found in in_order(to_do, lambda row: (row["continuation_id"], judged(row)))
                for verdict in verdict_rows({"continuation_id": name}, found, version)
            ]
        table = pl.DataFrame(rows, infer_schema_length=None)
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("continuation_verdicts", table)
        judged_by = known_versions(warehouse, continuations["prompt_id"].unique().to_list())
        return dg.MaterializeResult(
            data_version=content_version([*continuations["continuation_id"], version, *judged_by]),
            tags=read,
            metadata=declared.result(
                warehouse,
                len(rows),
                {"filter_version": version},
                {"passed": False},
                **sandbox_figure(confinement),
                num_continuations=continuations.height,
                **not_decided(row["kind"] for row in rows),
                **{
                    f"failed_{name}": sum(not row["passed"] for row in rows if row["filter"] == name)
                    for name in FILTERS
                },
            ),
        )

    return continuation_verdicts


def to_judge(warehouse: Warehouse, student: str, continuations: pl.DataFrame) -> Iterator[Row]:
    """Each continuation as `judge_row` takes it, on the student's tokens of its whole text, a part read at a time."""
    for part in continuations.iter_slices(CONTINUATIONS_AT_ONCE):
        ids, columns = part["continuation_id"].to_list(), f"{TEXT_TOKENS} AS token_ids, {BY_STUDENT}"
        tokens = stored_tokens(warehouse, OF_CONTINUATIONS, columns, student, ids)
        yield from part.join(tokens, on="continuation_id", maintain_order="left").iter_rows(named=True)
