"""How a stored response is judged, and under which version of the rules."""

import pytest
from conftest import thinking_of

from dasd_assets.rules.filters.catalogue import FILTERS, LIMITS, filter_version
from dasd_assets.rules.judging import judge_row, verdict_rows
from dasd_assets.rules.verdict import Verdict
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Filters, Recipe, load_recipe
from dasd_resources.storage.warehouse import Row

RECIPE = load_recipe("demo")
TEXT = "<think>\n4 + 3 = 7.\n</think>\nThe answer is 7."


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> PromptedModel:
    return Engines(home=str(tmp_path_factory.mktemp("home"))).find(RECIPE.student, "student.model")


def filters(**values: object) -> Filters:
    return RECIPE.filters.model_copy(update=values)


def recipe(**values: object) -> Recipe:
    return RECIPE.model_copy(update={"filters": filters(**values)})


def row(**values: object) -> Row:
    fields = {
        "question": "4 + 3?",
        "text": TEXT,
        "token_ids": [1, 2, 3],
        "finish_reason": "stop",
        "tool_call": False,
        "reference_answer": "7",
        "verifier": "math",
        "metadata": "{}",
        "num_student_tokens": 30,
        "token_kind": None,
        "token_reason": None,
    }
    return {**fields, **values}


def failed(judged: Row, limits: Filters = RECIPE.filters) -> list[str]:
    return [name for name, verdict in judge_row(judged, limits).items() if not verdict.passed]


def test_a_good_response_passes_every_filter() -> None:
    values = {"length": 30, "repetition": 0.0, "language": 0.0, "work": 0}
    assert judge_row(row(), RECIPE.filters) == {name: Verdict(True, value=values.get(name)) for name in FILTERS}


def test_each_fault_fails_its_own_filter() -> None:
    assert failed(row(finish_reason="length")) == ["truncation"]
    assert failed(row(tool_call=True)) == ["structure"]
    assert failed(row(reference_answer="8")) == ["correctness"]
    assert failed(row(text=TEXT.replace("7", "7, so we go on" * 99, 1))) == ["repetition"]


def test_a_question_the_students_template_refuses_fails_every_filter() -> None:
    refused = row(num_student_tokens=None, token_kind="unsupported_question", token_reason="no system role")
    expected = Verdict(False, "unsupported_question", "the student cannot be asked: no system role")
    assert judge_row(refused, RECIPE.filters) == dict.fromkeys(FILTERS, expected)


def test_length_is_that_of_the_students_tokens() -> None:
    assert failed(row(num_student_tokens=60), filters(max_student_tokens=60)) == []
    verdict = judge_row(row(num_student_tokens=60), filters(max_student_tokens=59))["length"]
    assert verdict == Verdict(False, "too_long", "60 student tokens, at most 59", 60)


def test_one_row_per_filter_with_the_columns_of_the_key() -> None:
    verdicts = {"length": Verdict(True, value=30), "truncation": Verdict(False, "cut_off", "cut off")}
    assert verdict_rows({"response_id": "r1", "batch": "b1"}, verdicts, "v1") == [
        {
            "response_id": "r1",
            "batch": "b1",
            "filter": "length",
            "passed": True,
            "kind": None,
            "reason": None,
            "value": 30,
            "filter_version": "v1",
        },
        {
            "response_id": "r1",
            "batch": "b1",
            "filter": "truncation",
            "passed": False,
            "kind": "cut_off",
            "reason": "cut off",
            "value": None,
            "filter_version": "v1",
        },
    ]


def test_the_version_names_the_limits_and_the_tokenizer_that_counts(student: PromptedModel) -> None:
    stricter = RECIPE.filters.repetition.model_copy(update={"max_tail_share": 0.4})
    versions = {
        filter_version(RECIPE, student.fingerprint),
        filter_version(recipe(max_student_tokens=511), student.fingerprint),
        filter_version(recipe(repetition=stricter), student.fingerprint),
        filter_version(recipe(max_foreign_share=0.2), student.fingerprint),
        filter_version(RECIPE, "0" * 16),
    }
    assert len(versions) == 5


def test_what_is_done_with_a_verdict_does_not_change_it(student: PromptedModel) -> None:
    for other in (recipe(require_correct=False), recipe(apply="after_selection"), recipe(required=("box",))):
        assert filter_version(other, student.fingerprint) == filter_version(RECIPE, student.fingerprint)


def test_a_recipes_thinking_counts_only_where_it_is_not_as_it_always_was() -> None:
    """The key is younger than homes: their verdicts stay, and another value has verdicts of its own."""
    limits = tuple(limit for limit in LIMITS if limit != "teacher.thinking")
    assert RECIPE.version(*LIMITS) == RECIPE.version(*limits)
    assert len({filter_version(thinking_of(RECIPE, value), "s") for value in ("required", "optional", "none")}) == 3
    assert filter_version(thinking_of(RECIPE, "required"), "s") == filter_version(RECIPE, "s")


def test_a_row_is_judged_by_the_thinking_of_the_recipe() -> None:
    answer = row(text="The answer is 7.")
    assert failed(answer) == ["structure"]
    assert all(verdict.passed for verdict in judge_row(answer, RECIPE.filters, thinking="none").values())
    assert judge_row(row(), RECIPE.filters, thinking="none")["structure"].kind == "unexpected_thinking"
