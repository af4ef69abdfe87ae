"""Quality filters (report §6.2) and divergence-aware sampling (§4): which responses are trained on."""

from typing import Annotated, Literal

from pydantic import Field

from dasd_resources.recipe.parts import Part, Positive, Probability

Per = Literal["token", "character"]
Measure = Literal["probability", "log"]


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
    """Divergence-aware sampling (report §4): the score that ranks responses, and how many are kept per domain.

    score: an entry of `dasd_assets.rules.scores.SCORES`, checked where a recipe is used (`rules/recipe_names.py`).
    """

    divergence: Divergence
    score: str
    policy: Literal["best_per_question", "top_k"]
    budgets: dict[str, dict[str, Positive]]
