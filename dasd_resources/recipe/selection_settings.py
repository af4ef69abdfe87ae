"""Quality filters (report §6.2) and divergence-aware sampling (§4): which responses are trained on."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from dasd_resources.recipe.parts import Part, Positive, Probability

FilterName = Literal["length", "truncation", "structure", "repetition", "correctness"]
Per = Literal["token", "character"]
Measure = Literal["probability", "log"]
ScoreName = Literal[
    "teacher_share",
    "mean_probability_token",
    "sum_probability_token",
    "mean_log_token",
    "sum_log_token",
    "mean_probability_character",
    "sum_probability_character",
    "mean_log_character",
    "sum_log_character",
]
SCORE_NAMES: tuple[ScoreName, ...] = get_args(ScoreName)


class Repetition(Part):
    """The shares of repeated n-grams and of a repeating tail above which a response is dropped (report §6.2)."""

    ngram_sizes: tuple[Positive, ...] = Field(strict=False)
    max_duplicate_share: Probability
    tail_tokens: Positive
    max_tail_share: Probability


class Filters(Part):
    """Quality filters (report §6.2), applied before or after selection. Correctness is always recorded."""

    max_student_tokens: Positive
    repetition: Repetition
    require_correct: bool
    apply: Literal["before_selection", "after_selection"]


class Divergence(Part):
    """A sentence is the teacher's (student's) where the two differ by more than `threshold` (report §4)."""

    measure: Measure
    threshold: Annotated[float, Field(gt=0)]
    per: Per


class Selection(Part):
    """Divergence-aware sampling (report §4): the score that ranks responses, and how many are kept per domain."""

    divergence: Divergence
    score: ScoreName
    policy: Literal["best_per_question", "top_k"]
    budgets: dict[str, dict[str, Positive]]
