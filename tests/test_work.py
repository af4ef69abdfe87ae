"""The filter `work`: equations that hold or do not, and the work of the school's questions, step by step."""

import json
from random import Random

import pytest

from dasd_assets.rules.filters.work import equations, work
from dasd_assets.rules.verdict import Verdict
from dasd_resources.demo.traces import DOUBTS, canonical
from dasd_resources.school.catalogue import FAMILIES
from dasd_resources.school.family import Family, Pen
from dasd_resources.school.questions import questions

each_family = pytest.mark.parametrize("family", FAMILIES, ids=[family.domain for family in FAMILIES])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("5 + 3 = 8. Now 8 - 10 = -2.", [True, True]),
        ("7 + 5 = 13.", [False]),
        ("-5 - 3 gives -8, and 5 - -3 equals 8", [True, True]),
        ("3 + 4 * 2 = 11, not 3 + 4 * 2 = 14", [True, False]),
        (r"3 \times 4 = 12, 12 ÷ 5 = 2.4, 2 · 3 = 7", [True, True, False]),
        ("2 + 6 = 5 + 3 = 8, 2 + 6 = 5 + 3 = 9", [True, False]),
        ("2*3-5 = 1, 2 - 3-5 = -6, 8/-2-3 = -7, 2*3-5 = 2", [True, True, True, False]),
        ("1,000 + 234 = 1,234; 1,000 + 234 = 1,235", [True, False]),
        ("4 + 4 = 8\n8 - 3 = 6, and 1/2 + 1/3 equals 5/7", [True, False, False]),
        ("Adding 3 and 4: no. In all, 3 + 4 gives 8, 10000 + 500 = 10600", [False, False]),
        ("x = 5 + 3 = 9", []),
        ("12 = 12, x = 5, 4 / 0 = 0", []),  # nothing is computed
    ],
)
def test_equations_of_numbers_are_computed(body: str, expected: list[bool]) -> None:
    assert [holds for _, holds in equations(body)] == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("1 / 3 = 0.333, 1 / 3 = 0.33, 2 / 3 = 0.67, 2 / 3 = 0.66", [True] * 4),
        ("1 / 3 = 0.5, 0.1 + 0.2 = 0.3, 0.1 + 0.2 = 0.4", [False, True, False]),
        ("7 / 2 = 3, 7 / 2 = 4, 7 / 2 = 5", [True, True, False]),
    ],
)
def test_broken_values_may_be_rounded_either_way(body: str, expected: list[bool]) -> None:
    assert [holds for _, holds in equations(body)] == expected


@pytest.mark.parametrize(
    "body",
    [
        "7 + 5 = 13. Wait, that is not right.",
        "7 + 5 = 13? No.",
        "x + 3 + 4 = 9",
        "2^3 + 1 = 10",
        "(3 + 4) * 2 = 15",
        "2 + 3 = 6x",
        "7 + 8 = 3 (mod 12)",
        r"7 + 8 = 3 \pmod{12}",
        "17 / 5 = 3 remainder 2",
        "3 * 5 = 1 modulo 7",
        "Modulo 7, 3 * 5 = 1",
        "In binary, 1101 + 11 = 10000",
        "7 + 1 = 10 in base 8",
        "2 1/2 + 1 = 3 1/2",
        "7 3/4 - 2 1/4 = 5 1/2",
        "5/2 + 1 = 3 1/2",
        "We have 1 3/4 = 7/4",
        "10 000 + 500 = 10 500, and 9500 + 500 = 10 000",
        "The sum of 1/2 and 1/3 equals 5/6",
        "Adding 1/2 gives 3/4",
        "Plugging in 2 gives 3 + 4 = 7",
        "Adding 2 * 3 gives 10",
        "20% of 5 + 1 = 2",
        "sin 2 + 3 = 4",
        r"\frac{1}{2} + 3 = 4",
        "3 : 4 + 1 = 6",
        "2 + 3 = 4!",
        "√9 + 1 = 4",
        "√ 9 + 1 = 4",
        "3 * 2 = 3√4, and 2 + 3 = 7 - √4",
    ],
)
def test_what_is_taken_back_or_part_of_a_longer_formula_is_no_fault(body: str) -> None:
    assert all(holds for _, holds in equations(body))
    assert work(f"<think>\n{body}\n</think>\n1", "").passed


