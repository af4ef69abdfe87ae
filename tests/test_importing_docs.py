"""The rows and the recipes of docs/importing.md are read as it says."""

import re
from pathlib import Path

import pytest
import yaml

from dasd_resources.landing.prompt_files import Prompt
from dasd_resources.landing.response_files import LandedResponse, Logprobs, read_questions, read_responses
from dasd_resources.recipe import Recipe, load_recipe

PAGE = (Path(__file__).parents[1] / "docs" / "importing.md").read_text(encoding="utf-8")
FILES = re.findall(r"```jsonl\n(.*?)```", PAGE, re.DOTALL)
RECIPES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


def test_its_rows_are_questions_responses_and_logprobs(tmp_path: Path) -> None:
    main, companion = FILES
    (tmp_path / "a.jsonl").write_text(main)
    questions = list(read_questions(tmp_path / "a.jsonl", "a.jsonl"))
    assert [type(record) for record in questions] == [Prompt] * 5
    landed = list(read_responses(tmp_path / "a.jsonl", "a.jsonl"))
    assert sum(isinstance(one, LandedResponse) for one in landed) == 6
    assert sum(isinstance(one, Logprobs) for one in landed) == 1 == len(landed) - 6
    (tmp_path / "b.jsonl").write_text(companion)
    [logprobs] = read_responses(tmp_path / "b.jsonl", "b.jsonl")
    assert isinstance(logprobs, Logprobs) and logprobs.sample == landed[0].sample == "a1"  # type: ignore[union-attr]


@pytest.mark.parametrize("fragment", RECIPES)
def test_its_recipes_are_valid(fragment: str) -> None:
    recipe = Recipe.model_validate({**load_recipe("demo").model_dump(), **yaml.safe_load(fragment)})
    assert recipe.imports is not None
    assert len(RECIPES) == 3


def test_the_first_pattern_that_matches_says_the_temperature() -> None:
    imports = Recipe.model_validate({**load_recipe("demo").model_dump(), **yaml.safe_load(RECIPES[0])}).imports
    assert imports is not None
    names = ("release-stage1-train.jsonl", "release-stage2-train.jsonl", "other.jsonl")
    assert [imports.temperature_of(name) for name in names] == [0.6, 1.0, None]


def test_imports_and_what_the_teacher_stands_for_go_together() -> None:
    demo = load_recipe("demo").model_dump()
    with pytest.raises(ValueError, match="go together; add the other, or remove both"):
        Recipe.model_validate({**demo, "imports": {}})
    with pytest.raises(ValueError, match="go together"):
        Recipe.model_validate({**demo, "teacher": {**demo["teacher"], "stands_for": "itself"}})
    absent = {**demo["teacher"], "engine": "imported"}
    for without in ({}, {"stands_for": "itself"}):
        with pytest.raises(ValueError, match="has no model here; name the one that wrote the responses"):
            Recipe.model_validate({**demo, "imports": {}, "teacher": {**absent, **without}})
    student = {**demo["student"], "engine": "imported", "stands_for": "a"}
    with pytest.raises(ValueError, match=r"student\.engine must be vllm or transformers"):
        Recipe.model_validate({**demo, "student": student})
