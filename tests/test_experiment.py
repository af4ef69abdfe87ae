"""Experiments as they are declared: what a stage changes of its recipe, what is refused, and where files are found."""

from pathlib import Path
from random import Random

import duckdb
import pytest
import yaml
from test_recipe_document import SHORT

from dasd_assets.cli import main
from dasd_assets.commands.experiment import listed, named_experiments, sound_experiments
from dasd_assets.definitions import usable_experiments
from dasd_assets.experiments.experiment_page import HASH_CHARS
from dasd_assets.records.recipe_document import described
from dasd_assets.rules.arms import arm_dataset, compared_rule, declared_rule
from dasd_assets.stage_training import training_version
from dasd_resources.content_hash import content_hash
from dasd_resources.demo.questions import read_rows
from dasd_resources.recipe import Recipe, RecipeError, load_recipe
from dasd_resources.recipe.experiment import ArmStage, Experiment
from dasd_resources.recipe.experiment_files import SHIPPED, checked, experiments_of, load_experiment, read_experiment
from dasd_resources.recipe.experiment_recipes import evaluated_recipe, stage_recipe
from dasd_resources.school.catalogue import FAMILIES
from dasd_resources.school.examples import response_of
from dasd_resources.school.family import Exercise, Pen
from dasd_resources.school.questions import HELD_OUT_FILES
from dasd_resources.storage.warehouse import Warehouse

PAGES = Path(__file__).parents[1] / "docs" / "experiments"
NAMES = sorted(path.stem for path in SHIPPED.glob("*.yaml"))
OF_THE_SCHOOL = {"filter_order", "one_procedure", "sound_work", "wording"}  # by budgets per domain, or expressions
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
    assert [one.name for one in found if isinstance(one, Experiment)] == NAMES
    assert all(len(one.seeds) >= 5 for one in found if isinstance(one, Experiment))


@pytest.mark.parametrize("name", [name for name in NAMES if (PAGES / f"{name}.md").exists()])
def test_the_page_of_a_shipped_experiment_is_of_what_is_declared(name: str, tmp_path: Path) -> None:
    [one] = named_experiments([name], load_recipe("school", tmp_path), tmp_path)
    assert f"| grid | {content_hash(declared_rule(one).version)[:HASH_CHARS]} |" in (PAGES / f"{name}.md").read_text()


def test_every_claim_of_a_shipped_experiment_is_in_the_list_of_results() -> None:
    shipped = [read_experiment(SHIPPED / f"{name}.yaml") for name in NAMES]
    claims = [(claim.claim, f"[{one.title}]({one.name}.md)") for one in shipped for claim in one.claims]
    rows = [line.split(" | ") for line in (PAGES / "results.md").read_text().splitlines()]
    found = {(row[0].removeprefix("| "), row[-1].removesuffix(" |")) for row in rows}
    assert len(set(claims)) == len(claims) > 5 and set(claims) - found == set()


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


def test_a_random_draw_in_tokens_follows_one_rule_under_all_seeds(demo: Recipe) -> None:
    random = ArmStage(dataset=("t060",), policy="random")
    assert [arm_dataset(demo, random, seed).is_own for seed in (demo.seed, demo.seed + 1)] == [True, False]
    in_tokens = ArmStage.model_validate({"dataset": "t060", "policy": "random", "budget": {"tokens": {"math": 1000}}})
    base = stage_recipe(demo, in_tokens, demo.seed)
    assert base.selection.budget_unit == "tokens"
    assert [arm_dataset(base, random, seed).is_own for seed in (base.seed, base.seed + 1)] == [False, False]
    assert arm_dataset(base, ArmStage(dataset=("t060",)), base.seed).is_own


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
            {"dataset": "t060", "epochs_of": ["t060", "t070"]},
            "arms.low.0.epochs_of: recipe demo has no t070; it has t060, t100, mixed",
        ),
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
            {"arms": {"low": [{"dataset": "t060", "budget": {"examples": {}}}], "high": []}},
            "two_arms.yaml: arms.low.0.budget.examples: ",
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
        (
            {"ways": {"failed": "x"}},
            "two_arms.yaml: ways: failed is the way of requests that failed; name it otherwise",
        ),
        (
            {"claims": [{"claim": "It trains better.", "above": [["hihg", "low"]]}]},
            "two_arms.yaml: experiment: claims.0.above: [hihg, low]: 'hihg' is no arm; there are low, high",
        ),
        (
            {
                "arms": {"low": [{"dataset": "t060"}], "high": [{"dataset": "t100"}], "none": []},
                "claims": [
                    {"claim": "It trains better.", "above": [["none", "low"]]},
                    {"claim": "It trains best.", "above": [["high", "low"], ["high", "none"]]},
                ],
            },
            "two_arms.yaml: experiment: claims.1.above: [high, none] is not compared; name it in pairs, too",
        ),
        (
            {
                "arms": {"low": [{"dataset": "t060"}], "none": []},
                "claims": [{"claim": "It has less loss.", "above": [["none", "low"]], "of": "training_loss"}],
            },
            "two_arms.yaml: experiment: claims.0.above: [none, low]: none is trained on nothing, so it has no training",
        ),
        (
            {"claims": [{"claim": "It trains better.", "above": [["low", "high"], ["high", "low"]]}]},
            "two_arms.yaml: claims.0.above: names a pair twice, this way round or the other; remove one",
        ),
        (
            {"claims": [{"claim": "It trains better.", "above": [["low", "high"]], "of": "loss"}]},
            "two_arms.yaml: claims.0.of: Input should be 'accuracy', 'training_loss' or 'probability' (found 'loss')",
        ),
        ({"claims": [{"claim": "It trains better.", "above": []}]}, "two_arms.yaml: claims.0.above: Tuple should have"),
        ({"pairs": [["low", "low"]]}, "two_arms.yaml: experiment: pairs: [low, low] is an arm and itself; name two"),
        (
            {"arms": {"low": [{"dataset": "t060", "epochs_of": ["t060"], "training": {"epochs": 3}}], "high": []}},
            "two_arms.yaml: arms.low.0: training.epochs says already how many: remove it, or epochs_of",
        ),
        ({"recipes": "demo"}, "two_arms.yaml: recipes: Extra inputs are not permitted; did you mean recipe?"),
    ],
)
def test_a_faulty_file_is_refused_by_file_and_key(changes: dict[str, object], said: str, tmp_path: Path) -> None:
    path = tmp_path / "two_arms.yaml"
    path.write_text(yaml.safe_dump({**TWO_ARMS, **changes}, sort_keys=False))
    with pytest.raises(RecipeError) as refused:
        load_experiment(str(path), tmp_path)
    assert str(refused.value).startswith(said)


