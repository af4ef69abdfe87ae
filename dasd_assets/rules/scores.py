"""Sentence types and response scores (report §4, Figure 5): from each sentence's logprob sums under both models.

The report leaves "much greater" and the score of a response open: both are recipe choices, stored with every row. All
scores are computed; the recipe picks one.

| score | of a response |
| --- | --- |
| `teacher_share` | share of its typed sentences that are teacher sentences |
| `mean_…`, `sum_…` | mean or sum over sentences of teacher minus student |
| `…_probability_…`, `…_log_…` | of geometric-mean probabilities, or of their logarithms |
| `…_token`, `…_character` | the mean taken per token (the report's), or per character (independent of the tokenizer) |
"""

import polars as pl

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.sentences import SEGMENTER, SEGMENTER_VERSION
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import SCORE_NAMES, Divergence, Measure, Per, Recipe

DIVERGENCE_VERSION = "1"
DIVERGENCE = Rule("divergence", DIVERGENCE_VERSION, ("selection.divergence",), (SEGMENTER,))
TYPE_NAMES = ("teacher", "student", "close")


def threshold_version(recipe: Recipe) -> str:
    """Identifies the rule by which sentences are typed and responses scored: segmenter, measure, threshold, this code.

    It is in the key of both tables: rows of another rule stay beside those of this one.
    """
    return content_hash([DIVERGENCE_VERSION, SEGMENTER_VERSION, recipe.version("selection.divergence")])[:12]


def difference(measure: Measure, per: Per) -> pl.Expr:
    """Teacher minus student for a sentence; NULL where either side owns no token."""

    def mean_logprob(model: str) -> pl.Expr:
        tokens = pl.col(f"{model}_num_tokens")
        length = tokens if per == "token" else pl.col("stop") - pl.col("start")
        mean = pl.col(f"{model}_sum_logprob") / length
        return pl.when(tokens > 0).then(mean if measure == "log" else mean.exp())

    return mean_logprob("teacher") - mean_logprob("student")


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


def score_expression(name: str) -> pl.Expr:
    """The score of that name over the sentences of one response; NULL where no sentence counts."""
    if name == "teacher_share":
        typed = pl.col("sentence_type").drop_nulls()
        return pl.when(typed.len() > 0).then((typed == "teacher").mean())
    reduction, measure, per = name.split("_")
    gap = difference("log" if measure == "log" else "probability", "token" if per == "token" else "character")
    total = gap.mean() if reduction == "mean" else gap.sum()
    return pl.when(gap.count() > 0).then(total)


def response_scores(sentences: pl.DataFrame) -> pl.DataFrame:
    """(response_id, score_name, score, num_sentences) for every score, from sentences with their types.

    num_sentences counts those with tokens on both sides. Rows in the order of response_id.
    """
    wide = sentences.group_by("response_id").agg(
        *[score_expression(name).cast(pl.Float64).alias(name) for name in SCORE_NAMES],
        num_sentences=pl.col("sentence_type").count().cast(pl.Int32),
    )
    long = wide.unpivot(
        SCORE_NAMES, index=["response_id", "num_sentences"], variable_name="score_name", value_name="score"
    )
    return long.sort("response_id", "score_name")
