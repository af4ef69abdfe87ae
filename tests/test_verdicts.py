"""How a stored response is judged, and under which version of the rules."""

import shutil
from pathlib import Path

import pytest

from dasd_assets.rules.filters import FILTERS, filter_version
from dasd_assets.rules.verdict import Verdict
from dasd_assets.verdicts import judge_row, verdict_rows
from dasd_resources.chat import Chat
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
        "system_prompt": None,
        "text": TEXT,
        "token_ids": [1, 2, 3],
        "finish_reason": "stop",
        "tool_call": False,
        "reference_answer": "7",
        "verifier": "math",
        "metadata": "{}",
    }
    return {**fields, **values}


def failed(student: PromptedModel, judged: Row, limits: Filters = RECIPE.filters) -> list[str]:
    return [name for name, verdict in judge_row(judged, student.chat, limits).items() if not verdict.passed]


def test_a_good_response_passes_every_filter(student: PromptedModel) -> None:
    assert judge_row(row(), student.chat, RECIPE.filters) == {name: Verdict(True) for name in FILTERS}


def test_each_fault_fails_its_own_filter(student: PromptedModel) -> None:
    assert failed(student, row(finish_reason="length")) == ["truncation"]
    assert failed(student, row(tool_call=True)) == ["structure"]
    assert failed(student, row(reference_answer="8")) == ["correctness"]
    assert failed(student, row(token_ids=[5, 6] * 200)) == ["repetition"]


def test_a_text_whose_token_ids_are_not_all_there_is_judged_on_the_students(student: PromptedModel) -> None:
    loop = "".join(f"Now {'+'.join(str(i % 7) for i in range(j % 3, 30))}. " for j in range(12))
    whole = row(text=f"<think>\n{loop}\n</think>\nThe answer is 7.")
    del whole["token_ids"]
    verdict = judge_row(whole, student.chat, RECIPE.filters)["repetition"]
    assert not verdict.passed
    assert verdict.kind == "repeated_ngrams"
    assert "-grams make up" in str(verdict.reason)
    assert judge_row({key: row()[key] for key in row() if key != "token_ids"}, student.chat, RECIPE.filters)[
        "repetition"
    ].passed


def test_a_question_the_students_template_refuses_fails_every_filter(student: PromptedModel, tmp_path: Path) -> None:
    folder = shutil.copytree(student.path, tmp_path / "model")
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    (folder / "chat_template.jinja").write_text(refusing + (folder / "chat_template.jinja").read_text())
    chat = Chat.load(folder, student.spec.model_copy(update={"system_prompt": None}))
    verdicts = judge_row(row(system_prompt="Be kind."), chat, RECIPE.filters)
    told = "the student cannot be asked: the model's chat template refuses the question with a system prompt of its own"
    assert {str(v.reason).startswith(told) for v in verdicts.values()} == {True}
    assert {v.kind for v in verdicts.values()} == {"unsupported_question"}
    assert judge_row(row(), chat, RECIPE.filters)["length"].passed


def test_length_counts_the_whole_training_row_in_student_tokens(student: PromptedModel) -> None:
    num_prompt = len(student.chat.prompt_ids("4 + 3?"))
    size = num_prompt + student.chat.num_tokens(TEXT) + 1  # the end of turn
    assert failed(student, row(), filters(max_student_tokens=size)) == []
    verdict = judge_row(row(), student.chat, filters(max_student_tokens=size - 1))["length"]
    assert verdict == Verdict(False, "too_long", f"{size} student tokens, at most {size - 1}")
    longer = row(system_prompt="You are a helpful assistant who counts.")
    assert failed(student, longer, filters(max_student_tokens=size)) == ["length"]


def test_one_row_per_filter_with_the_columns_of_the_key() -> None:
    verdicts = {"length": Verdict(True), "truncation": Verdict(False, "cut_off", "cut off")}
    assert verdict_rows({"response_id": "r1", "batch": "b1"}, verdicts, "v1") == [
        {
            "response_id": "r1",
            "batch": "b1",
            "filter": "length",
            "passed": True,
            "kind": None,
            "reason": None,
            "filter_version": "v1",
        },
        {
            "response_id": "r1",
            "batch": "b1",
            "filter": "truncation",
            "passed": False,
            "kind": "cut_off",
            "reason": "cut off",
            "filter_version": "v1",
        },
    ]


def test_the_version_names_the_limits_and_the_tokenizer_that_counts(student: PromptedModel) -> None:
    stricter = RECIPE.filters.repetition.model_copy(update={"max_tail_share": 0.4})
    versions = {
        filter_version(RECIPE, student.fingerprint),
        filter_version(recipe(max_student_tokens=511), student.fingerprint),
        filter_version(recipe(repetition=stricter), student.fingerprint),
        filter_version(RECIPE, "0" * 16),
    }
    assert len(versions) == 4


def test_what_is_done_with_a_verdict_does_not_change_it(student: PromptedModel) -> None:
    for other in (recipe(require_correct=False), recipe(apply="after_selection")):
        assert filter_version(other, student.fingerprint) == filter_version(RECIPE, student.fingerprint)
