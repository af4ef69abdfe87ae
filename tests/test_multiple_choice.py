"""`multiple_choice`: ways to say an option and ways not to, by the share that is read; limits; listed options.

`tuning.jsonl` was looked at while the rules were written. `unseen.jsonl` was written afterwards and measured once: 40
of 47 right ways taken, 2 of 61 wrong ones. The two and four of the seven have been read since.
"""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasd_resources.verifiers.catalogue import reference_fault, verify
from dasd_resources.verifiers.judgement import Asked
from dasd_resources.verifiers.multiple_choice import MAX_CHARS, chosen

DATA = Path(__file__).parent / "data" / "multiple_choice"
LISTED = "Which?\nA. 12 cm\nB. 15 cm\nC. 18 cm"


def taken(row: dict[str, str]) -> bool:
    asked = Asked(row.get("question", "q"), row["reference"], "{}")
    return verify("multiple_choice", row["answer"], asked).outcome == "correct"


@pytest.mark.parametrize(
    ("name", "lost", "wrongly"),
    [("tuning", 6, {"The answer is F. Scott Fitzgerald."}), ("unseen", 3, set())],
)
def test_ways_to_say_an_option(name: str, lost: int, wrongly: set[str]) -> None:
    rows = [json.loads(line) for line in (DATA / f"{name}.jsonl").read_text("utf-8").splitlines()]
    right, wrong = ([row for row in rows if row["correct"] is correct] for correct in (True, False))
    assert min(len(right), len(wrong)) >= 40
    assert {row["answer"] for row in wrong if taken(row)} == wrongly
    assert len([row["answer"] for row in right if not taken(row)]) <= lost


@pytest.mark.parametrize(
    ("answer", "option"),
    [
        ("\\boxed{A}. No: \\boxed{B}", None),  # boxes that disagree
        ("\\boxed{A}\n\nSo the answer is B.", None),
        ("\\boxed{12} so the answer is B", "B"),  # a box that names no option says nothing of it
        ("The answer is A. On second thoughts the answer is B.", "B"),
        ("The answer is A. Then again, C is correct.", None),
        ("C is correct. So the answer is A.", "A"),
        ("A", "A"),
        ("A.\nB.", None),
        ("Possible answers\nA. 12 cm\nB. 15 cm\nC. 18 cm", None),
        ("(C) contradicts the passage.", None),
        ("Answer (C) requires that x > 0.", None),
        ("(C) Increases the rate.", "C"),
        ("K", None),
    ],
)
def test_which_claim_counts(answer: str, option: str | None) -> None:
    assert chosen(answer, "q") == option


@pytest.mark.parametrize(
    ("answer", "option"),
    [("15 cm", "B"), ("b. 15 cm", "B"), ("b. 12 cm", None), ("B. 12 cm", None), ("B. 15 cm", "B"), ("15", None)],
)
def test_options_that_the_question_lists(answer: str, option: str | None) -> None:
    assert chosen(answer, LISTED) == option


def test_options_of_the_same_text_are_known_by_their_letters_alone() -> None:
    assert chosen("1 m", "A. 1 m\nB. 1 m") is None
    assert chosen("B. 1 m", "A. 1 m\nB. 1 m") is None
    assert chosen("B", "A. 1 m\nB. 1 m") == "B"


def test_a_list_with_a_gap_is_no_list_of_options() -> None:
    assert chosen("15 cm", "A. 12 cm\nC. 15 cm") is None


@pytest.mark.parametrize(
    "reference", ["C", "(C)", "c", "C. text", "C) text", "\\boxed{C}", "**C**", "The answer is C."]
)
def test_references(reference: str) -> None:
    asked = Asked("q", reference, "{}")
    assert reference_fault("multiple_choice", asked) is None
    assert verify("multiple_choice", "So it is (C).", asked).outcome == "correct"


def test_reasons() -> None:
    asked = Asked("q", "B", "{}")
    assert verify("multiple_choice", "(C)", asked).reason == "multiple_choice: option C, expected 'B'"
    assert verify("multiple_choice", "B or C", asked).reason == (
        "multiple_choice: no single option in 'B or C', expected 'B'"
    )
    assert verify("multiple_choice", " ", asked).reason == "multiple_choice: the answer is empty"
    assert f"at most {MAX_CHARS} are read" in (verify("multiple_choice", "B " * MAX_CHARS, asked).reason or "")


pieces = st.sampled_from(
    ("\\boxed{", "}", "The answer is ", "A", "b", " or ", "(C)", ". ", "\n", "\u7b54\u6848", "\ud800", "so ")
)


@given(st.lists(pieces, max_size=30).map("".join))
def test_no_answer_raises(answer: str) -> None:
    assert chosen(answer, LISTED) in {None, *"ABCDEFGHIJ"}
