"""An id that names a rule changes with every part of the recipe that the rule declares: none is listed twice."""

from collections.abc import Callable

import pytest
from noted import leaves
from test_declarations import another, replaced

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.scores import DIVERGENCE, threshold_version
from dasd_assets.rules.selection import SELECTION, selection_version
from dasd_assets.training import TRAINING, training_version
from dasd_resources.recipe import Recipe, load_recipe

VERSIONS: list[tuple[Rule, Callable[[Recipe], str]]] = [
    (DIVERGENCE, threshold_version),
    (SELECTION, selection_version),
    (TRAINING, lambda recipe: training_version(recipe, "t060")),
]


@pytest.mark.parametrize(("rule", "version"), VERSIONS, ids=[rule.name for rule, _ in VERSIONS])
def test_every_part_of_the_rule_changes_the_id(rule: Rule, version: Callable[[Recipe], str]) -> None:
    recipe = load_recipe("demo")
    read = {leaf: value for leaf, value in leaves(recipe).items() if leaf.startswith(rule.parts)}
    read |= {part: recipe.parts(part)[part] for part in rule.parts if part.endswith("dtype")}  # of a model
    changed = {leaf: version(replaced(recipe, leaf, another(value))) for leaf, value in read.items()}
    assert [leaf for leaf, found in changed.items() if found == version(recipe)] == []
    assert changed


def test_the_ids_of_the_demo_are_those_of_homes_made_before() -> None:
    """Another id would train again, and score again, what a home has; change it only with the rule's version."""
    recipe = load_recipe("demo")
    assert threshold_version(recipe) == "a18d224f5646"
    assert selection_version(recipe) == "da5b0cb7aa76"
    assert training_version(recipe, "t060") == "c7dcee841558"
    assert training_version(recipe, "mixed") == "604b35702369"
