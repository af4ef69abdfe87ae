"""The queries in docs/questions.md run, and its recipe keys load."""

import re
from pathlib import Path

import yaml
from conftest import Project
from test_docs import PAGES, commands

from dasd_resources.recipe import Recipe, load_recipe

TEXT = (Path(__file__).parents[1] / "docs" / "questions.md").read_text(encoding="utf-8")


def test_the_queries_run(finished: Project) -> None:
    queries = [words[1] for words in commands(PAGES["docs/questions.md"]) if words[0] == "sql"]
    assert len(queries) == 4
    for query in queries:
        finished.read(query)


def test_the_recipe_keys_are_those_of_a_recipe() -> None:
    [snippet] = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    document = load_recipe("demo").model_dump()
    document["generation"] |= yaml.safe_load(snippet)["generation"]
    generation = Recipe.model_validate(document).generation
    assert generation.instructions == {"math": "Put the final answer in \\boxed{}."}
    assert generation.questions_per_domain["math"] == 105_000


def test_the_kinds_that_it_names_exist() -> None:
    kinds = (Path(__file__).parents[1] / "docs" / "kinds.md").read_text(encoding="utf-8")
    named = re.findall(r"`((?:duplicate|conflicting)\w*)`", TEXT)
    assert len(named) >= 4
    assert all(f"| `{kind}` |" in kinds for kind in named)
