"""A short recipe is whole by its defaults, the report's; written down in either form it is the same recipe."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from jsonschema import Draft202012Validator
from test_recipe import DEMO

from dasd_assets.cli import main
from dasd_resources.recipe import RECIPES, Recipe, RecipeError, load_recipe
from dasd_resources.recipe.document import full_text, schema_text, short_text

SHORT = """\
name: mine
teacher:
  model: Qwen/Qwen3-32B
  server: {base_urls: ["http://localhost:8000/v1"], model: Qwen/Qwen3-32B, revision: main}
student:
  model: Qwen/Qwen3-4B-Instruct-2507
  system_prompt: You are a helpful assistant.
evaluation:
  benchmarks:
    - {name: aime25, layout: aime25, path: ./aime25.jsonl}
"""
SHIPPED = sorted(path.stem for path in RECIPES.glob("*.yaml"))
# What the report does not say, or says for its own number of questions and GPUs: ours differ from the shipped recipe's.
NOT_THE_REPORTS = {"strategy", "gpus_per_node", "policy", "budgets"}


@pytest.fixture
def short(tmp_path: Path) -> Recipe:
    (tmp_path / "mine.yaml").write_text(SHORT)
    return load_recipe(str(tmp_path / "mine.yaml"))


def test_what_a_short_recipe_leaves_out_is_the_reports(short: Recipe) -> None:
    assert len(SHORT.splitlines()) <= 15
    report = load_recipe("dasd-4b")
    assert short.seed == report.seed
    for section in ("generation", "filters", "selection", "training", "mixed_policy"):
        ours, theirs = (getattr(recipe, section).model_dump() for recipe in (short, report))
        assert {key: ours[key] for key in ours.keys() - NOT_THE_REPORTS} == {
            key: theirs[key] for key in theirs.keys() - NOT_THE_REPORTS
        }
    asked = {"temperatures", "top_p", "samples_per_question"}
    assert short.evaluation.model_dump(include=asked) == report.evaluation.model_dump(include=asked)
    assert short.evaluation.benchmarks[0].max_tokens == 102_400


def test_a_model_with_a_server_runs_on_it(short: Recipe) -> None:
    assert (short.teacher.engine, short.student.engine) == ("openai", "vllm")


def test_one_context_is_the_limit_of_responses_too(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SHORT + "training: {max_length: 8192}\n")
    recipe = load_recipe(str(tmp_path / "mine.yaml"))
    assert (recipe.generation.max_tokens, recipe.filters.max_student_tokens) == (8192, 8192)
    (tmp_path / "mine.yaml").write_text(
        SHORT + "training: {max_length: 8192}\ngeneration: {max_tokens: 100}\nfilters: {max_student_tokens: 9000}\n"
    )
    with pytest.raises(RecipeError, match="max_student_tokens 9000 is above training"):
        load_recipe(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("write", [full_text, short_text])
def test_a_recipe_that_was_written_down_is_the_same(tmp_path: Path, name: str, write: object) -> None:
    assert callable(write)
    recipe = load_recipe(name, tmp_path)
    (tmp_path / "again.yaml").write_text(write(recipe))
    again = load_recipe(str(tmp_path / "again.yaml"), tmp_path)
    assert again == recipe
    assert all(again.version(part) == recipe.version(part) for part in Recipe.model_fields)


def test_a_default_that_is_spelled_out_changes_no_version(short: Recipe, tmp_path: Path) -> None:
    (tmp_path / "again.yaml").write_text(full_text(short))
    again = load_recipe(str(tmp_path / "again.yaml"))
    assert all(again.version(part) == short.version(part) for part in Recipe.model_fields)


def test_a_text_of_several_lines_is_read_again(tmp_path: Path) -> None:
    document = {**DEMO, "student": {**DEMO["student"], "system_prompt": "a: 'b'\n# c\n\n\u00e9 \\boxed{}"}}
    recipe = Recipe.model_validate(document)
    for write in (full_text, short_text):
        assert yaml.safe_load(write(recipe))["student"]["system_prompt"] == recipe.student.system_prompt


def test_the_whole_recipe_says_what_each_key_means(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "--recipe", "demo", "--full"]) == 0
    text = capsys.readouterr().out
    assert "  epochs: 8 # Of each stage; those of the mixed-policy stage are in mixed_policy.\n" in text
    assert text.count("#") > 120


def test_the_schema_takes_what_is_taken_and_explains_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipe", "--schema"]) == 0
    schema = yaml.safe_load(capsys.readouterr().out)
    assert schema == yaml.safe_load(schema_text())
    Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(SHORT), schema)
    for name in SHIPPED:
        jsonschema.validate(yaml.safe_load((RECIPES / f"{name}.yaml").read_text()), schema)
    for columns in ("gsm8k", ["gsm8k", {"question": "problem", "where": "*.csv"}], {"question": ["a", {"path": "b"}]}):
        document = {**DEMO, "landing": {"columns": columns}}
        jsonschema.validate(document, schema)
        Recipe.model_validate(document)
    with pytest.raises(jsonschema.ValidationError, match="'epoch' was unexpected"):
        jsonschema.validate({**DEMO, "training": {"epoch": 1}}, schema)
    assert "report" in schema["$defs"]["MixedPolicy"]["properties"]["length_cap"]["description"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("filters: {requre_correct: true}", "filters.requre_correct: .*; did you mean require_correct?"),
        ("epochs: 3", "epochs: .*; did you mean training.epochs or "),
        ("fliters: {}", "fliters: .*; did you mean filters?"),
        ("selection: {score: teacher_shares}", "there is no score 'teacher_shares'; .*; did you mean teacher_share?"),
        ("nothing_like_it: 3", "remove the key or correct its spelling"),
    ],
)
def test_a_mistyped_key_is_told_what_it_was_meant_to_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: str, told: str
) -> None:
    (tmp_path / "mine.yaml").write_text(f"{SHORT}{line}\n")
    assert main(["recipe", "--recipe", str(tmp_path / "mine.yaml")]) == 2
    assert re.search(told.replace("?", r"\?"), capsys.readouterr().err)
