"""The check of `selection_from` in `dasd check`: another recipe has selected here, from responses that both have."""

from pathlib import Path

from dasd_assets.commands.check.outcome import CheckFailed, CheckWarning
from dasd_assets.rules.asset_names import DAS
from dasd_assets.rules.heldout_responses import nothing_typed
from dasd_assets.rules.selection_source import source_fault
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake


def other_selection(recipe: Recipe, home: Path, teacher: PromptedModel, student: PromptedModel | None) -> str:
    """How much the other recipe has selected. Raises CheckFailed where that cannot be trained on.

    Raises CheckWarning where `heldout` would measure nothing.
    """
    lake = Lake(home=str(home))
    if not lake.catalog.exists():
        raise CheckFailed(f"recipe {recipe.selection_from} has selected nothing: there are no tables in {home} yet")
    if fault := source_fault(lake, recipe, teacher.fingerprint):
        raise CheckFailed(fault)
    query = """SELECT count(*) FROM selected_responses
        WHERE recipe = $recipe AND policy = $policy AND list_contains($datasets, dataset)"""
    params = {"recipe": recipe.selection_from, "policy": DAS, "datasets": list(recipe.datasets)}
    number = int(lake.read(query, params).item())
    selected = f"{number:,} responses that recipe {recipe.selection_from} has selected"
    message = f"{selected}; the student scores none of its own"
    if recipe.heldout is not None and student is not None and nothing_typed(lake, recipe, student.fingerprint):
        raise CheckWarning(
            f"{message}, and no recipe here has had it score any, so heldout_losses will have no row: remove heldout, "
            "unless it is there for heldout.questions"
        )
    return message
