"""The asset graph of a recipe: loads without a model, has the contract's assets, each says what its rows are."""

import pkgutil
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import dagster as dg
import pytest
from conftest import change

import dasd_assets
from dasd_assets.definitions import STAGES, EnvironmentEngines, build_definitions
from dasd_assets.records.tags import EXPERIMENTS
from dasd_resources.recipe import Recipe, load_recipe

NAMED = [
    "prompts",
    "teacher_generations_t060",
    "teacher_generations_t100",
    "student_tokens",
    "response_verdicts",
    "student_logprobs",
    "sentence_probabilities",
    "response_scores",
    "selected_responses_t060",
    "selected_responses_t100",
    "random_responses",
    "sft_dataset_t060",
    "sft_dataset_t100",
    "checkpoint_t060",
    "checkpoint_t100",
    "checkpoint_mixed",
    "student_rollouts",
    "prefix_cuts",
    "teacher_continuations",
    "continuation_tokens",
    "mixed_policy_dataset",
    "evaluations",
    "evaluation_metrics",
    "leaderboard",
    "distillation_report",
]
WITHOUT_TABLE = {"published_dataset", "distillation_report", "answer_provenance", "leaderboard", "maintenance"}
GENERATIONS = ("teacher_generations_t060", "teacher_generations_t100")
ROLLED_OUT = (
    "student_rollouts",
    "prefix_cuts",
    "teacher_continuations",
    "continuation_tokens",
    "continuation_verdicts",
)
TYPED = ("answer_sentence_types", "answer_provenance")
ANSWERS = ("answer_logprobs", "answer_sentences", "answer_provenance")
TOLD = ("published_dataset", "distillation_report")
SELECTED = ("selected_responses_t060", "selected_responses_t100")


@pytest.mark.parametrize("name", ["demo", "dasd-4b"])
def test_definitions_load_without_any_model(name: str, tmp_path: Path) -> None:
    definitions = build_definitions(load_recipe(name), tmp_path)
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    assert set(NAMED) <= {key.to_user_string() for key in graph.toposorted_asset_keys}
    assert list(tmp_path.iterdir()) == []


def test_every_asset_says_what_a_row_is(tmp_path: Path) -> None:
    graph = build_definitions(load_recipe("demo"), tmp_path).resolve_asset_graph()
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        assert node.group_name != "default"
        assert node.description is not None
        assert node.description.startswith("One row") or key.to_user_string() in WITHOUT_TABLE


@pytest.mark.parametrize("name", ["demo", "dasd-4b"])
def test_no_two_assets_have_one_table_name(name: str, tmp_path: Path) -> None:
    """The web UI would link them, as though one were loaded from elsewhere."""
    graph = build_definitions(load_recipe(name), tmp_path).resolve_asset_graph()
    tables = {
        key.to_user_string(): graph.get(key).metadata.get("dagster/table_name") for key in graph.toposorted_asset_keys
    }
    known = [table for table in tables.values() if table is not None]
    assert len(known) == len(set(known)) == len(tables.keys() - WITHOUT_TABLE)


def test_every_module_that_builds_assets_is_a_stage(tmp_path: Path) -> None:
    """One that is left out of STAGES, or of its package's `build`, would be nowhere."""
    recipe = load_recipe("demo")
    graph = build_definitions(recipe, tmp_path).resolve_asset_graph()
    builders = 0
    for info in pkgutil.walk_packages(dasd_assets.__path__, f"{dasd_assets.__name__}."):
        build = vars(import_module(info.name)).get("build")
        if build is not None and get_type_hints(build)["return"] == list[dg.AssetsDefinition]:
            builders += 1
            for asset in build(recipe):
                assert set(asset.keys) <= set(graph.get_all_asset_keys()), info.name
    assert builders > len(STAGES)


def test_every_asset_of_the_recipes_making_has_a_code_version(tmp_path: Path) -> None:
    graph = build_definitions(load_recipe("demo"), tmp_path).resolve_asset_graph()
    without = {key.to_user_string() for key in graph.toposorted_asset_keys if graph.get(key).code_version is None}
    assert without == set()


