"""Experiments as they are declared: what a stage changes of its recipe, what is refused, and where files are found."""

from pathlib import Path
from random import Random

import duckdb
import pytest
import yaml

from dasd_assets.cli import main
from dasd_assets.commands.experiment import named_experiments
from dasd_assets.stage_training import training_version
from dasd_resources.demo.questions import read_rows
from dasd_resources.recipe import Recipe, RecipeError, load_recipe
from dasd_resources.recipe.experiment import ArmStage, Experiment, stage_recipe
from dasd_resources.recipe.experiment_files import SHIPPED, checked, experiments_of, load_experiment, read_experiment
from dasd_resources.school.catalogue import FAMILIES
from dasd_resources.school.examples import response_of
from dasd_resources.school.family import Exercise, Pen
from dasd_resources.school.questions import HELD_OUT_FILES

TWO_ARMS: dict[str, object] = {
    "name": "two_arms",
    "title": "Two arms",
    "report": "Nothing.",
    "recipe": "demo",
    "seeds": [42, 43],
    "baseline": "low",
    "arms": {"low": [{"dataset": "t060"}], "high": [{"dataset": "t100", "policy": "random"}]},
}


@pytest.fixture(scope="module")
def demo() -> Recipe:
    return load_recipe("demo")


def experiment(**changes: object) -> Experiment:
    return Experiment.model_validate({**TWO_ARMS, **changes})


def test_every_shipped_experiment_is_of_a_recipe_that_can_make_it(tmp_path: Path) -> None:
    found = list(experiments_of(load_recipe("school"), tmp_path))
    assert [one for one in found if isinstance(one, RecipeError)] == []
    assert [one.name for one in found if isinstance(one, Experiment)] == sorted(p.stem for p in SHIPPED.glob("*.yaml"))
    assert all(len(one.seeds) >= 5 for one in found if isinstance(one, Experiment))


def test_what_is_asked_at_other_temperatures_was_trained_for_other_grids() -> None:
    asked = read_experiment(SHIPPED / "other_temperatures.yaml")
    others = [read_experiment(SHIPPED / f"{name}.yaml") for name in asked.declared_after]
    trained = [arm for other in others for arm in other.arms.values()]
    assert all(arm in trained for arm in asked.arms.values())
    assert {(other.recipe, other.seeds) for other in others} == {(asked.recipe, asked.seeds)}


def test_a_stage_that_changes_nothing_is_the_recipes_own(demo: Recipe) -> None:
    assert stage_recipe(demo, ArmStage(dataset=("t060",)), demo.seed) == demo


def test_a_stage_changes_what_it_names_and_nothing_else(demo: Recipe) -> None:
    stage = ArmStage.model_validate(
        {
            "dataset": "t100",
            "selection": {"policy": "top_k", "max_per_question": 2, "score": "sum_log_token"},
            "filters": {"apply": "after_selection"},
            "num_candidates": 2,
            "budget": {"tokens": {"math": 1000}},
            "training": {"epochs": 3, "learning_rate": 1e-3},
        }
    )
    recipe = stage_recipe(demo, stage, 7)
    assert recipe.seed == 7
    assert recipe.selection.budgets == {"t100": {"math": 1000}}
    assert (recipe.selection.budget_unit, recipe.selection.policy, recipe.selection.score) == (
        "tokens",
        "top_k",
        "sum_log_token",
    )
    assert (recipe.filters.apply, recipe.filters.require_correct) == ("after_selection", True)
    assert recipe.generation.num_candidates == 2
    assert (recipe.training.epochs, recipe.training.learning_rate) == (3, 1e-3)
    same = ("teacher", "student", "mixed_policy", "evaluation", "name", "selection.divergence", "filters.repetition")
    assert recipe.parts(*same) == demo.parts(*same)


