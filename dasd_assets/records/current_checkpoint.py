"""The current checkpoint that a stage ends with, its folder, and when a newer one is registered.

Where there is none, an error says what to materialize first. A base model is known by its content and may be moved: its
folder is where the recipe names it now, as long as that is the same model. What was trained lies in the home.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg

from dasd_assets.rules.asset_names import checkpoint_asset
from dasd_assets.rules.checkpoints import checkpoint_names, current_checkpoints
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_resources.inference.engines import Engines
from dasd_resources.inference.model_files import find_model
from dasd_resources.recipe import Recipe, RecipeError
from dasd_resources.storage.lake import Reading
from dasd_resources.storage.warehouse import Row, Warehouse


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


def registration_time(reading: Reading, recipe: str, name: str) -> datetime:
    """Now; or just after the newest row of this name, where the clock was set back: the newest is the one in force.

    reading: the transaction that registers a checkpoint. recipe: its name.
    """
    query = "SELECT max(materialized_at) FROM checkpoints WHERE recipe = $recipe AND name = $name"
    newest: datetime | None = reading.read(query, {"recipe": recipe, "name": name}).item()
    now = datetime.now(UTC)
    return now if newest is None else max(now, newest + timedelta(microseconds=1))


def folder_of(warehouse: Warehouse, engines: Engines, recipe: Recipe, row: Row) -> Path:
    """Where a model is now. row: with checkpoint_id, dataset and path, of `checkpoints`."""
    roles = {"teacher": recipe.teacher, "student": recipe.student} if row["dataset"] is None else {}
    for role, spec in roles.items():
        with suppress(RecipeError):  # the recipe's is not here; whoever needs that one says so
            if engines.fingerprint(spec, f"{role}.model") == row["checkpoint_id"]:
                return find_model(spec.model, f"{role}.model")
    return warehouse.folder(str(row["path"]))


def enter_folders(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> None:
    """Enter where base models are now, for what knows no recipe, such as an audit."""
    rows = warehouse.read("SELECT DISTINCT checkpoint_id, dataset, path FROM checkpoints WHERE dataset IS NULL")
    for row in rows.to_dicts():
        path = warehouse.stored_path(folder_of(warehouse, engines, recipe, row))
        if path != row["path"]:
            query = "UPDATE checkpoints SET path = $path WHERE checkpoint_id = $id AND dataset IS NULL"
            with warehouse.commit(f"model {row['checkpoint_id']} was moved") as transaction:
                transaction.read(query, {"path": path, "id": row["checkpoint_id"]})