@pytest.mark.parametrize(
    ("path", "value", "changed"),
    [
        (
            "selection.divergence.threshold",
            0.3,
            {"sentence_types", "response_scores", *SELECTED, "random_responses", "heldout_losses", *TOLD, *TYPED},
        ),
        (
            "generation.num_candidates",
            4,
            {*GENERATIONS, "student_logprobs", *SELECTED, "random_responses", "heldout_losses", *TOLD},
        ),
        ("training.learning_rate", 1e-3, {"checkpoint_t060", "checkpoint_t100", "checkpoint_mixed"}),
        ("mixed_policy.epochs", 9, {"checkpoint_mixed"}),
        ("mixed_policy.length_cap", 2.0, {*ROLLED_OUT, "mixed_policy_dataset", "distillation_report"}),
        ("mixed_policy.off_policy_ratio", 2.0, {"mixed_policy_dataset"}),
        ("evaluation.samples_per_question", 8, {"evaluations", "evaluation_metrics", *ANSWERS, "distillation_report"}),
    ],
)
def test_a_recipes_value_touches_only_the_assets_it_is_for(
    tmp_path: Path, path: str, value: object, changed: set[str]
) -> None:
    def versions(recipe: Recipe) -> dict[str, str | None]:
        graph = build_definitions(recipe, tmp_path).resolve_asset_graph()
        keys = [key for key in graph.toposorted_asset_keys if graph.get(key).group_name != EXPERIMENTS]
        return {key.to_user_string(): graph.get(key).code_version for key in keys}

    demo = load_recipe("demo")
    before, after = versions(demo), versions(change(demo, path, value))
    assert {name for name in before if before[name] != after[name]} == changed


def test_a_third_temperature_is_a_third_stage(tmp_path: Path) -> None:
    recipe = load_recipe("demo")
    generation = recipe.generation.model_copy(update={"temperatures": (0.6, 0.8, 1.0)})
    graph = build_definitions(recipe.model_copy(update={"generation": generation}), tmp_path).resolve_asset_graph()
    names = {key.to_user_string() for key in graph.toposorted_asset_keys}
    assert {"teacher_generations_t080", "selected_responses_t080"} <= names
    checkpoints = {name for name in names if name.startswith("checkpoint_")}
    assert checkpoints == {"checkpoint_t060", "checkpoint_t080", "checkpoint_t100", "checkpoint_mixed"}


def test_definitions_load_without_the_server_of_the_teacher(tmp_path: Path) -> None:
    recipe = load_recipe("demo")
    server = {"base_urls": ["http://127.0.0.1:1/v1"], "model": "t", "revision": "1", "api_key_env": "NOT_SET"}
    served = change(recipe, "teacher", {**recipe.teacher.model_dump(), "engine": "openai", "server": server})
    graph = build_definitions(served, tmp_path).resolve_asset_graph()
    assert dg.AssetKey("teacher_model") in graph.get_all_asset_keys()


def test_api_keys_come_from_the_environment_and_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engines = EnvironmentEngines(home=str(tmp_path))
    assert engines.api_key("TEACHER_KEY") is None
    monkeypatch.setenv("TEACHER_KEY", "sk-very-secret-7f")
    assert engines.api_key("TEACHER_KEY") == "sk-very-secret-7f"
    assert "sk-very-secret-7f" not in f"{engines!r} {engines.model_dump()}"


def test_groups_read_in_the_order_of_the_data(tmp_path: Path) -> None:
    """The web UI sorts groups by name: no asset may come before what it is made from, but for experiments."""
    graph = build_definitions(load_recipe("demo"), tmp_path, compared=()).resolve_asset_graph()
    for key in graph.toposorted_asset_keys:
        for parent in graph.get(key).parent_keys:
            assert str(graph.get(parent).group_name) <= str(graph.get(key).group_name), (parent, key)
    assert len({graph.get(key).group_name for key in graph.toposorted_asset_keys}) == 9


def test_every_asset_has_the_recipes_owners_kinds_and_a_place_in_the_code(tmp_path: Path) -> None:
    recipe = change(load_recipe("demo"), "owners", ["team:data", "ada@example.org"])
    graph = build_definitions(recipe, tmp_path).resolve_asset_graph()
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        assert list(node.owners) == ["team:data", "ada@example.org"]
        assert node.kinds
        (reference,) = node.metadata["dagster/code_references"].code_references
        assert Path(reference.file_path).is_relative_to(Path(dasd_assets.__file__).parent)
        lines = Path(reference.file_path).read_text(encoding="utf-8").splitlines()
        assert lines[reference.line_number - 1].lstrip().startswith("@")  # of the stage's own function


def test_freshness_is_the_recipes_days(tmp_path: Path) -> None:
    recipe = change(load_recipe("demo"), "freshness", {"prompts_days": 3, "selection_days": None, "training_days": 9})
    graph = build_definitions(recipe, tmp_path).resolve_asset_graph()
    fresh = {
        key.to_user_string(): node.freshness_policy.warn_window.to_timedelta().days
        for key in graph.toposorted_asset_keys
        if (node := graph.get(key)).freshness_policy
    }
    assert fresh == {"prompts": 3, "checkpoint_t060": 9, "checkpoint_t100": 9, "checkpoint_mixed": 9}
