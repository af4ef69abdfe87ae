"""Shares and differences by hand: pooled and within questions, where difficulty confounds the one and not the other."""

import math

import polars as pl
import pytest

from dasd_assets.rules.answer_types import FOUR_TYPES, MODELS, four_types
from dasd_assets.rules.type_shares import (
    NUM_POSITIONS,
    THRESHOLD_FACTORS,
    answer_shares,
    differences_within_questions,
    mean_shares,
    pooled_differences,
    position_shares,
    sensitivity,
)
from dasd_resources.recipe import Divergence
from dasd_resources.storage.warehouse import Row

T, S, C, B = FOUR_TYPES
RULE = Divergence(measure="probability", threshold=0.1, per="token")


def answer(
    question: str, index: int, correct: bool | None, types: list[str | None], temperature: float = 1.0
) -> list[Row]:
    """The sentences of an answer."""
    common = {"checkpoint": "mixed", "benchmark": "b", "question_id": question, "temperature": temperature}
    own = {**common, "sample_index": index, "correct": correct}
    return [{**own, "sentence_index": place, "sentence_type": kind} for place, kind in enumerate(types)]


def sentences(*answers: list[Row]) -> pl.DataFrame:
    return pl.DataFrame([row for one in answers for row in one])


def of_type(table: pl.DataFrame, kind: str) -> Row:
    return table.row(by_predicate=pl.col("type") == kind, named=True)


def test_untyped_sentences_count_in_no_share_and_an_answer_of_these_alone_in_none() -> None:
    shares = answer_shares(sentences(answer("q", 0, True, [T, T, None, C]), answer("q", 1, False, [None])))
    assert dict(shares.select("type", "value").iter_rows()) == pytest.approx({T: 2 / 3, S: 0, C: 1 / 3, B: 0})


# An easy question with right answers and few teacher sentences, a hard one with many; in each, right ones have more.
CONFOUNDED = sentences(
    *(answer("easy", index, True, [T, C, C, C]) for index in range(3)),
    answer("easy", 3, False, [C, C, C, C]),
    answer("hard", 0, True, [T, T, T, T]),
    *(answer("hard", index, False, [T, T, T, C]) for index in range(1, 4)),
)


def test_difficulty_confounds_the_pooled_difference_and_not_that_within_questions() -> None:
    shares = answer_shares(CONFOUNDED)
    pooled = of_type(pooled_differences(shares, ["type"]), T)
    assert (pooled["right"], pooled["wrong"]) == pytest.approx(((3 * 0.25 + 1) / 4, (0 + 3 * 0.75) / 4))
    assert pooled["difference"] < 0
    within = of_type(differences_within_questions(shares, ["type"]), T)
    assert (within["right"], within["wrong"]) == pytest.approx((0.625, 0.375))
    assert within["difference"] == pytest.approx(0.25)
    assert (within["low"], within["high"]) == pytest.approx((0.25, 0.25))  # both questions agree
    assert within["num_questions"] == 2


def test_intervals_are_of_questions_not_of_answers() -> None:
    once = [answer("p", 0, True, [T, T]), answer("q", 0, True, [C, C]), answer("r", 0, True, [T, C])]
    often = [answer(q, n, True, types) for q, types in (("p", [T, T]), ("q", [C, C]), ("r", [T, C])) for n in range(9)]
    few, many = (of_type(mean_shares(answer_shares(sentences(*rows)), ["type"]), T) for rows in (once, often))
    assert few["mean"] == many["mean"] == 0.5
    error = 0.5 / math.sqrt(3)  # standard deviation of 0, 0.5 and 1, over the root of three questions
    for found in (few, many):
        assert (found["low"], found["high"]) == pytest.approx((0.5 - 4.30265 * error, 0.5 + 4.30265 * error), abs=1e-4)
    assert (few["num_answers"], many["num_answers"], many["num_questions"]) == (3, 27, 3)


