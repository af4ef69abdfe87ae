"""The student that rolls out: the checkpoint of the last off-policy stage; and what its rollouts are wanted by."""

import polars as pl

from dasd_assets.records.column_lineage import Sources
from dasd_assets.records.current_checkpoint import current_checkpoint, folder_of
from dasd_assets.rules.asset_names import checkpoint_asset, dataset_asset, generation_asset, selection_asset
from dasd_assets.rules.rollouts import current_rollouts
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def distilled_checkpoint(warehouse: Warehouse, recipe: Recipe) -> dict[str, object]:
    """Its `checkpoints` row."""
    return current_checkpoint(warehouse, recipe, recipe.last_dataset)


def distilled_student(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> tuple[str, PromptedModel]:
    """Its checkpoint id, and the model as the recipe prompts the student."""
    row = distilled_checkpoint(warehouse, recipe)
    spec = recipe.student.model_copy(update={"model": str(folder_of(warehouse, engines, recipe, row))})
    return str(row["checkpoint_id"]), engines.find(spec, f"checkpoint {row['checkpoint_id']}")


def student_rollouts_now(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> pl.DataFrame:
    """`rules.rollouts.current_rollouts` of this recipe's distilled student."""
    checkpoint = str(distilled_checkpoint(warehouse, recipe)["checkpoint_id"])
    undistilled = engines.fingerprint(recipe.student, "student.model")
    return current_rollouts(warehouse, recipe, undistilled, checkpoint)


def wanted_by(recipe: Recipe) -> Sources:
    """Table -> asset: what decides which rollouts, cuts and continuations a recipe wants now."""
    return {
        "selected_responses": selection_asset(recipe.last_dataset),
        "sft_examples": dataset_asset(recipe.last_dataset),
        "checkpoints": checkpoint_asset(recipe.last_dataset),
        "empty_datasets": (),
    }


def looked_up(recipe: Recipe) -> Sources:
    """Table -> assets: what is found by the ids in these."""
    responses = list(map(generation_asset, recipe.datasets))
    return {"student_tokens": "student_tokens", "prompts": "prompts", "responses": responses}
