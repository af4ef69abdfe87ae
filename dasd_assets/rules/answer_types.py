"""The four types of sentences in a checkpoint's own answers (report §4, Figure 5): from the sums of three models.

| type | teacher and undistilled student | the checkpoint itself |
| --- | --- | --- |
| `teacher` | the teacher's probability is higher by more than the threshold | whatever it is |
| `student` | the undistilled student's is | whatever it is |
| `boosted` | within the threshold of each other | further than it from both, above or below |
| `shared` | within the threshold of each other | within it of one of them at least |

The sources give no number, and no rule for "clearly different": we take measure and threshold of the recipe's
`selection.divergence`, and ask for both, as a sentence that is close to one of two models that agree is not clearly
different from them. So every sentence has exactly one type, but for one in which a model owns no token: that has none.
"""

import polars as pl

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.scores import DIVERGENCE, difference, threshold_version
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Divergence, Recipe

ANSWER_TYPES_VERSION = "1"
ANSWER_TYPES = Rule("answer types", ANSWER_TYPES_VERSION, (), (DIVERGENCE,))
FOUR_TYPES = ("teacher", "student", "shared", "boosted")
MODELS = ("teacher", "student", "distilled")  # whose sums a row has


def answer_threshold_version(recipe: Recipe) -> str:
    """Identifies the rule by which the sentences of answers are typed; in the key of their types."""
    return content_hash([ANSWER_TYPES_VERSION, threshold_version(recipe)])[:12]


def four_types(divergence: Divergence) -> pl.Expr:
    """One of FOUR_TYPES; NULL where one of the three models owns no token."""
    gap = difference(divergence.measure, divergence.per)
    return (
        pl.when(gap.is_null() | change(divergence).is_null())
        .then(None)
        .when(gap > divergence.threshold)
        .then(pl.lit("teacher"))
        .when(gap < -divergence.threshold)
        .then(pl.lit("student"))
        .when(change(divergence) > divergence.threshold)
        .then(pl.lit("boosted"))
        .otherwise(pl.lit("shared"))
    )


def change(divergence: Divergence) -> pl.Expr:
    """How far the checkpoint's probability is from the nearer one of teacher's and student's; NULL without tokens."""
    far = [difference(divergence.measure, divergence.per, "distilled", model).abs() for model in ("teacher", "student")]
    return pl.when(pl.all_horizontal(one.is_not_null() for one in far)).then(pl.min_horizontal(far))


def strength(divergence: Divergence) -> pl.Expr:
    """How clearly a sentence is of its type: by how much it is beyond the threshold, or `shared` ones within it.

    0 at the border to another type, so sums over many sentences weigh those that are of a type by a hair least.
    """
    gap, threshold = difference(divergence.measure, divergence.per).abs(), divergence.threshold
    kind = four_types(divergence)
    return (
        pl.when(kind.is_in(["teacher", "student"]))
        .then(gap - threshold)
        .when(kind == "boosted")
        .then(pl.min_horizontal(change(divergence) - threshold, threshold - gap))
        .when(kind == "shared")
        .then(threshold - pl.max_horizontal(gap, change(divergence)))
    )
