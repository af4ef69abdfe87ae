"""A recipe's names of scores and filters are those of the catalogues, wherever a recipe is used."""

import re
from pathlib import Path

import pytest
import yaml
from conftest import change

from dasd_assets.cli import main
from dasd_assets.definitions import build_definitions
from dasd_assets.rules.filters.catalogue import FILTERS
from dasd_assets.rules.recipe_names import check_names
from dasd_assets.rules.scores import SCORES
from dasd_resources.recipe import RECIPES, RecipeError, load_recipe
from dasd_resources.storage.warehouse import Warehouse


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_every_shipped_recipe_names_what_there_is(name: str) -> None:
    check_names(load_recipe(name))


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.yaml")))
def test_no_shipped_recipe_repeats_a_filters_own_limit(name: str) -> None:
    limits = load_recipe(name).checks.max_drop_share
    assert {key: limit for key, limit in limits.items() if limit == FILTERS[key].max_drop_share} == {}


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (
            "selection.score",
            "best",
            f"selection.score: there is no score 'best'; there are {', '.join(SCORES)}",
        ),
        (
            "checks.max_drop_share",
            {"lenght": 0.1, "length": 0.1},
            f"checks.max_drop_share: there is no filter 'lenght'; there are {', '.join(FILTERS)}; did you mean length?",
        ),
    ],
)
def test_a_fault_names_key_value_and_remedy(tmp_path: Path, path: str, value: object, message: str) -> None:
    with pytest.raises(RecipeError, match=f"^{re.escape(message)}$"):
        build_definitions(change(load_recipe("demo"), path, value), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [["run"], ["check", "--quick"], ["audit", "staleness"]])
def test_a_command_says_it_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    document = yaml.safe_load((RECIPES / "demo.yaml").read_text())
    document["selection"]["score"] = "best"
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("DASD_HOME", str(tmp_path / "home"))
    Warehouse(home=str(tmp_path / "home")).migrate()  # an audit needs one that exists
    assert main([*command, "--recipe", str(tmp_path / "mine.yaml")]) == 2
    assert capsys.readouterr().err.startswith(
        "dasd: selection.score: there is no score 'best'; there are teacher_share"
    )


def test_a_filter_that_is_required_must_exist_and_is_not_correctness() -> None:
    recipe = load_recipe("demo")
    check_names(change(recipe, "filters.required", ("box", "refusal")))
    with pytest.raises(RecipeError, match=r"filters.required: there is no filter 'boxes'; there are length, "):
        check_names(change(recipe, "filters.required", ("boxes",)))
    with pytest.raises(RecipeError, match=r"correctness is required by filters.require_correct: true"):
        check_names(change(recipe, "filters.required", ("correctness",)))