def test_a_pooled_interval_has_the_error_of_two_independent_means() -> None:
    """With one answer a question: the variance of the right ones' mean and of the wrong ones', as in a t test."""
    right, wrong = [[T, T], [T, C], [C, C]], [[T, C], [C, C], [C, C]]
    rows = [answer(f"r{n}", 0, True, types) for n, types in enumerate(right)]
    rows += [answer(f"w{n}", 0, False, types) for n, types in enumerate(wrong)]
    found = of_type(pooled_differences(answer_shares(sentences(*rows)), ["type"]), T)
    squares = (0.5**2 * 2) / 9 + (1 / 3**2 + 2 / 6**2) / 9
    error = math.sqrt(6 / 5 * squares)
    assert found["difference"] == pytest.approx(0.5 - 1 / 6)
    assert found["high"] - found["difference"] == pytest.approx(2.57058 * error, abs=1e-4)


def test_temperatures_are_told_apart_within_a_question() -> None:
    """A right answer at one temperature and a wrong one at another are no pair."""
    rows = [answer("q", 0, True, [T], 0.6), answer("q", 0, False, [C], 1.0)]
    assert differences_within_questions(answer_shares(sentences(*rows)), ["type"]).is_empty()


def test_an_answer_that_could_not_be_judged_is_in_the_mean_and_in_no_difference() -> None:
    shares = answer_shares(sentences(answer("q", 0, True, [T]), answer("q", 1, False, [C]), answer("q", 2, None, [T])))
    assert of_type(mean_shares(shares, ["type"]), T)["mean"] == pytest.approx(2 / 3)
    assert of_type(differences_within_questions(shares, ["type"]), T)["difference"] == 1.0
    assert of_type(pooled_differences(shares, ["type"]), T)["difference"] == 1.0


def test_a_single_question_has_no_interval() -> None:
    shares = answer_shares(sentences(answer("q", 0, True, [T]), answer("q", 1, False, [C])))
    for table in (mean_shares, pooled_differences, differences_within_questions):
        found = of_type(table(shares, ["type"]), T)
        assert (found["low"], found["high"]) == (None, None)


def test_positions_are_parts_of_the_answer_and_untyped_sentences_keep_their_place() -> None:
    shares = position_shares(sentences(answer("q", 0, True, [None, T, *[C] * 14])))
    first = shares.filter(pl.col("position") == 0.5 / NUM_POSITIONS)
    assert of_type(first, T)["value"] == 1.0  # of the first two sentences, one has a type
    assert shares["position"].n_unique() == NUM_POSITIONS


def test_an_answer_of_few_sentences_weighs_at_every_position_as_one_of_many() -> None:
    """Of 5 sentences, in eighths: the first is part 0 and .6 of part 1, the second .4 of that, part 2 and .2 of 3."""
    shares = position_shares(sentences(answer("q", 0, True, [T, C, C, C, S]), answer("p", 0, True, [C] * 80)))
    of = {kind: shares.filter(question_id="q", type=kind).sort("position")["value"].to_list() for kind in (T, S)}
    assert of[T] == pytest.approx([1, 0.6, 0, 0, 0, 0, 0, 0]) and of[S] == of[T][::-1]
    assert mean_shares(shares, ["position", "type"])["num_answers"].to_list() == [2] * NUM_POSITIONS * len(FOUR_TYPES)
    alone = position_shares(sentences(answer("q", 0, True, [T])))
    assert alone.filter(type=T)["value"].to_list() == [1] * NUM_POSITIONS


def test_sensitivity_types_anew_from_the_sums() -> None:
    rows = []
    for question, right in (("p", 0.5), ("q", 0.9)):
        for index, (correct, teacher) in enumerate(((True, right), (False, 0.25))):
            [row] = answer(question, index, correct, [None])
            probs = dict(zip(MODELS, (teacher, 0.2, 0.2), strict=True))
            sums = {f"{model}_sum_logprob": math.log(prob) for model, prob in probs.items()}
            rows.append({**row, **sums, **{f"{model}_num_tokens": 1 for model in MODELS}, "start": 0, "stop": 5})
    table = pl.DataFrame(rows)
    found = sensitivity(table.with_columns(sentence_type=four_types(RULE)), RULE)
    teacher = found.filter(pl.col("type") == T).sort("threshold")
    assert teacher["threshold"].to_list() == pytest.approx([0.1 * factor for factor in THRESHOLD_FACTORS])
    assert teacher["share"].to_list() == [1.0, 0.5, 0.5, 0.5, 0.25]  # gaps of 0.3, 0.7 and twice 0.05
    assert teacher["difference"].to_list() == [0.0, 1.0, 1.0, 1.0, 0.5]
