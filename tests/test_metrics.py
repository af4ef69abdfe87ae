"""Figures of an evaluation against hand-computed numbers, and against all draws there could be."""

import itertools
import math
import statistics

import polars as pl
import pytest

from dasd_assets.evaluation.metrics import Estimate, ks, majority, metrics, over_questions, pass_at_k, quantile
from dasd_resources.verifiers.catalogue import takes_votes, vote
from dasd_resources.verifiers.judgement import Asked

NAMES = ["question_id", "status", "correct", "cut_off", "num_tokens", "repetition", "final_answer", "votes"]


def outcome(
    question: str, correct: bool | None, answer: str | None = None, length: int = 10, **values: object
) -> dict[str, object]:
    answered = {"status": "answered", "cut_off": False, "num_tokens": length, "repetition": 0.0, "votes": True}
    return {"question_id": question, "correct": correct, "final_answer": answer, **answered, **values}


def failed(question: str) -> dict[str, object]:
    lost = {"num_tokens": None, "cut_off": None, "repetition": None, "final_answer": None}
    return {**outcome(question, False), **lost, "status": "failed"}


def frame(*rows: dict[str, object]) -> pl.DataFrame:
    return pl.DataFrame(rows, infer_schema_length=None).select(NAMES)


@pytest.mark.parametrize(("n", "c"), [(n, c) for n in range(1, 7) for c in range(n + 1)])
def test_pass_at_k_is_the_share_of_all_draws_with_a_right_answer(n: int, c: int) -> None:
    for k in range(1, n + 1):
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))


def test_pass_at_k_is_exact_where_factorials_overflow() -> None:
    """As the product form of Chen et al., and 1 where k draws cannot miss."""
    assert pass_at_k(1000, 3, 500) == pytest.approx(1 - math.prod(1 - 500 / i for i in range(998, 1001)))
    assert pass_at_k(64, 1, 64) == 1.0
    with pytest.raises(ValueError, match="pass@5 of 4 samples"):
        pass_at_k(4, 1, 5)


def test_k_doubles_up_to_the_number_of_samples() -> None:
    assert (ks(1), ks(6), ks(64)) == ([1], [1, 2, 4, 6], [1, 2, 4, 8, 16, 32, 64])


@pytest.mark.parametrize(
    ("votes", "value"),
    [
        ([(True, "1/2"), (True, "0.5"), (False, "3")], 1.0),  # however they are written, right answers are one
        ([(True, "5"), (False, "3"), (False, "3")], 0.0),
        ([(True, "5"), (False, "3")], 0.5),  # a tie of two, by lot
        ([(True, "5"), (False, "3"), (False, "4")], 1 / 3),
        ([(True, "5"), (False, None), (False, None)], 1.0),  # no answer is no vote
        ([(False, None)], 0.0),
        ([], 0.0),
    ],
)
def test_majority(votes: list[tuple[bool, str | None]], value: float) -> None:
    assert majority(votes) == pytest.approx(value)


def test_the_error_of_a_mean_is_of_questions_and_one_has_none() -> None:
    found = over_questions([1.0, 0.5, 0.0])
    assert (found.value, found.num_questions) == (0.5, 3)
    assert found.standard_error == pytest.approx(statistics.stdev([1, 0.5, 0]) / math.sqrt(3))
    assert over_questions([0.25]).standard_error is None and str(over_questions([0.25])) == "25.0% (one question)"
    alike = over_questions([1.0, 1.0, 1.0])  # not ± 0: another question may fall otherwise
    assert alike.standard_error is None and str(alike) == "100.0% (no standard error)"
    assert over_questions([]).value is None and str(over_questions([])) == "–"


