"""Prefix and continuation together in the student's tokens: `teacher_continuations` -> `continuation_tokens`.

The teacher's token ids are only of its own part; filters judge the whole text, and the student is trained on it.
"""

import dagster as dg

from dasd_assets.mixed_policy.continuations import (
    CONTINUATIONS,
    continuation_texts,
    continuations_read,
    current_continuations,
)
from dasd_assets.mixed_policy.distilled_student import looked_up
from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.rules.stored_tokens import OF_CONTINUATIONS
from dasd_assets.rules.tokens import TOKENS
from dasd_assets.student_tokens import write_tokens
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import missing
from dasd_resources.storage.passes import ROWS_OF_OBJECTS
from dasd_resources.storage.warehouse import Warehouse


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`continuation_tokens`."""
    declared = declare(
        recipe,
        "continuation_tokens",
        "continuation_tokens",
        reads=continuations_read(recipe),
        looks_up=looked_up(recipe),
        models=["teacher_model", "student_model"],
        rules=[CONTINUATIONS, TOKENS],
    )

    @declared.asset(
        group="training_mixed_policy",
        kinds={"ducklake"},
        description="One row per continuation: prompt, prefix and continuation in the tokens of the student.",
    )
    def continuation_tokens(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model")
        wanted = current_continuations(warehouse, engines, recipe)["continuation_id"]
        query = "SELECT continuation_id FROM continuation_tokens WHERE student_fingerprint = $student"
        present = warehouse.read(query, {"student": student.fingerprint})["continuation_id"]
        todo = missing(wanted, present)
        rows = (
            row
            for part in continuation_texts(warehouse, todo)
            for row in part.with_columns(question="asked").iter_rows(named=True, buffer_size=ROWS_OF_OBJECTS)
        )
        write_tokens(warehouse, OF_CONTINUATIONS, student.chat, student.fingerprint, rows, origin(context))
        return dg.MaterializeResult(
            data_version=content_version([*wanted, student.fingerprint]),
            metadata=declared.result(
                warehouse, wanted.len(), {"student_fingerprint": student.fingerprint}, num_new=len(todo)
            ),
        )

    return [continuation_tokens]
