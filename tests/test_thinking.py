"""Teachers that do not think, or not always: through the small pipeline; and what is said where the key is wrong."""

import re
from pathlib import Path
from typing import get_args

import pytest
import yaml
from conftest import Project, change, prompt_rows, thinking_of

from dasd_assets.audit.verify import verify
from dasd_assets.rules.thinking import advice
from dasd_resources.recipe import Recipe, Thinking, load_recipe


def test_the_key_is_named_where_most_are_dropped_for_their_thinking() -> None:
    assert advice({"no_thinking": 22}, "required") == (
        "22 of the 22 that structure dropped have no thinking part, and teacher.thinking is required: write "
        "teacher.thinking: none if the teacher is not to think, optional to keep both kinds "
        "(nothing is generated again)"
    )
    assert advice({"unexpected_thinking": 1200, "tool_call": 3}, "none").startswith(
        "1,200 of the 1,203 that structure dropped have a thinking part, and teacher.thinking is none: write "
        "teacher.thinking: required if the teacher is to think"
    )


def test_it_is_not_named_where_something_else_drops_them() -> None:
    assert advice({}, "required") == advice({"tool_call": 5, "no_thinking": 5}, "required") == ""
    assert advice({"no_thinking": 5, "no_final_answer": 9}, "optional") == advice({"no_final_answer": 9}, "none") == ""


def test_the_pages_recipes_load_and_it_names_every_value() -> None:
    page = (Path(__file__).parents[1] / "docs" / "thinking.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        document = load_recipe("demo").model_dump() | yaml.safe_load(snippet)
        del document["student"]["thinking"]
        assert Recipe.model_validate(document).student.thinking == "none"
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == list(get_args(Thinking))


def without_thinking(project: Project, table: str) -> tuple[int, int]:
    """How many texts of a table have no thinking part, and how many there are."""
    query = f"SELECT count(*) FILTER (NOT starts_with(text, '<think>')), count(*) FROM {table}"
    found: tuple[int, int] = project.read(query).row(0)
    return found


def sentences_and_the_rest_make_the_whole(project: Project) -> bool:
    """Of every scored response, for both models: what is in no sentence is in a delimiter, or the end of turn."""
    query = """WITH of_sentences AS (SELECT response_id, sum(teacher_num_tokens) AS num, sum(stop - start) AS size
            FROM sentence_probabilities GROUP BY ALL)
        SELECT bool_and(r.text LIKE '<think>%' OR (s.num = len(r.token_ids) - 1 AND s.size = length(r.text)))
        FROM of_sentences s JOIN responses r USING (response_id)"""
    return bool(project.read(query).item())


def test_where_the_key_is_corrected_all_is_judged_anew_and_nothing_generated_again(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    project.fake.thinks = lambda seed: False
    project.fake.steady = True  # so that the only reason to be dropped is the missing thinking
    project.materialize("*selected_responses_t060")
    (reason,) = project.read("SELECT reason FROM empty_datasets")["reason"]
    assert "structure dropped 18 of 18" in reason
    assert "18 of the 18 that structure dropped have no thinking part" in reason
    assert "write teacher.thinking: none" in reason
    responses = set(project.read("SELECT response_id FROM responses")["response_id"])
    project.fake.generated.clear()
    project.recipe = thinking_of(project.recipe, "none")
    project.select()
    assert responses.isdisjoint(project.fake.generated)
    assert sentences_and_the_rest_make_the_whole(project)
    assert project.read("SELECT count(DISTINCT dataset) FROM sft_examples").item() == 2


@pytest.mark.drill
def test_a_teacher_that_does_not_think(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    project.recipe = thinking_of(change(project.recipe, "mixed_policy.length_cap", 1.0), "none")
    project.fake.thinks = lambda seed: False
    project.run()
    for table in ("student_rollouts", "teacher_continuations"):
        num_without, total = without_thinking(project, table)
        assert num_without == total > 0
    trained = [job.checkpoint_id for job in project.fake.trained]
    assert len(trained) == 3
    assert project.read("SELECT count(DISTINCT dataset) FROM sft_examples").item() == 3
    accuracy = project.read(
        "SELECT name, avg(correct::INT) FROM evaluations JOIN checkpoints USING (checkpoint_id) GROUP BY ALL"
    )
    assert accuracy.height == 5 and accuracy.to_series(1).min() > 0.1  # the answer is found in the whole text
    assert list(verify(project.warehouse)) == []


@pytest.mark.drill
def test_a_teacher_that_thinks_now_and_then(project: Project) -> None:
    """A hybrid set keeps both kinds, in every stage."""
    project.land("a.jsonl", prompt_rows(0, 15))
    project.fake.thinks = lambda seed: seed % 2 == 0
    project.recipe = thinking_of(change(project.recipe, "mixed_policy.length_cap", 1.0), "optional")
    project.run()
    taught = "(SELECT text FROM sft_examples JOIN responses USING (response_id))"
    for texts in ("responses", "student_rollouts", "teacher_continuations", taught):
        num_without, total = without_thinking(project, texts)
        assert 0 < num_without < total
    assert sentences_and_the_rest_make_the_whole(project)
    assert project.read("SELECT count(*) FROM response_verdicts WHERE kind = 'no_thinking'").item() == 0
    assert list(verify(project.warehouse)) == []

    # What is required of it changes what is kept, and asks for none of the responses again.
    asked = len(project.fake.generated)
    responses = set(project.read("SELECT response_id FROM responses")["response_id"])
    project.recipe = thinking_of(project.recipe, "required")
    project.run()
    assert responses.isdisjoint(project.fake.generated[asked:])
    assert without_thinking(project, taught)[0] == 0
    assert list(verify(project.warehouse)) == []