def test_what_is_claimed_changes_no_hash() -> None:
    claims = [{"claim": "It trains better.", "above": [["low", "high"]]}]
    assert experiment(claims=claims).claims and not experiment().claims
    assert declared_rule(experiment(claims=claims)) == declared_rule(experiment())
    assert compared_rule(experiment(claims=claims)) == compared_rule(experiment())


def test_experiments_of_the_home_are_known_by_name_and_a_faulty_one_leaves_the_others(
    demo: Recipe, tmp_path: Path
) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "two_arms.yaml").write_text(yaml.safe_dump(TWO_ARMS))
    (folder / "broken.yaml").write_text("name: broken")
    (folder / ".#two_arms.yaml").symlink_to("somebody@somewhere.1234")  # an editor's
    (folder / "folder.yaml").mkdir()
    assert load_experiment("two_arms", tmp_path) == experiment()
    found = list(experiments_of(demo, tmp_path))
    assert experiment() in found
    assert [str(one).partition(":")[0] for one in found if isinstance(one, RecipeError)] == [
        *("broken.yaml", str(folder / "folder.yaml"))
    ]
    with pytest.raises(RecipeError, match="no experiment 'nothing': give the path of a YAML file, or one of broken, "):
        load_experiment("nothing", tmp_path)


def mine(folder: Path, *names: str, more: str = "") -> Recipe:
    """The README's recipe, in short, with these experiments named."""
    path = folder / "mine.yaml"
    path.write_text(f"{SHORT}experiments: [{', '.join(names)}]\n{more}")
    return load_recipe(str(path), folder)


def refusal(name: str, recipe: Recipe, home: Path) -> list[str]:
    with pytest.raises(RecipeError) as refused:
        named_experiments([name], recipe, home)
    return str(refused.value).splitlines()


def test_a_recipe_makes_the_shipped_experiments_that_it_names(tmp_path: Path) -> None:
    recipe = mine(tmp_path, *NAMES)
    faulty = [
        str(one).partition(".yaml")[0] for one in experiments_of(recipe, tmp_path) if isinstance(one, RecipeError)
    ]
    assert set(faulty) == OF_THE_SCHOOL
    recipe = mine(tmp_path, *(name for name in NAMES if name not in OF_THE_SCHOOL))
    found = sound_experiments(recipe, tmp_path)
    assert found == usable_experiments(recipe, tmp_path)
    for carried in found:
        shipped = read_experiment(SHIPPED / f"{carried.name}.yaml")
        assert carried.recipe == "mine" and list(carried.arms) == list(shipped.arms)
        kept = ("baseline", "compared", "claims", "seeds")
        assert [getattr(carried, name) for name in kept] == [getattr(shipped, name) for name in kept]
        assert (carried.meaning, carried.meaning_of, carried.declared_after, carried.ways) == (None, None, (), {})
        asked = evaluated_recipe(recipe, carried).evaluation
        assert [one.name for one in asked.benchmarks] == ["aime25"] and asked.temperatures == shipped.temperatures