def test_the_reason_quotes_what_does_not_hold() -> None:
    text = "<think>\n2 + 3 = 5.\n" + "2 + 3 = 6. 4 + 4 =\n9. " * 2 + "\n</think>\n7 + 7 = 15"
    reason = "does not hold: 2 + 3 = 6; 4 + 4 = 9; 2 + 3 = 6"
    assert work(text, "{}") == Verdict(False, "wrong_step", reason, 4)
    assert work("<think>\nHm.\n</think>\n7 + 7 = 15", "") == Verdict(True)


@pytest.mark.parametrize(
    "text", ["1+" * 50_000, "1=1=" * 30_000, "1-" * 30 + "1=1 " + "-" * 50_000, "1,111" * 20_000, f"1{' ' * 50_000}= 1"]
)
def test_hostile_text_takes_no_time_that_grows_faster_than_it(text: str) -> None:
    assert len(list(equations(text))) <= 1


def test_numbers_that_are_too_long_are_no_part_of_an_equation() -> None:
    assert list(equations(f"{'9' * 5000} + 1 = 2")) == []


@each_family
@pytest.mark.parametrize("separator", [" ", "\n"])
def test_work_without_a_slip_is_sound(family: Family, separator: str) -> None:
    for seed, row in zip(range(30), questions(family, "prompts"), strict=False):
        exercise = family.worked(row, Pen(Random(seed), slip_rate=0.3, doubt_share=1.0))
        noticed = any(doubt in exercise.sentences for doubt in DOUBTS)
        right = family.worked(row, Pen(Random(seed)))
        response = canonical(separator.join(right.sentences), right.answer)
        assert family.is_sound(row, response) is True
        assert work(response, json.dumps(row["metadata"])).passed
        if noticed and exercise.answer == row["reference_answer"]:
            assert family.is_sound(row, canonical(separator.join(exercise.sentences), exercise.answer)) is True


@each_family
def test_a_slip_in_the_work_is_found_whatever_the_answer(family: Family) -> None:
    found = 0
    for seed, row in zip(range(60), questions(family, "prompts"), strict=False):
        exercise = family.worked(row, Pen(Random(seed), slip_rate=0.5))
        if exercise.sentences != family.worked(row, Pen(Random(seed))).sentences and (
            exercise.answer != row["reference_answer"]
        ):
            response = canonical(" ".join(exercise.sentences), str(row["reference_answer"]))
            found += 1
            assert family.is_sound(row, response) is False
            assert work(response, json.dumps(row["metadata"])).kind == "wrong_step"
    assert found > 20


@each_family
def test_a_step_that_is_left_out_or_of_another_question_is_no_sound_work(family: Family) -> None:
    row, other = (row for row, _ in zip(questions(family, "prompts"), range(2), strict=False))
    right = family.worked(row, Pen(Random(1)))
    assert family.is_sound(row, canonical(" ".join(right.sentences[:-2]), right.answer)) is False
    assert family.is_sound(other, canonical(" ".join(right.sentences), right.answer)) is False
    assert family.is_sound(row, canonical("Let us see. " + " ".join(right.sentences), right.answer)) is None


@pytest.mark.parametrize("metadata", ["", "{}", '{"source_dataset": "chain_sum"}', '{"source_dataset": ["chain_sum"]}'])
def test_a_question_like_the_schools_with_other_metadata_is_judged_by_its_equations(metadata: str) -> None:
    text = "<think>\nWe go from left to right. 2 + 3 = 5.\n</think>\n5"
    assert work(text, metadata) == Verdict(True, value=0)
    known = json.dumps({"source_dataset": "chain_sum", "expression": "two and three"})
    assert work(text, known) == Verdict(True, value=0)
