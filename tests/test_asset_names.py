"""Names of assets are spelt in one module, and each is the name of an asset that there is."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import dasd_assets
from dasd_assets.definitions import STAGES
from dasd_assets.rules import asset_names
from dasd_assets.rules.asset_names import (
    CONTROL_ASSET,
    DAS,
    MIXED,
    RANDOM,
    checkpoint_asset,
    dataset_asset,
    generation_asset,
    selection_asset,
)
from dasd_assets.rules.checkpoints import checkpoint_names, trained_names
from dasd_assets.service.freshness import freshness_policy
from dasd_resources.recipe import Recipe, load_recipe

PACKAGE = Path(str(dasd_assets.__file__)).parent
PREFIXES = tuple(name("") for name in (generation_asset, selection_asset, dataset_asset, checkpoint_asset))
WHOLE = {dataset_asset(MIXED), CONTROL_ASSET, DAS, RANDOM}


def named_by(recipe: Recipe) -> set[str]:
    """Every name that the module gives for a recipe's datasets, policies and checkpoints."""
    return {
        *map(generation_asset, recipe.datasets),
        *(selection_asset(dataset, policy) for dataset in trained_names(recipe) for policy in (DAS, RANDOM)),
        *map(dataset_asset, trained_names(recipe)),
        *map(checkpoint_asset, checkpoint_names(recipe)),
    }


@pytest.mark.parametrize("recipe", ["demo", "dasd-4b"])
def test_every_name_is_that_of_an_asset(recipe: str) -> None:
    loaded = load_recipe(recipe)
    specs = [spec for stage in STAGES for asset in stage.build(loaded) for spec in asset.specs]
    assert named_by(loaded) <= {spec.key.to_user_string() for spec in specs}


def test_the_mixed_dataset_and_its_selection_are_made_by_one_asset() -> None:
    assert selection_asset(MIXED) == selection_asset(MIXED, DAS) == dataset_asset(MIXED) == "mixed_policy_dataset"
    assert selection_asset("t060", RANDOM) == "random_responses"


def test_an_asset_is_overdue_by_what_it_makes() -> None:
    recipe = load_recipe("demo")
    specs = [spec for stage in STAGES for asset in stage.build(recipe) for spec in asset.specs]
    overdue = {spec.key.to_user_string() for spec in specs if freshness_policy(recipe, spec.key)}
    made = {*map(selection_asset, recipe.datasets), *map(checkpoint_asset, trained_names(recipe))}
    assert overdue == {"prompts", *made}


def spelt(tree: ast.AST) -> Iterator[ast.Constant]:
    """Strings, not docstrings, that are such a name, or end where a dataset's name would go on."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in docs:
            continue
        if node.value.endswith(PREFIXES) or node.value in WHOLE:
            yield node


def test_no_other_module_spells_a_name() -> None:
    found = []
    for path in PACKAGE.rglob("*.py"):
        lines = [node.lineno for node in spelt(ast.parse(path.read_text(encoding="utf-8")))]
        found += [f"{path.relative_to(PACKAGE)}:{line}" for line in lines if path != Path(str(asset_names.__file__))]
    assert found == []


def test_the_guard_sees_a_name_that_is_spelt() -> None:
    source = """a = f"sft_dataset_{dataset}"
b = name.startswith("checkpoint_")
c = ["checkpoint_id", "mixed_policy_dataset"]
"""
    assert [node.lineno for node in spelt(ast.parse(source))] == [1, 2, 3]
