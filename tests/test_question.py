"""A box where one is asked for, and thinking that is about the question."""

from dataclasses import replace

import pytest

from dasd_assets.rules.filters.catalogue import Response, judge
from dasd_assets.rules.filters.question import box, relevance, terms
from dasd_assets.rules.verdict import Verdict
from dasd_resources.recipe import load_recipe

BOXED = r"How many primes are below 30? Put your final answer within \boxed{}."
TILING = "A strip of 12 cells is tiled with dominoes and squares, the squares red or blue. How many tilings are there?"


def response(thinking: str, answer: str) -> str:
    return f"<think>\n{thinking}\n</think>\n{answer}"


def test_a_box_that_is_asked_for() -> None:
    missing = Verdict(False, "no_box", r"the question asks for \boxed{}, the answer has none", 0)
    assert box(response("Ten.", "There are 10."), BOXED) == missing
    assert box(response(r"So \boxed{10}.", "There are 10."), BOXED) == missing  # the thinking's is no answer
    assert box(response("Ten.", r"There are \boxed{ }."), BOXED) == missing
    assert box(response("Ten.", r"There are $\boxed{10}$."), BOXED) == Verdict(True, value=1)
    assert box(response("Ten.", r"\boxed 7, no, \fbox{10}"), BOXED) == Verdict(True, value=2)


def test_a_box_that_is_not_asked_for_or_cannot_be_there() -> None:
    assert box(response("Ten.", "There are 10."), "How many primes are below 30?") == Verdict(True)
    assert box(response("Ten.", " \n"), BOXED) == box("<think>\nTen.", BOXED) == Verdict(True)


def test_terms_are_what_a_question_is_about() -> None:
    assert terms(TILING) == {"strip", "12", "cells", "tiled", "domin", "squar", "blue", "tilin"}
    assert terms("求12345的因数个数") >= {"因数", "数个", "12345"}


def test_thinking_about_the_question_and_about_another() -> None:
    about = response("A domino covers two cells of the strip, a square one, in two colours, so f(12) = …", "985")
    other = response("The treaty of 1648 settled the rights of the estates. It was long in the making.", "985")
    assert relevance(about, TILING, 0.1).passed
    verdict = relevance(other, TILING, 0.1)
    assert (verdict.passed, verdict.kind, verdict.value) == (False, "off_topic", 0)
    assert verdict.reason == (
        "0.00 of the question's terms are in the thinking, at least 0.1; not 12, blue, cells, domin, squar"
    )


@pytest.mark.parametrize(
    ("question", "thinking"),
    [
        ("Why?", "Nobody knows."),
        (TILING, "设f(n)为方法数，那么f(n)等于二倍的f(n-1)加上f(n-2)。"),  # another script: its words are others
        (TILING, ""),
    ],
)
def test_where_nothing_can_be_told(question: str, thinking: str) -> None:
    assert relevance(response(thinking, "985"), question, 0.1) == Verdict(True)


def test_a_number_is_not_part_of_another() -> None:
    asked = "What are 31, 47, 53 and 79 added together in base 12?"
    assert relevance(response("3147 and 5379 and 1212, in some way.", "1"), asked, 0.1).value == 0


def test_a_box_that_the_recipes_instruction_asks_for_is_asked_for() -> None:
    good = Response(
        text="<think>\nTwo.\n</think>\nIt is 2.",
        token_ids=[1],
        finish_reason="stop",
        tool_call=False,
        num_student_tokens=1,
        question="1 + 1 =",
        reference_answer=None,
        verifier=None,
        metadata="{}",
    )
    settings = load_recipe("demo").filters
    asked = replace(good, asked="1 + 1 =\n\nPut the answer in \\boxed{}.")
    assert judge(good, settings)["box"].passed
    assert judge(asked, settings)["box"].kind == "no_box"
