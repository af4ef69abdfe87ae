"""What a code version is said to stand for is what it follows: the parts of the recipe that count, and no others."""

from dataclasses import replace

import dagster as dg
from conftest import change

from dasd_assets.definitions import STAGES
from dasd_assets.records.code_versions import MADE_WITH, CodeVersion
from dasd_assets.rules.rule import Rule
from dasd_resources.recipe import Recipe, load_recipe

RECIPE = load_recipe("demo")
CHANGES = {  # path -> another value
    "seed": 43,
    "student.dtype": "bfloat16",
    "generation.num_candidates": 4,
    "generation.top_p": 0.9,
    "parity.num_responses": 8,
    "filters.apply": "after_selection",
    "filters.repetition.tail_tokens": 128,
    "selection.divergence.threshold": 0.2,
    "selection.policy": "top_k",
    "selection.budgets": {"t060": {"math": 5}},
    "training.learning_rate": 1e-3,
    "training.epochs": 9,
    "mixed_policy.num_questions": 7,
    "mixed_policy.length_cap": 2.0,
    "mixed_policy.continuation_temperature": 0.7,
    "mixed_policy.off_policy_ratio": 2.0,
    "mixed_policy.epochs": 5,
    "evaluation.samples_per_question": 5,
    "checks.max_accuracy_drop": 1.0,
}


def made_with(recipe: Recipe) -> dict[str, tuple[str | None, object]]:
    """Asset -> its code version, and what that is said to stand for."""
    found = {}
    for asset in (asset for stage in STAGES for asset in stage.build(recipe)):
        for spec in asset.specs:
            metadata = spec.metadata.get(MADE_WITH)
            told = metadata.data if isinstance(metadata, dg.JsonMetadataValue) else None
            found[spec.key.to_user_string()] = (spec.code_version, told)
    return found


def test_the_recipes_parts_are_told_exactly_where_they_count() -> None:
    before = made_with(RECIPE)
    changed = set()
    for path, value in CHANGES.items():
        after = made_with(change(RECIPE, path, value))
        for asset, (version, told) in before.items():
            assert (version != after[asset][0]) == (told != after[asset][1]), (path, asset)
        changed |= {path for asset in before if before[asset] != after[asset]}
    assert set(CHANGES) - changed == {"checks.max_accuracy_drop"}


def test_every_asset_with_a_code_version_says_what_it_stands_for() -> None:
    untold = {asset for asset, (version, told) in made_with(RECIPE).items() if version is not None and told is None}
    assert untold == {"maintenance"}  # never out of date


INNER = Rule("inner", "7", ("generation.top_p",))
OUTER = Rule("outer", "3", ("seed",), (INNER,))


def test_a_version_is_of_rules_of_the_rules_they_use_and_of_what_all_of_them_read() -> None:
    version = CodeVersion.of(RECIPE, [OUTER], ["training.epochs"])
    assert version.metadata[MADE_WITH].data == {
        "code": {"outer": "3", "inner": "7"},
        "recipe": {"generation.top_p": 1.0, "seed": 42, "training.epochs": 8},
    }


def test_the_text_follows_each_rule_and_each_part_and_nothing_else() -> None:
    def text(*rules: Rule, parts: tuple[str, ...] = (), recipe: Recipe = RECIPE) -> str:
        return CodeVersion.of(recipe, rules, parts).text

    assert len(text(OUTER)) == 12
    assert text(OUTER) == text(OUTER, INNER) == text(INNER, OUTER) == text(OUTER, parts=("seed",))
    assert text(OUTER) == text(OUTER, recipe=change(RECIPE, "generation.num_candidates", 4))
    others = [
        text(INNER),
        text(replace(OUTER, version="4")),
        text(replace(OUTER, uses=(replace(INNER, version="8"),))),
        text(OUTER, parts=("training.epochs",)),
        text(OUTER, recipe=change(RECIPE, "generation.top_p", 0.9)),
        text(OUTER, recipe=change(RECIPE, "seed", 43)),
    ]
    assert len({text(OUTER), *others}) == 7
