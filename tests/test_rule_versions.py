"""An id that names a rule changes with every part of the recipe that the rule declares: none is listed twice."""

from collections.abc import Callable

import pytest
from conftest import change
from noted import leaves
from test_declarations import another, code_versions, replaced

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.scores import DIVERGENCE, threshold_version
from dasd_assets.rules.selection import SELECTION, selection_version
from dasd_assets.stage_training import TRAINING, training_version
from dasd_resources.recipe import HeldOut, Recipe, load_recipe
from dasd_resources.recipe.parts import deciding

VERSIONS: list[tuple[Rule, Callable[[Recipe], str]]] = [
    (DIVERGENCE, threshold_version),
    (SELECTION, selection_version),
    (TRAINING, lambda recipe: training_version(recipe, "t060")),
]


@pytest.mark.parametrize(("rule", "version"), VERSIONS, ids=[rule.name for rule, _ in VERSIONS])
def test_every_part_of_the_rule_changes_the_id(rule: Rule, version: Callable[[Recipe], str]) -> None:
    recipe = load_recipe("demo")
    within = tuple(f"{part}." for part in rule.parts)
    read = {leaf: value for leaf, value in leaves(recipe).items() if f"{leaf}.".startswith(within)}
    read.pop("training.stages", None)  # decides for each stage by itself, as the next test says
    read.pop("training.report_to", None)  # decides nothing (tests/test_trackers.py)
    read.pop("training.save_every_steps", None)  # the same (below)
    read |= {part: recipe.parts(part)[part] for part in rule.parts if part.endswith("dtype")}  # of a model
    changed = {leaf: version(replaced(recipe, leaf, another(value))) for leaf, value in read.items()}
    assert [leaf for leaf, found in changed.items() if found == version(recipe)] == []
    assert changed


def test_what_a_stage_has_of_its_own_changes_the_id_of_that_stage_alone() -> None:
    recipe = load_recipe("demo")
    own = change(recipe, "training.stages", {"t100": {"epochs": 3, "learning_rate": 1e-3, "global_batch_size": 32}})
    assert training_version(own, "t060") == training_version(recipe, "t060")
    assert training_version(own, "mixed") == training_version(recipe, "mixed")
    every = change(change(recipe, "training.epochs", 3), "training.learning_rate", 1e-3)
    assert training_version(own, "t100") == training_version(change(every, "training.global_batch_size", 32), "t100")
    assert (own.training.of("t100").epochs, own.training.of("t060").epochs) == (3, 8)


@pytest.mark.parametrize(
    ("stages", "said"),
    [
        ({"t100": {"learning_rate": 1e-9}}, "stages.t100: min_learning_rate 0.0003 is above learning_rate 1e-09"),
        ({"mixed": {"epochs": 3}}, "stages.mixed.epochs: that stage's epochs are mixed_policy.epochs"),
        ({"t070": {"epochs": 3}}, r"training.stages names \['t070'\]; the stages are \['t060', 't100', 'mixed'\]"),
    ],
)
def test_what_no_stage_can_have_is_refused(stages: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        change(load_recipe("demo"), "training.stages", stages)


def test_the_ids_of_the_demo_are_those_of_homes_made_before() -> None:
    """Another id would train again, and score again, what a home has; change it only with the rule's version."""
    recipe = change(load_recipe("demo"), "training.group_order", "descending")  # as it was then
    assert threshold_version(recipe) == "a18d224f5646"
    assert selection_version(recipe) == "da5b0cb7aa76"
    assert training_version(recipe, "t060") == "c7dcee841558"
    assert training_version(recipe, "mixed") == "604b35702369"


def test_how_often_a_training_is_saved_decides_nothing_and_is_in_its_id_as_the_demo_has_it() -> None:
    recipe = load_recipe("demo")
    often, never = (change(recipe, "training.save_every_steps", steps) for steps in (50, None))
    assert training_version(often, "t060") == training_version(never, "t060")
    assert deciding(never.training)["save_every_steps"] == 200


@pytest.mark.parametrize("heldout", [None, HeldOut(num_responses=200)])
def test_without_questions_held_out_nothing_is_another(heldout: HeldOut | None) -> None:
    """The key came later: recipes from before it keep their versions, and so their datasets."""
    recipe = load_recipe("demo").model_copy(update={"heldout": heldout})
    assert "questions" not in str(recipe.parts("heldout", "heldout.questions"))
    assert selection_version(recipe) == "da5b0cb7aa76"
    held = recipe.model_copy(update={"heldout": HeldOut(num_responses=200, questions=0.02)})
    before, after = code_versions(recipe), code_versions(held)
    stale = {asset for asset in before if before[asset] != after[asset]}
    assert {asset for asset in stale if not asset.startswith("experiment_")} == {
        *{"selected_responses_t060", "selected_responses_t100", "random_responses"},
        *({"heldout_losses"} if heldout else ()),
    }
