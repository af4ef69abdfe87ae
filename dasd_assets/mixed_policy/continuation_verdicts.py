"""Filter verdicts on the whole text, prefix and continuation: `teacher_continuations` -> `continuation_verdicts`.

What was cut off is often a loop, so the prefix is judged with what follows it.
"""

import dagster as dg
import polars as pl

from dasd_assets.mixed_policy.continuations import CONTINUATIONS, current_continuations, prefixes_read
from dasd_assets.mixed_policy.distilled_student import LOOKED_UP
from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.rules.filters import FILTERING, FILTERS, continuation_filter_version
from dasd_assets.verdicts import judge_row, verdict_rows
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`continuation_verdicts`."""
    return [_verdicts(recipe)]


def _verdicts(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "continuation_verdicts",
        "continuation_verdicts",
        reads={**prefixes_read(recipe), "teacher_continuations": "teacher_continuations"},
        looks_up=LOOKED_UP,
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
        student = engines.find(recipe.student, "student.model")
        version = continuation_filter_version(recipe, student.fingerprint)
        continuations = current_continuations(warehouse, engines, recipe)
        rows = [
            verdict
            for row in continuations.iter_rows(named=True)
            for verdict in verdict_rows(
                {"continuation_id": row["continuation_id"]}, judge_row(row, student.chat, recipe.filters), version
            )
        ]
        table = pl.DataFrame(rows, infer_schema_length=None)
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("continuation_verdicts", table)
        return dg.MaterializeResult(
            data_version=content_version([*continuations["continuation_id"], version]),
            metadata=declared.result(
                warehouse,
                len(rows),
                {"filter_version": version},
                {"passed": False},
                num_continuations=continuations.height,
                **{
                    f"failed_{name}": sum(not row["passed"] for row in rows if row["filter"] == name)
                    for name in FILTERS
                },
            ),
        )

    return continuation_verdicts
