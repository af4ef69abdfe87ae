from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from dasd_resources.recipe import RECIPES, Recipe, RecipeError, dataset_name, load_recipe

DEMO = yaml.safe_load((RECIPES / "demo.yaml").read_text())


def changed(folder: Path, path: str, value: object) -> str:
    document = yaml.safe_load(yaml.safe_dump(DEMO))
    *parents, last = path.split(".")
    part = document
    for parent in parents:
        part = part[parent]
    part[last] = value
    file = folder / "mine.yaml"
    file.write_text(yaml.safe_dump(document))
    return str(file)


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_loads(name: str) -> None:
    assert load_recipe(name).name == name


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("nonsense", 1, "nonsense: Extra inputs are not permitted"),
        ("seed", "x", r"seed: .*integer.*\(found 'x'\)"),
        ("generation.temperatures", [1.0, 0.6], "generation.temperatures: .*must ascend"),
        ("generation.temperatures", [0.6, 0.601], "generation.temperatures: .*must ascend"),
        ("mixed_policy.length_cap", 0.9, "mixed_policy.length_cap: .*greater than or equal to 1.*0.9"),
        ("training.min_learning_rate", 1.0, "min_learning_rate 1.0 is above learning_rate 0.003"),
        ("training.global_batch_size", 17, "global_batch_size 17 is no multiple"),
        ("training.batch_counts", "bins", "batch_counts is bins but packing is off; set batch_counts: samples"),
        ("selection.budgets", {"t070": {"math": 1}}, r"budgets names \['t070'\]; generation makes \['t060', 't100'\]"),
        ("filters.max_student_tokens", 4096, "max_student_tokens 4096 is above training.max_length 512"),
        ("teacher.engine_options", {"trust_remote_code": True}, "teacher.engine_options: .*never allowed"),
        ("evaluation.benchmarks", DEMO["evaluation"]["benchmarks"] * 2, "two benchmarks have the same name"),
    ],
)
def test_a_fault_is_one_clear_sentence(tmp_path: Path, path: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message) as error:
        load_recipe(changed(tmp_path, path, value))
    assert "\n" not in str(error.value)


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(RecipeError, match=r"no recipe 'nope': .*dasd-4b, demo"):
        load_recipe("nope")


def test_a_version_changes_with_its_parts_alone(tmp_path: Path) -> None:
    demo = load_recipe("demo")
    other = load_recipe(changed(tmp_path, "selection.divergence.threshold", 0.2))
    assert demo.version("selection.divergence") != other.version("selection.divergence")
    assert demo.version("generation", "training") == other.version("generation", "training")


def test_relative_paths_start_at_the_recipes_folder(tmp_path: Path) -> None:
    recipe = load_recipe(changed(tmp_path, "teacher.model", "./models/teacher"))
    assert recipe.teacher.model == str(tmp_path / "models" / "teacher")


def test_a_recipe_is_frozen() -> None:
    recipe: Recipe = load_recipe("demo")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1


def test_datasets_are_named_for_their_temperature() -> None:
    assert [dataset_name(t) for t in (0.6, 1.0, 0.05)] == ["t060", "t100", "t005"]
