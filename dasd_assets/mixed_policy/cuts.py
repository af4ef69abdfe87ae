"""Where the student's part ends: `student_rollouts` that were cut off -> `prefix_cuts`, by `rules/cuts.py`."""

import dagster as dg
import polars as pl

from dasd_assets.mixed_policy.distilled_student import looked_up, student_rollouts_now, wanted_by
from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.rules.cuts import CUT_VERSION, CUTS, cut_row
from dasd_assets.rules.rollouts import texts_of
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import missing
from dasd_resources.storage.warehouse import Warehouse


def cuts_of(warehouse: Warehouse, rollout_ids: pl.Series) -> pl.DataFrame:
    """(rollout_id, cut_char) of these rollouts' cuts by the current rule, in the order of their ids."""
    query = """SELECT rollout_id, cut_char FROM prefix_cuts
        WHERE cut_version = $version AND rollout_id IN (SELECT unnest($ids::VARCHAR[])) ORDER BY rollout_id"""
    return warehouse.read(query, {"version": CUT_VERSION, "ids": rollout_ids.to_list()})


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
        rollouts = student_rollouts_now(warehouse, engines, recipe).filter("cut_off")["rollout_id"]
        todo = missing(rollouts, cuts_of(warehouse, rollouts)["rollout_id"])
        with warehouse.reading() as reading:
            made = [cut_row(row) for row in texts_of(reading, todo, "text, offsets")]
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("prefix_cuts", pl.DataFrame(made, infer_schema_length=None))
        cuts = cuts_of(warehouse, rollouts)
        return dg.MaterializeResult(
            data_version=content_version([*rollouts, CUT_VERSION]),
            metadata=declared.result(
                warehouse, cuts.height, {"cut_version": CUT_VERSION}, num_not_cut=cuts["cut_char"].null_count()
            ),
        )

    return [prefix_cuts]
