"""Shares of the four types in answers, and how right answers differ from wrong ones (report Figure 6).

A right and a wrong answer to one question are alike in difficulty; pooled over questions they are not: easy questions
have the right answers, and easy questions may have sentences of other types. So the difference is taken within each
question that has both, and averaged over these; the pooled one stands beside it. Intervals are of 95 %, by Student's t,
with all that is of one question as one observation.
"""

from collections.abc import Sequence

import polars as pl

from dasd_assets.rules.answer_types import FOUR_TYPES, four_types
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.statistics.power import interval_quantile
from dasd_resources.recipe import Divergence

TYPE_SHARES_VERSION = "2"
TYPE_SHARES = Rule("type shares", TYPE_SHARES_VERSION)
NUM_POSITIONS = 8
THRESHOLD_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the recipe's threshold
QUESTION = ["benchmark", "question_id"]
ANSWER = ["checkpoint", *QUESTION, "temperature", "sample_index"]


def answer_shares(sentences: pl.DataFrame) -> pl.DataFrame:
    """Each answer's share of each type among its typed sentences; an answer without any is left out.

    sentences: ANSWER, correct (NULL where that is not known), sentence_type. Returns ANSWER, correct, type, value.
    """
    return _of_each_type(sentences.with_columns(weight=1), [*ANSWER, "correct"])


def position_shares(sentences: pl.DataFrame) -> pl.DataFrame:
    """The same at each relative position: an answer is NUM_POSITIONS parts of as many sentences, whole or in part.

    A sentence counts in each part that it reaches into, by how much of it lies there: of 5 sentences the first is the
    first part and three fifths of the second. So an answer of few sentences has a share at every position, too.
    Returns ANSWER, correct, position (the middle of the part, 0 to 1), type, value.
    """
    index, num = pl.col("sentence_index").cast(pl.Int64), pl.len().over(ANSWER).cast(pl.Int64)
    # In units of a part of a sentence: a sentence is NUM_POSITIONS of them, a part of the answer `num`.
    start, stop = NUM_POSITIONS * index, NUM_POSITIONS * (index + 1)
    reached = sentences.with_columns(  # untyped ones keep their place
        start=start, stop=stop, num=num, part=pl.int_ranges(start // num, (stop - 1) // num + 1)
    ).explode("part")
    inside = pl.min_horizontal("stop", (pl.col("part") + 1) * pl.col("num")) - pl.max_horizontal(
        "start", pl.col("part") * pl.col("num")
    )
    placed = reached.with_columns(weight=inside, position=(pl.col("part") + 0.5) / NUM_POSITIONS)
    return _of_each_type(placed, [*ANSWER, "correct", "position"])


def _of_each_type(sentences: pl.DataFrame, keys: Sequence[str]) -> pl.DataFrame:
    """The share of each type among typed sentences, each counting by its `weight`."""
    typed = sentences.filter(pl.col("sentence_type").is_not_null())
    weight = pl.col("weight")
    wide = typed.group_by(keys, maintain_order=True).agg(
        (weight.filter(pl.col("sentence_type") == name).sum() / weight.sum()).alias(name) for name in FOUR_TYPES
    )
    long = wide.unpivot(list(FOUR_TYPES), index=list(keys), variable_name="type", value_name="value")
    return long.with_columns(pl.col("type").cast(pl.Enum(FOUR_TYPES)))


def mean_shares(shares: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Mean over answers: by, mean, low, high, num_answers, num_questions."""
    summed = shares.with_columns(error=(pl.col("value") - pl.col("value").mean().over(by)) / pl.len().over(by))
    means = shares.group_by(by).agg(mean=pl.col("value").mean(), num_answers=pl.len())
    return _with_interval(means, _clustered_error(summed, by), by, "mean").sort(by)


def pooled_differences(shares: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Right minus wrong answers, over all of them: by, right, wrong, difference, low, high, num_questions."""
    known = shares.filter(pl.col("correct").is_not_null())
    side = [*by, "correct"]
    error = (pl.col("value") - pl.col("value").mean().over(side)) / pl.len().over(side)
    summed = known.with_columns(error=pl.when("correct").then(error).otherwise(-error))
    means = known.group_by(by).agg(**_sides()).with_columns(difference=pl.col("right") - pl.col("wrong"))
    return _with_interval(means, _clustered_error(summed, by), by, "difference").sort(by)


def differences_within_questions(shares: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """The same within each question and temperature that has both, then averaged over questions.

    Returns by, right, wrong, difference, low, high, num_questions: those that have both.
    """
    known = shares.filter(pl.col("correct").is_not_null())
    cells = known.group_by([*by, *QUESTION, "temperature"]).agg(**_sides()).drop_nulls(["right", "wrong"])
    questions = cells.group_by([*by, *QUESTION]).agg(pl.col("right", "wrong").mean())
    apart = questions.with_columns(difference=pl.col("right") - pl.col("wrong"))
    return _between(
        apart.group_by(by).agg(
            pl.col("right", "wrong", "difference").mean(),
            error=pl.col("difference").std() / pl.len().sqrt(),
            num_questions=pl.len(),
        ),
        "difference",
    ).sort(by)


def _sides() -> dict[str, pl.Expr]:
    value, correct = pl.col("value"), pl.col("correct")
    return {"right": value.filter(correct).mean(), "wrong": value.filter(~correct).mean()}


def _clustered_error(summed: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Standard error of a sum of `error` over rows whose questions are independent; NULL of a single question."""
    questions = summed.group_by([*by, *QUESTION]).agg(pl.col("error").sum())
    small = pl.when(pl.len() > 1).then(pl.len() / (pl.len() - 1))
    squares = (pl.col("error") ** 2).sum()
    return questions.group_by(by).agg(error=(small * squares).sqrt(), num_questions=pl.len())


def _with_interval(means: pl.DataFrame, errors: pl.DataFrame, by: Sequence[str], column: str) -> pl.DataFrame:
    return _between(means.join(errors, on=list(by)), column)


def _between(table: pl.DataFrame, column: str) -> pl.DataFrame:
    """The table with the interval of a column whose `error` has as many degrees of freedom as questions but one."""
    quantiles = [interval_quantile(count - 1) if count > 1 else None for count in table["num_questions"]]
    reach = pl.Series(quantiles, dtype=pl.Float64) * pl.col("error")
    return table.with_columns(low=pl.col(column) - reach, high=pl.col(column) + reach).drop("error")


def sensitivity(sentences: pl.DataFrame, divergence: Divergence) -> pl.DataFrame:
    """Shares, and right minus wrong within questions, under thresholds around the recipe's; from the stored sums.

    sentences: as for `answer_shares`, with the three models' sums. Returns threshold, type, share, difference, low,
    high, num_questions; the difference is NULL where no question has right and wrong answers.
    """
    tables = []
    for factor in THRESHOLD_FACTORS:
        rule = divergence.model_copy(update={"threshold": factor * divergence.threshold})
        shares = answer_shares(sentences.with_columns(sentence_type=four_types(rule)))
        within = differences_within_questions(shares, ["type"]).drop("right", "wrong")
        mean = shares.group_by("type").agg(share=pl.col("value").mean())
        tables.append(mean.join(within, on="type", how="left").with_columns(threshold=pl.lit(rule.threshold)))
    return pl.concat(tables).sort("threshold", "type")
