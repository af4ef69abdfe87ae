"""Names in a recipe that are entries of a catalogue of rules: checked where a recipe meets the pipeline.

`dasd_resources` validates a recipe's shape and knows no asset, so it cannot know which filters and scores there are.
"""

from collections.abc import Iterable, Mapping

from dasd_assets.rules.filters.catalogue import CORRECTNESS, FILTERS
from dasd_assets.rules.scores import SCORES
from dasd_resources.recipe import Recipe, RecipeError
from dasd_resources.spelling import meant


def check_names(recipe: Recipe) -> None:
    """Raise RecipeError, a line per name, for a score or filter that the recipe names and that there is not."""
    unknown = [
        *_unknown("selection.score", "score", [recipe.selection.score], SCORES),
        *_unknown("checks.max_drop_share", "filter", recipe.checks.max_drop_share, FILTERS),
        *_unknown("filters.required", "filter", recipe.filters.required, FILTERS),
    ]
    if unknown:
        raise RecipeError("\n".join(unknown))
    if CORRECTNESS in recipe.filters.required:
        raise RecipeError(
            f"filters.required: {CORRECTNESS} is required by filters.require_correct: true, which scores wrong "
            "answers but does not select them; leave it out here"
        )
    if recipe.selection.pseudo_count and not SCORES[recipe.selection.score].is_mean:
        means = ", ".join(name for name, score in SCORES.items() if score.is_mean)
        raise RecipeError(
            f"selection.pseudo_count draws means together, and score {recipe.selection.score} is none; set it to 0, or "
            f"take one of {means}"
        )


def _unknown(key: str, what: str, names: Iterable[str], catalogue: Mapping[str, object]) -> list[str]:
    known = ", ".join(catalogue)
    return [
        f"{key}: there is no {what} {name!r}; there are {known}{meant(name, catalogue)}"
        for name in names
        if name not in catalogue
    ]
