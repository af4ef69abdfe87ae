"""Overlap with held-out questions: exact copies, n-grams that one of them alone has, and the words in common."""

import pytest

from dasd_assets.rules.contamination import HeldOut, HeldOutIndex
from dasd_assets.rules.words import ngrams, words

CLOSING = "Find the value of m + n where m and n are relatively prime positive integers with no common factor."
HOSPITAL = "A hospital has seven red beds and nine blue beds in each of its four long wards on every floor."
TRAIN = "A train leaves the northern city at noon and meets a slower train from the southern city at four."


def index(*texts: str, size: int = 13, min_share: float = 0.0) -> HeldOutIndex:
    return HeldOutIndex((HeldOut("exam", f"q{i}", text) for i, text in enumerate(texts)), size, min_share)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Let $x^2 + 3x = 7$.", ["let", "x", "^", "2", "+", "3x", "=", "7"]),
        ("\\frac{1}{2} of It's", ["frac", "1", "2", "of", "it", "s"]),
        ("求 x 的值。", ["求", "x", "的", "值"]),
        ("Ｆｕｌｌ－width", ["full", "-", "width"]),
        ("¿?", []),
    ],
)
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_ngrams_of_a_short_text_are_the_text() -> None:
    assert ngrams(["a", "b"], 3) == ["a b"]
    assert ngrams(["a", "b", "c", "d"], 3) == ["a b c", "b c d"]
    assert ngrams([], 3) == []


@pytest.mark.parametrize("copy", [HOSPITAL, f"  {HOSPITAL.upper()}\n", HOSPITAL.replace("seven", "$seven$")])
def test_a_copy_is_found_whatever_its_case_and_typography(copy: str) -> None:
    found = index(TRAIN, HOSPITAL).find(copy)
    assert found is not None and found.exact
    assert found.twin.question_id == "q1"
    assert found.reason == "is question q1 of exam"


def test_a_quotation_is_found_with_the_words_in_common() -> None:
    quoted = f"Consider this. {HOSPITAL[: HOSPITAL.index(' on every')]} What is the number of doors?"
    found = index(TRAIN, HOSPITAL).find(quoted)
    assert found is not None and not found.exact
    # 20 words have 8 n-grams of 13; the 17 that are quoted have 5
    assert (found.twin.question_id, found.num_shared, found.num_ngrams) == ("q1", 5, 8)
    assert found.text == "a hospital has seven red beds and nine blue beds in each of its four long wards"
    assert "shares 5 of 8 n-grams with question q1 of exam: 'a hospital has" in found.reason


def test_wording_that_held_out_questions_share_shows_nothing() -> None:
    exam = (f"{HOSPITAL} {CLOSING}", f"{TRAIN} {CLOSING}")
    assert index(*exam).find(f"A pirate hides gold. {CLOSING}") is None
    # one question alone has it: then it is its own
    assert index(exam[0]).find(f"A pirate hides gold. {CLOSING}") is not None


def test_variants_of_one_question_do_not_hide_what_they_share() -> None:
    exam = index(TRAIN, HOSPITAL, HOSPITAL.replace("every floor", "all floors of the house"), f"Read on. {HOSPITAL}")
    quoted = exam.find(f"Consider this. {HOSPITAL[: HOSPITAL.index(' on every')]}")
    assert quoted is not None and (quoted.twin.question_id, quoted.num_shared) == ("q1", 5)
    changed = exam.find("beds in each of its four long wards on all floors of the house?")
    assert changed is not None and changed.twin.question_id == "q2"


def test_the_least_share_of_a_recipe() -> None:
    quoted = HOSPITAL[: HOSPITAL.index(" on every")]
    assert index(HOSPITAL, min_share=5 / 8).find(quoted) is not None
    assert index(HOSPITAL, min_share=0.7).find(quoted) is None
    assert index(HOSPITAL, min_share=1.0).find(f"{HOSPITAL} How many?") is not None


def test_short_held_out_questions_are_found_by_copies_alone() -> None:
    short = index("What is 2 + 2?")
    assert short.find("what is 2 + 2") is not None
    assert short.find("What is 2 - 2?") is None
    assert short.find("Tell me: what is 2 + 2, and why is it so, in the view of an honest grocer of old?") is None


def test_a_text_without_words_is_no_copy_of_another() -> None:
    assert index("???", HOSPITAL).find("!!!") is None


def test_of_two_the_one_with_the_greater_share_is_named() -> None:
    found = index(HOSPITAL, TRAIN).find(f"{TRAIN} {HOSPITAL[: HOSPITAL.index(' long')]}")
    assert found is not None and found.twin.question_id == "q1"
