"""The check of `experiments` in `dasd check`: the recipe can make the experiments that it names."""

from pathlib import Path

from dasd_assets.commands.check.outcome import CheckWarning
from dasd_resources.recipe import Recipe, RecipeError
from dasd_resources.recipe.experiment_files import experiments_of


def experiments(recipe: Recipe, home: Path) -> str:
    """Which it can make. Raises CheckWarning for those that it cannot: no run needs them."""
    found = list(experiments_of(recipe, home))
    if faults := [str(one) for one in found if isinstance(one, RecipeError)]:
        raise CheckWarning("\n".join(faults))
    return ", ".join(one.name for one in found if not isinstance(one, RecipeError))
