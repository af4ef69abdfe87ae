"""Where the student's part ends: `student_rollouts` that were cut off -> `prefix_cuts`, by `rules/cuts.py`."""

import dagster as dg
import polars as pl

from dasd_assets.mixed_policy.distilled_student import looked_up, student_rollouts_now, wanted_by
from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.rules.cuts import CUT_VERSION, CUTS, cut_row
from dasd_assets.rules.rollouts import cut_off_texts
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`prefix_cuts`."""
    declared = declare(
        recipe,
        "prefix_cuts",
        "prefix_cuts",
        reads={**wanted_by(recipe), "student_rollouts": "student_rollouts"},
        looks_up=looked_up(recipe),
        models=["student_model"],
        rules=[CUTS],
    )

    @declared.asset(
        group="training_mixed_policy",
        kinds={"ducklake"},
        description="One row per rollout that was cut off: how much of it the teacher is given to continue.",
    )
    def prefix_cuts(context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines) -> dg.MaterializeResult:
        rollouts = student_rollouts_now(warehouse, engines, recipe).filter("cut_off")
        rows = pl.DataFrame([cut_row(row) for row in cut_off_texts(warehouse, rollouts)], infer_schema_length=None)
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("prefix_cuts", rows)
        return dg.MaterializeResult(
            data_version=content_version([*rollouts["rollout_id"], CUT_VERSION]),
            metadata=declared.result(
                warehouse,
                rows.height,
                {"cut_version": CUT_VERSION},
                num_not_cut=rows["cut_token"].null_count() if rows.height else 0,
            ),
        )

    return [prefix_cuts]
