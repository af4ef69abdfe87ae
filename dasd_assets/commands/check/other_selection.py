"""The check of `selection_from` in `dasd check`: another recipe has selected here, from responses that both have."""

from pathlib import Path

from dasd_assets.commands.check.outcome import CheckFailed
from dasd_assets.rules.asset_names import DAS
from dasd_assets.rules.selection_source import source_fault
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake


def other_selection(recipe: Recipe, home: Path, teacher: PromptedModel) -> str:
    """How much the other recipe has selected. Raises CheckFailed where that cannot be trained on."""
    lake = Lake(home=str(home))
    if not lake.catalog.exists():
        raise CheckFailed(f"recipe {recipe.selection_from} has selected nothing: there are no tables in {home} yet")
    if fault := source_fault(lake, recipe, teacher.fingerprint):
        raise CheckFailed(fault)
    query = """SELECT count(*) FROM selected_responses
        WHERE recipe = $recipe AND policy = $policy AND list_contains($datasets, dataset)"""
    params = {"recipe": recipe.selection_from, "policy": DAS, "datasets": list(recipe.datasets)}
    number = int(lake.read(query, params).item())
    return f"{number:,} responses that recipe {recipe.selection_from} has selected; the student scores none of its own"
