"""The current checkpoint that a stage ends with, or an error that says what to materialize first."""

import dagster as dg

from dasd_assets.rules.asset_names import checkpoint_asset
from dasd_assets.rules.checkpoints import checkpoint_names, current_checkpoints
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def current_checkpoint(warehouse: Warehouse, recipe: Recipe, name: str) -> dict[str, object]:
    """The `checkpoints` row of that name; of the one before it where that stage was skipped, its dataset being empty.

    Raises dg.Failure, naming the asset to materialize, if there is none.
    """
    names, empty = checkpoint_names(recipe), empty_datasets(warehouse, recipe.name)
    chain = {str(row["name"]): row for row in current_checkpoints(warehouse, recipe).iter_rows(named=True)}
    for stage in reversed(names[: names.index(name) + 1]):
        if stage in chain:
            return chain[stage]
        if stage not in empty:
            raise dg.Failure(f"there is no current checkpoint of {stage}: materialize {checkpoint_asset(stage)} first")
    raise AssertionError("the student is no dataset, so never an empty one")
