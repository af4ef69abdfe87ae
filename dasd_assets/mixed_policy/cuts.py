"""Where the student's part ends: `student_rollouts` that were cut off -> `prefix_cuts`.

A rollout of L tokens keeps a number of them drawn uniformly from [⌈L/2⌉, L-1] (report: a random position beyond half),
moved to the nearest token before it, else after it, that starts a new character outside a delimiter, so that the prefix
is whole text; never to before the half.
"""

import math
import random
from collections.abc import Sequence

import dagster as dg
import polars as pl

from dasd_assets.generations import seed_of
from dasd_assets.mixed_policy.rollouts import current_rollouts
from dasd_assets.records.code_versions import of_code
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import table
from dasd_resources.chat import Aligned, cut_points
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Row, Warehouse

CUT_VERSION = "2"
CUTS = table("prefix_cuts", student_rollouts="student_rollouts").made_with(of_code(cuts=CUT_VERSION))


def draw_cut(num_tokens: int, admissible: Sequence[int], seed: int) -> int | None:
    """How many of a rollout's tokens to keep, or None if there is no admissible point beyond half.

    admissible: indices of the tokens before which the rollout may be cut.
    """
    half = math.ceil(num_tokens / 2)
    drawn = random.Random(seed).randint(half, max(num_tokens - 1, half))
    points = [point for point in admissible if max(half, 1) <= point < num_tokens]
    before = [point for point in points if point <= drawn]
    return max(before) if before else min(points, default=None)


def cut_row(rollout: Row) -> Row:
    """The `prefix_cuts` row of a rollout: tokens and code points kept, or the reason why it cannot be cut."""
    seed = seed_of(f"cut {rollout['rollout_id']}")
    text, offsets = rollout["text"], rollout["offsets"]
    cut = draw_cut(len(offsets), cut_points(Aligned(text, offsets, tool_call=False)), seed)
    return {
        "rollout_id": rollout["rollout_id"],
        "cut_token": cut,
        "cut_char": None if cut is None else offsets[cut],
        "seed": seed,
        "reason": None if cut is not None else "no token beyond half starts a character outside a delimiter",
        "cut_version": CUT_VERSION,
    }


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`prefix_cuts`."""

    @dg.asset(
        deps=["student_rollouts"],
        group_name="training_mixed_policy",
        kinds={"ducklake"},
        metadata=CUTS.definition,
        code_version=CUTS.code_version,
        description="One row per rollout that was cut off: how much of it the teacher is given to continue.",
    )
    def prefix_cuts(context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines) -> dg.MaterializeResult:
        rollouts = current_rollouts(warehouse, engines, recipe).filter("cut_off")
        rows = pl.DataFrame([cut_row(row) for row in rollouts.iter_rows(named=True)], infer_schema_length=None)
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("prefix_cuts", rows)
        return dg.MaterializeResult(
            data_version=content_version(rollouts["rollout_id"]),
            metadata=CUTS.result(
                warehouse,
                rows.height,
                {"cut_version": CUT_VERSION},
                num_not_cut=rows["cut_token"].null_count() if rows.height else 0,
            ),
        )

    return [prefix_cuts]