def test_arms_of_equal_steps_are_so_on_any_recipe(tmp_path: Path) -> None:
    names = ("das_longer", "table_5", "tables_1_2")
    recipe = mine(tmp_path, *names, more="training: {epochs: 5, stages: {t060: {epochs: 2}}}\n")
    das_longer, table_5, tables_1_2 = sound_experiments(recipe, tmp_path)
    assert {stage.training.epochs for stages in das_longer.arms.values() for stage in stages} == {4 * 5}
    for arm in ("low", "high"):
        [stage] = tables_1_2.arms[arm]
        assert stage_recipe(recipe, stage, 42).epochs(stage.name) == stage.training.epochs == 2 + 5
        [declared] = read_experiment(SHIPPED / "tables_1_2.yaml").arms[arm]
        assert stage_recipe(recipe, declared, 42) == stage_recipe(recipe, stage, 42)
    assert table_5.arms["off_policy"][-1].training.epochs == recipe.epochs("mixed") == 1
    assert sound_experiments(mine(tmp_path, "table_5"), tmp_path)[0].arms["none"] == table_5.arms["none"]


def test_an_experiment_of_another_recipe_has_to_be_named(tmp_path: Path) -> None:
    recipe = mine(tmp_path, "table_7", "tabel_5")
    assert [one.name for one in named_experiments(["table_7"], recipe, tmp_path)] == ["table_7"]
    assert refusal("table_5", recipe, tmp_path) == [
        "table_5.yaml: recipe: is school, not mine; name that one by --recipe or DASD_RECIPE, or run it on mine: add "
        "it there to `experiments`, such as `experiments: [table_5]`"
    ]
    lines = list(listed(Warehouse(home=str(tmp_path)), recipe, tmp_path))
    unknown = "recipe mine: experiments: no experiment 'tabel_5'; there are candidates, "
    assert lines[0].startswith(f"faulty: {unknown}") and lines[0].endswith("; did you mean table_5?")
    assert lines[1].startswith("table_7 ") and " 0 answered of  20 " in lines[1]
    others = ", ".join(name for name in NAMES if name != "table_7")
    assert lines[2:] == [f"of other recipes, for this one's `experiments: [NAME]`: {others}"]
    with pytest.raises(RecipeError, match=r"^recipe mine: experiments: no experiment 'tabel_5'"):
        sound_experiments(recipe, tmp_path)
    with pytest.raises(
        RecipeError, match=r"no experiment is of recipe mine; name others in its `experiments` \(candid"
    ):
        sound_experiments(mine(tmp_path), tmp_path)


def test_what_a_recipe_cannot_make_of_anothers_experiment_is_refused_with_what_to_do(tmp_path: Path) -> None:
    names = ["filter_order", "one_procedure", "candidates", "tables_3_4"]
    recipe = mine(tmp_path, *names, more="generation: {temperatures: [0.7, 1.0], num_candidates: 4}\n")
    said = {name: refusal(name, recipe, tmp_path) for name in names}
    assert said["filter_order"][:2] == [
        f"filter_order.yaml: arms.{arm}.0.budget.examples: names domains of the questions of recipe school "
        "(found letters, sums)"
        for arm in ("before_budget", "after_budget")
    ]
    assert said["one_procedure"][0] == (
        "one_procedure.yaml: arms.random.0.matching: is of the responses of recipe school "
        "(found 'We spell it|We go from left to right')"
    )
    assert said["tables_3_4"][0] == (
        "tables_3_4.yaml: arms.low_random.0.dataset: recipe mine has no t060; it has t070, t100, mixed"
    )
    assert said["candidates"][0].startswith("candidates.yaml: arms.eight.0.num_candidates: 8 is above generation.num_")
    assert {name: len(lines) for name, lines in said.items()} == {
        "filter_order": 2 + 1,
        "one_procedure": 5 + 1,
        "candidates": 2 + 1,
        "tables_3_4": 4 + 1,
    }
    for name, lines in said.items():
        assert lines[-1] == (
            f"{name}.yaml is of recipe school: to change it for mine, copy the file (shipped ones are in {SHIPPED}) "
            "into the home's folder experiments, with `recipe: mine`; or take it out of the recipe's `experiments`"
        )
    folder = tmp_path / "experiments"
    folder.mkdir()
    copied = (SHIPPED / "candidates.yaml").read_text().replace("recipe: school", "recipe: mine")
    (folder / "candidates.yaml").write_text(
        copied.replace("benchmarks: [school]\n", "").replace("num_candidates: 8", "num_candidates: 3")
    )
    assert [one.recipe for one in named_experiments(["candidates"], recipe, tmp_path)] == ["mine"]


def test_experiments_that_a_recipe_names_change_nothing_else(tmp_path: Path) -> None:
    plain, naming = mine(tmp_path), mine(tmp_path, "table_7")
    assert described(plain) == described(naming)
    assert all(plain.version(part) == naming.version(part) for part in Recipe.model_fields)


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