def test_the_epochs_of_a_mixed_stage_are_those_of_the_mixed_policy(demo: Recipe) -> None:
    stage = ArmStage.model_validate({"dataset": "mixed", "loss_on_prefix": False, "training": {"epochs": 2}})
    recipe = stage_recipe(demo, stage, demo.seed)
    assert (recipe.mixed_policy.epochs, recipe.mixed_policy.loss_on_prefix) == (2, False)
    assert recipe.training == demo.training
    plain = stage_recipe(demo, ArmStage.model_validate({"dataset": "mixed"}), demo.seed)
    assert training_version(plain, "mixed") == training_version(demo, "mixed")


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"dataset": "t070"}, "arms.low.0.dataset: recipe demo has no t070; it has t060, t100, mixed"),
        (
            {"dataset": "t060", "num_candidates": 8},
            "arms.low.0.num_candidates: 8 is above generation.num_candidates 3 of recipe demo; raise that and run "
            "`dasd run`, or lower this",
        ),
        (
            {"dataset": "t060", "selection": {"policy": "best"}},
            "arms.low.0.selection.policy: Input should be 'best_per_question' or 'top_k' (found 'best')",
        ),
        (
            {"dataset": "t060", "training": {"learning_rate": 1e-9}},
            "arms.low.0.training: min_learning_rate 0.0003 is above learning_rate 1e-09; lower it",
        ),
    ],
)
def test_what_the_recipe_cannot_give_is_refused_by_file_arm_and_key(
    stage: dict[str, object], said: str, demo: Recipe
) -> None:
    arms = {"low": [stage], "high": [{"dataset": "t100"}]}
    with pytest.raises(RecipeError) as refused:
        checked(experiment(arms=arms), demo)
    assert str(refused.value).startswith(f"two_arms.yaml: {said}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"baseline": "none"}, "two_arms.yaml: experiment: baseline 'none' is no arm; there are low, high"),
        ({"seeds": [1, 1]}, "two_arms.yaml: experiment: seeds names one twice; remove one"),
        (
            {"arms": {"low": [{"dataset": "t060", "selection": {"budgets": 3}}], "high": []}},
            "two_arms.yaml: arms.low.0.selection: budgets cannot be changed here: a stage's budget stands beside it",
        ),
        (
            {"arms": {"low": [{"dataset": "t060", "budget": {"times": 2, "examples": {"math": 3}}}], "high": []}},
            "two_arms.yaml: arms.low.0.budget: give exactly one of examples, tokens and times",
        ),
        (
            {"arms": {"low": [{"dataset": "mixed", "policy": "random"}], "high": []}},
            "two_arms.yaml: arms.low.0: the mixed-policy dataset is not selected: remove policy",
        ),
        (
            {"arms": {"low": [{"dataset": "t060", "matching": "(so"}], "high": []}},
            "two_arms.yaml: arms.low.0.matching: is no regular expression of RE2's: Invalid Input Error: missing",
        ),
        (
            {"pairs": [["low", "hihg"]]},
            "two_arms.yaml: experiment: pairs: [low, hihg]: 'hihg' is no arm; there are low, high",
        ),
        (
            {"pairs": [["high", "low"]]},
            "two_arms.yaml: experiment: pairs: [high, low] is compared already, this way round or the other; remove it",
        ),
        (
            {"ways": {"in words": "(so"}},
            "two_arms.yaml: ways.in words: is no regular expression of RE2's: Invalid Input Error: missing",
        ),
        (
            {"ways": {"other": "x"}},
            "two_arms.yaml: ways: other is a column of the table of ways; name it otherwise",
        ),
        ({"pairs": [["low", "low"]]}, "two_arms.yaml: experiment: pairs: [low, low] is an arm and itself; name two"),
        ({"recipes": "demo"}, "two_arms.yaml: recipes: Extra inputs are not permitted; did you mean recipe?"),
    ],
)
def test_a_faulty_file_is_refused_by_file_and_key(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "two_arms.yaml"
    path.write_text(yaml.safe_dump({**TWO_ARMS, **changes}, sort_keys=False))
    with pytest.raises(RecipeError) as refused:
        load_experiment(str(path), tmp_path)
    assert str(refused.value).startswith(said)


def test_experiments_of_the_home_are_known_by_name_and_a_faulty_one_leaves_the_others(
    demo: Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "two_arms.yaml").write_text(yaml.safe_dump(TWO_ARMS))
    (folder / "broken.yaml").write_text("name: broken")
    assert load_experiment("two_arms", tmp_path) == experiment()
    found = list(experiments_of(demo, tmp_path))
    assert experiment() in found
    assert [str(one).partition(":")[0] for one in found if isinstance(one, RecipeError)] == ["broken.yaml"]
    with pytest.raises(RecipeError, match="no experiment 'nothing': give the path of a YAML file, or one of broken, "):
        load_experiment("nothing", tmp_path)


def test_several_are_run_each_once_and_no_two_of_one_name(demo: Recipe, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name / "two_arms.yaml" for name in ("first", "second", "third"))
    for path, seeds in ((first, [1, 2]), (second, [1, 2]), (third, [3, 4])):
        path.parent.mkdir()
        path.write_text(yaml.safe_dump({**TWO_ARMS, "seeds": seeds}))
    assert [one.seeds for one in named_experiments([str(first), str(second)], demo, tmp_path)] == [(1, 2)]
    with pytest.raises(RecipeError, match=r"third/two_arms\.yaml: another of those to run is named two_arms, too"):
        named_experiments([str(first), str(third)], demo, tmp_path)


def test_arms_and_seeds_are_of_one_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    for names in ([], ["table_5", "table_7"]):
        assert main(["experiment", *names, "--recipe", "school", "--seeds", "42"]) == 2
        assert "--arms and --seeds are of one experiment: name it, and no other" in capsys.readouterr().err


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(SHIPPED.glob("*.yaml")) if "\nways:" in path.read_text()],
    ids=lambda path: path.stem,
)
def test_shipped_ways_are_the_procedures_of_the_schools_families(path: Path) -> None:
    ways, rng = read_experiment(path).ways, Random(0)
    rows = read_rows(HELD_OUT_FILES["test"])
    found = set[tuple[str | None, tuple[str, ...]]]()
    for family in FAMILIES:
        own = [row for row in rows if row["domain"] == family.domain]
        for procedure in family.procedures:
            for row in rng.sample(own, 5):
                pen = Pen(rng, 0.2, 0.5)
                pen.say(procedure.opening)
                text = response_of(Exercise("", pen.sentences, procedure.work(row, pen)), rng)
                late = text.replace(procedure.opening, f"Let us see. {procedure.opening}")
                for one in (text, late):
                    query = "SELECT list_filter($ways, lambda way: regexp_matches($text, way))"
                    params = {"ways": list(ways.values()), "text": one}
                    found.add((family.procedure_of(one), tuple(duckdb.execute(query, params).fetchall()[0][0])))
    # Each procedure is found by one expression alone, each expression finds one, and none what is no procedure.
    assert (None, ()) in found and len(found) == len(ways) + 1
    assert {names for _, names in found} == {(), *((expression,) for expression in ways.values())}