def test_failures_are_wrong_answers_and_have_no_length() -> None:
    """4 of 4 right, and 4 that failed: 1/2, not 1; of q2 nothing came, so it has no length."""
    rows = [outcome("q1", True, "5", length) for length in (10, 20, 30, 40)], [failed("q2")] * 4
    found = metrics(frame(*rows[0], *rows[1]))
    assert found["avg@4"].value == found["pass@1"].value == 0.5
    assert found["pass@4"].value == found["maj@4"].value == 0.5
    assert (found["mean_tokens"].value, found["mean_tokens"].num_questions) == (25.0, 1)
    assert found["mean_tokens"].standard_error is None
    half = metrics(frame(*[outcome("q", True)] * 32, *[failed("q")] * 32))
    assert half["avg@64"].value == 0.5


def test_each_question_weighs_the_same_and_an_incomplete_evaluation_has_no_value() -> None:
    given = [
        outcome("a", True, "5", 10, cut_off=True),
        failed("a"),
        *[outcome("b", False, "3", 20, repetition=1.5)] * 2,
    ]
    found = metrics(frame(*given))
    assert {name: found[name].value for name in ("avg@2", "cut_off_rate", "repetition_rate", "mean_tokens")} == {
        "avg@2": 0.25,
        "cut_off_rate": 0.5,
        "repetition_rate": 0.5,
        "mean_tokens": 15.0,
    }
    missing = {**failed("b"), "status": "missing", "correct": None}
    again = metrics(frame(*given[:3], missing))
    assert again.keys() == found.keys() and {figure.value for figure in again.values()} == {None}


def test_quantiles_weigh_questions_and_their_error_is_woodruffs() -> None:
    assert quantile([[1, 2, 3, 4], [100]], 0.5).value == 4  # a half of the weight lies on the one of 100
    lengths = [[10 * i + j for j in range(10)] for i in range(10)]  # 0 … 99, ten to a question
    found = quantile(lengths, 0.5)
    # 5 questions have all their answers at or below 49, 5 none: an error of the share of 0.1667.
    assert found.value == 49 and found.standard_error == pytest.approx((66 - 33) / 2)
    assert quantile([[7]], 0.9).standard_error is None
    assert quantile([[7, 7], [7, 7]], 0.9) == Estimate(7, None, 2)


def test_no_majority_is_taken_where_many_answers_are_right() -> None:
    assert [takes_votes(name) for name in ("math", "exact", "json", "multiple_choice", "reasoning_gym:gcd")] == [
        True
    ] * 5
    assert not any(map(takes_votes, ("code", "constraint", "json:schema")))
    found = metrics(frame(outcome("q", True, votes=False)))
    assert found["maj@1"].value is None and found["avg@1"].value == 1.0


@pytest.mark.parametrize(
    ("verifier", "one", "other", "another"),
    [
        (
            "math",
            r"The answer is \boxed{\frac{1}{2}}.",
            "The answer is 0.5.",
            "The answer is 0.51.",
        ),
        ("numeric", "Answer: 1,000", "The answer is **1000**", "Answer: 1001"),
        ("exact", "Answer: Paris.", "The answer is **paris**", "The answer is Rome"),
        ("multiple_choice", "The answer is (B).", r"\boxed{B}", "The answer is C."),
        ("json", '{"a": 1, "b": [2.0]}', 'So: ```json\n{"b": [2], "a": 1}\n```', '{"a": 1, "b": [3]}'),
        ("reasoning_gym:gcd", "The answer is 12.", "<answer>12</answer>", "The answer is 6."),
    ],
)
def test_votes_are_equal_where_the_answers_are(verifier: str, one: str, other: str, another: str) -> None:
    asked = Asked("Which?", "1", "{}")
    assert vote(verifier, one, asked) == vote(verifier, other, asked) is not None
    assert vote(verifier, another, asked) not in (None, vote(verifier, one, asked))


@pytest.mark.parametrize("verifier", ["math", "numeric", "exact", "multiple_choice", "json", "reasoning_gym:gcd"])
@pytest.mark.parametrize("text", ["", " ", "\\boxed{", "x" * 60_000, "[" * 5_000, "\x00", "9" * 400, "1e999999999"])
def test_no_answer_makes_a_vote_raise(verifier: str, text: str) -> None:
    vote(verifier, text, Asked("", "", ""))
