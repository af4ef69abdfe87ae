"""Plans of recipes whose responses are there before the run: landed ones, and what another recipe has selected."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from conftest import Project, change, prompt_rows
from test_imported_responses import importing
from test_plan import assert_disk_adds_up
from test_selection_source import other

from dasd_assets.cli import main
from dasd_assets.commands.check.landed_responses import landed
from dasd_assets.commands.pilot_files import lines_of, write_lines
from dasd_assets.commands.plan import landed_prompts, scope_of
from dasd_assets.commands.planned_pool import carried_figures, landed_figures
from dasd_assets.plan.assumptions import assumed
from dasd_assets.plan.estimate import Plan, estimate
from dasd_assets.plan.figures import Figure
from dasd_assets.plan.hardware import machine
from dasd_assets.plan.savings import savings
from dasd_resources.errors import UserError
from dasd_resources.landing.landing_folder import landing_folder
from dasd_resources.landing.response_files import Landed, LandedResponse, Logprobs, read_responses
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake

CORE = machine("cpu", 1)
THOUGHT = "<think>\n{} is a number.\n</think>\nThe answer is {}."


def response(number: int, num_tokens: int = 0, **more: object) -> dict[str, object]:
    said: dict[str, object] = {"response": THOUGHT.format(number, number), **more}
    return {**said, "token_ids": [7] * num_tokens, "logprobs": [-0.5] * num_tokens} if num_tokens else said


@pytest.fixture
def imported(project: Project) -> Project:
    """Three questions: three responses to the first at 0.6, two at 1.0 to the second, of which one has no logprobs.

    A companion lands before the file with the response that its logprobs are of.
    """
    first, second, third = prompt_rows(0, 3)
    low = [response(1, 10), response(2, 20), response(3, sample_uuid="c")]
    project.land("a.jsonl", [{"sample_uuid": "c", "token_ids": [7] * 30, "logprobs": [-1.0] * 30}])
    project.land("b.jsonl", [{**first, "temperature": 0.6, "responses": low}])
    project.land("high.jsonl", [{**second, "responses": [response(4, 40), response(5)]}, {**third, **response(6, 60)}])
    document = importing(project.recipe, stands_for="itself").model_dump()
    project.recipe = Recipe.model_validate({**document, "imports": {"temperatures": {"high*": 1.0}}})
    return project


def values(figures: Mapping[str, Figure]) -> dict[str, float]:
    return {name: round(one.value, 4) for name, one in figures.items() if one.low == one.high}


def landed_there(project: Project) -> Iterator[Landed]:
    return landed(landing_folder(project.recipe, project.home), project.recipe)


def planned(recipe: Recipe, home: Path, found: Mapping[str, Figure]) -> Plan:
    prompts = list(landed_prompts(recipe, home))
    scope, told = scope_of(recipe, prompts, CORE, None)
    return estimate(recipe, scope, {**assumed(recipe, CORE), **told, **found})


def test_landed_responses_are_counted_not_assumed(imported: Project) -> None:
    found = landed_figures(landed_there(imported), imported.recipe, 3)
    assert values(found) == {
        "landed_each.t060": 1.0,  # three of three questions
        "used_share.t060": 0.6667,  # of one question, two candidates
        "given_share.t060": 1.0,
        "teacher_tokens.t060": 20.0,
        "landed_each.t100": 1.0,
        "used_share.t100": 1.0,
        "given_share.t100": 0.6667,
    }
    assert found["teacher_tokens.t100"].value == 50
    without = landed_figures(landed_there(imported), without_teacher(imported), 3)
    assert (without["landed_each.t100"].value, without["given_share.t100"].value) == (pytest.approx(2 / 3), 1.0)
    proxy = importing(imported.recipe, stands_for="another")
    assert landed_figures(landed_there(imported), proxy, 3)["given_share.t060"].value == 0
    assert landed_figures([], imported.recipe, 0)["landed_each.t060"].value == 2  # the recipe's candidates


def without_teacher(project: Project) -> Recipe:
    document = importing(project.recipe, engine="imported").model_dump()
    return Recipe.model_validate({**document, "imports": {"temperature": 0.6, "temperatures": {"high*": 1.0}}})


def test_what_is_imported_is_read_and_not_sampled(imported: Project) -> None:
    plan = planned(imported.recipe, imported.home, landed_figures(landed_there(imported), imported.recipe, 3))
    stages = {one.stage.asset: one for one in plan.stages}
    assert plan.rows["responses"].value == plan.rows["landed_responses"].value == 6
    assert plan.rows["student_tokens"].value == 5
    assert stages["teacher_generations_t060"].stage.kind == "imports"
    assert "teacher_continuations" in stages
    assert_disk_adds_up(plan)
    # What is there is there: fewer candidates, or shorter ones, save nothing.
    assert not [one for one in savings(plan) if one.change.startswith("generation")]


def test_without_a_teacher_nothing_is_planned_for_it(imported: Project) -> None:
    recipe = without_teacher(imported)
    plan = planned(recipe, imported.home, landed_figures(landed_there(imported), recipe, 3))
    stages = {one.stage.asset for one in plan.stages}
    assert {"landed_responses", "checkpoint_t100", "evaluations"} <= stages
    assert stages.isdisjoint({"student_rollouts", "teacher_continuations", "checkpoint_mixed", "answer_logprobs"})
    # Five questions, two answers each, by the student and the two checkpoints trained from it.
    assert plan.rows["evaluations"].value == 5 * 2 * 3
    assert "answer_tokens.teacher" not in plan.figures
    assert_disk_adds_up(plan)


def test_a_pilots_file_brings_the_same_responses(imported: Project, tmp_path: Path) -> None:
    prompts = list(landed_prompts(imported.recipe, imported.home))[:2]
    lines = lines_of(imported.recipe, prompts, imported.home)
    write_lines(tmp_path / "pilot.jsonl", [line for prompt in prompts for line in lines[prompt.prompt_id]])
    again = list(read_responses(tmp_path / "pilot.jsonl", "pilot.jsonl"))
    texts = [(one.text, one.temperature) for one in again if isinstance(one, LandedResponse)]
    assert texts == [(THOUGHT.format(n, n), 0.6 if n < 4 else 1.0) for n in range(1, 6)]
    assert [len(one.logprobs) for one in again if isinstance(one, Logprobs)] == [10, 20, 30, 40]


def test_another_recipes_selection_is_planned_by_its_rows(finished: Project) -> None:
    recipe = other(finished.recipe)
    found = carried_figures(finished.warehouse, recipe, finished.engines)
    plan = planned(recipe, finished.home, found)
    selected = finished.count("selected_responses WHERE recipe = 'tiny' AND dataset <> 'mixed'")
    das = finished.count("selected_responses WHERE recipe = 'tiny' AND dataset = 't060' AND policy = 'das'")
    assert (found["carried.t060"].value, found["present.t060"].value) == (das, finished.count("responses") / 2)
    rows = {table: number.value for table, number in plan.rows.items()}
    assert (rows["responses"], rows["student_logprobs"]) == (0, 0)
    assert rows["student_tokens"] == finished.count("responses")
    off_policy = rows["selected_responses"] - found["fitting_share"].value * selected
    assert off_policy < rows["sft_examples"] - found["fitting_share"].value * selected  # those and the continuations
    assert_disk_adds_up(plan)
    stages = {one.stage.asset for one in plan.stages}
    assert {"selection_source", "student_tokens", "checkpoint_mixed"} <= stages
    assert stages.isdisjoint({"teacher_generations_t060", "student_logprobs", "response_scores"})


def test_a_selection_that_is_not_there_is_refused(finished: Project, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dasd run --recipe tiny"):
        carried_figures(Lake(home=str(tmp_path)), other(finished.recipe), finished.engines)
    with pytest.raises(UserError, match="has selected nothing in this home"):
        recipe = other(finished.recipe, selection_from="nobody")
        carried_figures(finished.warehouse, recipe, finished.engines)


@pytest.mark.parametrize("option", ["--pilot", "--questions"])
def test_options_without_meaning_are_refused(
    option: str, tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    file = tmp_path / "larger.yaml"
    file.write_text(yaml.safe_dump(change(tiny, "selection_from", "demo").model_dump(mode="json")))
    assert main(["plan", str(file), option, "5"]) == 1
    assert "trains on what demo has selected" in capsys.readouterr().err
