"""Sentence types and response scores (report §4, Figure 5): from each sentence's logprob sums under both models.

The report leaves "much greater" and the score of a response open: both are recipe choices, stored with every row. All
scores are computed; the recipe picks one. To add a score, add its entry to `SCORES` (docs/extending.md).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import polars as pl

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.sentences import SEGMENTER, SEGMENTER_VERSION
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Divergence, Measure, Per, Recipe

DIVERGENCE_VERSION = "1"  # raise it when a type or a score can change; not for a score that is added
DIVERGENCE = Rule("divergence", DIVERGENCE_VERSION, ("selection.divergence",), (SEGMENTER,))
TYPE_NAMES = ("teacher", "student", "close")


def _have_tokens(*models: str) -> pl.Expr:
    """Whether each of these models owns a token of a sentence."""
    return pl.all_horizontal(pl.col(f"{model}_num_tokens") > 0 for model in models)


HAS_BOTH = _have_tokens("teacher", "student")


def threshold_version(recipe: Recipe) -> str:
    """Identifies the rule by which sentences are typed and responses scored: segmenter, measure, threshold, this code.

    It is in the key of both tables: rows of another rule stay beside those of this one.
    """
    return content_hash([DIVERGENCE_VERSION, SEGMENTER_VERSION, recipe.version(*DIVERGENCE.parts)])[:12]


def difference(measure: Measure, per: Per, higher: str = "teacher", lower: str = "student") -> pl.Expr:
    """Teacher minus student for a sentence, or one model minus another; NULL where either side owns no token."""
    return pl.when(_have_tokens(higher, lower)).then(_difference(measure, per, lambda column: column, higher, lower))


def _difference(
    measure: Measure, per: Per, total: Callable[[pl.Expr], pl.Expr], higher: str = "teacher", lower: str = "student"
) -> pl.Expr:
    """One model minus the other, of what `total` makes of the sentences' sums of logprobs and of their lengths."""

    def mean_logprob(model: str) -> pl.Expr:
        length = pl.col(f"{model}_num_tokens") if per == "token" else pl.col("stop") - pl.col("start")
        mean = total(pl.col(f"{model}_sum_logprob")) / total(length)
        return mean if measure == "log" else mean.exp()

    return mean_logprob(higher) - mean_logprob(lower)


def sentence_type(divergence: Divergence) -> pl.Expr:
    """`teacher`, `student` or `close`; NULL where a side owns no token, which no share counts."""
    gap = difference(divergence.measure, divergence.per)
    return (
        pl.when(gap > divergence.threshold)
        .then(pl.lit("teacher"))
        .when(gap < -divergence.threshold)
        .then(pl.lit("student"))
        .when(gap.is_not_null())
        .then(pl.lit("close"))
    )


@dataclass(frozen=True, eq=False)
class Score:
    """A score of a response: what it is, and how it follows from the response's typed sentences.

    value: over one response's rows of `sentence_probabilities` joined with `sentence_type`; NULL where no sentence
    counts. is_mean: whether it averages over sentences, so that it may be drawn towards the mean of all
    (`selection.pseudo_count`): of a sum, that would be no estimate of anything.
    """

    meaning: str
    value: pl.Expr
    is_mean: bool = False


def difference_of_response(measure: Measure, per: Per) -> pl.Expr:
    """`difference`, of all sentences with tokens on both sides taken as one: each token counts the same."""
    return pl.when(HAS_BOTH.any()).then(_difference(measure, per, lambda column: column.filter(HAS_BOTH).sum()))


def teacher_share() -> pl.Expr:
    """Share of the typed sentences that are the teacher's; NULL without one."""
    typed = pl.col("sentence_type").drop_nulls()
    return pl.when(typed.len() > 0).then((typed == "teacher").mean())


def teacher_token_share() -> pl.Expr:
    """Share of the student's tokens in typed sentences that are in the teacher's; NULL without one."""
    typed, tokens = pl.col("sentence_type"), pl.col("student_num_tokens")
    in_typed = tokens.filter(typed.is_not_null()).sum()
    return pl.when(in_typed > 0).then(tokens.filter(typed == "teacher").sum() / in_typed)


def total_difference(reduction: Literal["mean", "weighted", "sum"], measure: Measure, per: Per) -> pl.Expr:
    """Mean or sum of `difference` over the sentences; NULL where no sentence has tokens on both sides.

    weighted: a mean in which a sentence counts as often as it has tokens of the student.
    """
    gap, tokens = difference(measure, per), pl.col("student_num_tokens")
    total = {
        "mean": gap.mean(),
        "weighted": (gap * tokens).sum() / tokens.filter(gap.is_not_null()).sum(),
        "sum": gap.sum(),
    }
    return pl.when(gap.count() > 0).then(total[reduction])


def _of_differences(measure: Measure, per: Per) -> dict[str, Score]:
    """`mean_probability_token` and the like: what is made of the differences of a response's sentences."""
    gap = f"teacher minus student {'log-probability' if measure == 'log' else measure} per {per}"
    by_tokens = f"mean over sentences, weighted by student tokens, of {gap}"
    of_one = f"{gap}, of all sentences taken as one"
    scores = {
        "mean": Score(f"mean over sentences of {gap}", total_difference("mean", measure, per), is_mean=True),
        "sum": Score(f"sum over sentences of {gap}", total_difference("sum", measure, per)),
        "weighted": Score(by_tokens, total_difference("weighted", measure, per), is_mean=True),
        "response": Score(of_one, difference_of_response(measure, per), is_mean=True),
    }
    return {f"{name}_{measure}_{per}": score for name, score in scores.items()}


# Probabilities are geometric means per token (the report's), or per character (independent of the tokenizer).
SCORES: dict[str, Score] = {
    "teacher_share": Score("share of the typed sentences that are teacher sentences", teacher_share(), is_mean=True),
    "teacher_token_share": Score(
        "share of the student's tokens in typed sentences that are in teacher sentences",
        teacher_token_share(),
        is_mean=True,
    ),
    **_of_differences("probability", "token"),
    **_of_differences("log", "token"),
    **_of_differences("probability", "character"),
    **_of_differences("log", "character"),
}
RESPONSE_SCORING = Rule("scores", DIVERGENCE_VERSION, uses=(DIVERGENCE,), catalogue=SCORES)


def response_scores(sentences: pl.DataFrame) -> pl.DataFrame:
    """(response_id, score_name, score, num_sentences) for every score, from sentences with their types.

    num_sentences counts those with tokens on both sides. Rows in the order of response_id.
    """
    wide = sentences.group_by("response_id").agg(
        *[entry.value.cast(pl.Float64).alias(name) for name, entry in SCORES.items()],
        num_sentences=pl.col("sentence_type").count().cast(pl.Int32),
    )
    long = wide.unpivot(
        list(SCORES), index=["response_id", "num_sentences"], variable_name="score_name", value_name="score"
    )
    return long.sort("response_id", "score_name")
