"""How long each response is: `responses` -> `response_lengths`. A stage as docs/extending.md adds it to dasd_assets."""

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.rules.rule import Rule
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse

LENGTHS_VERSION = "1"  # raise it when a length can change
LENGTHS = Rule("lengths", LENGTHS_VERSION)
MEASURED = """SELECT response_id, batch, length(text) AS num_characters, len(token_ids) AS num_tokens,
    $lengths_version AS lengths_version FROM responses WHERE batch = $batch"""


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`response_lengths`."""
    declared = declare(
        recipe,
        "response_lengths",
        "response_lengths",
        reads={"responses": [f"teacher_generations_{dataset}" for dataset in recipe.datasets]},
        rules=[LENGTHS],
    )

    @declared.asset(group="responses", kinds={"ducklake"}, description="One row per response: how long it is.")
    def response_lengths(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        current = {"batch": context.partition_key, "lengths_version": LENGTHS_VERSION}
        with warehouse.commit(origin(context)) as transaction:
            lengths = transaction.read(MEASURED, current)
            transaction.append_missing("response_lengths", lengths, context.partition_key)
        return dg.MaterializeResult(
            data_version=content_version([*lengths["response_id"], LENGTHS_VERSION]),
            metadata=declared.result(
                warehouse,
                lengths.height,
                current,
                mean_num_tokens=lengths.select(pl.mean("num_tokens")).item(),
            ),
        )

    return [response_lengths]
