"""What a run would make, and what there is: said before anything is made, and nothing is changed by saying it."""

from pathlib import Path

import pytest
from conftest import Project, prompt_rows

from dasd_assets.commands.assets import listed_assets
from dasd_assets.commands.dry_run import dry_run
from dasd_assets.commands.selected_assets import NoSuchAsset, chosen_assets
from dasd_assets.records.partitions import batches
from dasd_assets.service.planning import Planner


def page(project: Project, selection: str | None = None) -> str:
    with project.instance() as instance:
        return dry_run(instance, project.definitions, project.recipe, project.engines, project.home, selection)


def states(project: Project) -> dict[str, str]:
    with project.instance() as instance:
        definitions = project.definitions
        planner = Planner(instance, definitions, project.recipe, project.engines, project.warehouse)
        return {one.asset: one.state for one in listed_assets(definitions, planner.outlook())}


def test_of_what_is_up_to_date_nothing_would_be_made(finished: Project) -> None:
    assert page(finished) == f"everything of recipe {finished.recipe.name} is up to date: nothing would be made"
    found = states(finished)
    assert found.pop("maintenance") == "on demand"
    assert set(found.values()) == {"current"}


def test_a_new_file_is_named_and_not_registered(copy: Project) -> None:
    before = copy.warehouse.snapshot_id()
    copy.land("c.jsonl", prompt_rows(15, 18))
    said = page(copy)
    assert said.startswith("1 new prompt batch: c-")
    assert "Each batch (c-" in said
    assert "  prompts" in said.split("Each batch")[1].split("Over all")[0]
    assert "never materialized" in said
    with copy.instance() as instance:
        assert len(batches(instance)) == 2
    assert copy.warehouse.snapshot_id() == before


def test_a_changed_recipe_says_why(copy: Project) -> None:
    training = copy.recipe.training.model_copy(update={"epochs": copy.recipe.training.epochs + 1})
    changed = Project(copy.home, copy.recipe.model_copy(update={"training": training}))
    found = states(changed)
    assert found["checkpoint_t060"] == "code or recipe changed"
    assert found["prompts"] == "current"
    said = page(changed)
    assert "checkpoint_t060" in said
    assert "prompts" not in said


def test_a_home_without_anything(tmp_path: Path, finished: Project) -> None:
    empty = Project(tmp_path, finished.recipe)
    assert page(empty).startswith("no prompt file has landed: there is nothing to ask\nrecipe ")
    found = states(empty)
    assert (found["prompts"], found["teacher_model"]) == ("no prompt file has landed", "never materialized")


def test_a_selection_is_what_would_be_made(finished: Project) -> None:
    assert page(finished, "response_scores") == "would make 1 asset, as selected:\n  response_scores"


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        ("respons_scores", "no asset respons_scores; did you mean response_scores?"),
        ("prompts, 1+respons_scores+2", "no asset respons_scores; did you mean response_scores?"),
        ("nothing_of_ours", "no asset nothing_of_ours; there are: "),
        ("group:nowhere", "names no asset; there are: "),
        ("kind:", "Invalid selection string: kind:; write names"),
    ],
)
def test_a_selection_of_nothing_names_what_there_is(finished: Project, selection: str, told: str) -> None:
    with pytest.raises(NoSuchAsset) as error:
        chosen_assets(finished.definitions.resolve_asset_graph(), selection)
    assert told in str(error.value)
    assert "Dagster" not in str(error.value)
