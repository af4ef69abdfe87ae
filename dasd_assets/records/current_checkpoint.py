"""The current checkpoint of a stage, or an error that says what to materialize first."""

import dagster as dg
import polars as pl

from dasd_assets.rules.asset_names import checkpoint_asset
from dasd_assets.rules.checkpoints import current_checkpoints
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def current_checkpoint(warehouse: Warehouse, recipe: Recipe, name: str) -> dict[str, object]:
    """The `checkpoints` row of that name. Raises dg.Failure, naming the asset to materialize, if there is none."""
    chain = current_checkpoints(warehouse, recipe).filter(pl.col("name") == name)
    if chain.is_empty():
        raise dg.Failure(f"there is no current checkpoint of {name}: materialize {checkpoint_asset(name)} first")
    return chain.row(0, named=True)
