"""The current checkpoint of a stage, or an error that says what to materialize first."""

import dagster as dg
import polars as pl

from dasd_assets.rules.checkpoints import current_checkpoints
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def current_checkpoint(warehouse: Warehouse, recipe: Recipe, stage: str, asset: str) -> dict[str, object]:
    """The `checkpoints` row of a stage. Raises dg.Failure, naming the asset to materialize, if there is none."""
    chain = current_checkpoints(warehouse, recipe).filter(pl.col("stage") == stage)
    if chain.is_empty():
        raise dg.Failure(f"there is no current checkpoint of {stage}: materialize {asset} first")
    return chain.row(0, named=True)
