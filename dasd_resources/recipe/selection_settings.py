"""Quality filters (report §6.2) and divergence-aware sampling (§4): which responses are trained on."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dasd_resources.recipe.parts import CONTEXT, AddedLater, Part, Positive, Probability, Share

Per = Literal["token", "character"]
Measure = Literal["probability", "log"]
Unit = Literal["examples", "tokens"]


class Repetition(Part):
    """The shares of repetition above which a response is dropped (report §6.2; docs/filters.md).

    The report gives no numbers: these are ours.
    """

    ngram_sizes: tuple[Positive, ...] = Field(default=(20, 50), strict=False)
    """Words and signs of an n-gram."""
    max_duplicate_share: Probability = 0.3
    """Of the response, in n-grams that are said again and again."""
    tail_tokens: Positive = 4096
    """The end of the response, by itself."""
    max_tail_share: Probability = 0.5
    """Of that end, in a loop."""
    window_tokens: Annotated[Positive, AddedLater] = 256
    """Any piece of the response."""
    max_loop_share: Annotated[Probability, AddedLater] = 0.7
    """Of such a piece, in loops."""


class Filters(Part):
    """Quality filters (report §6.2), applied before or after selection. Correctness is always recorded.

    max_student_tokens is training.max_length, where only that is given.
    """

    max_student_tokens: Positive = CONTEXT
    """Longer samples are dropped, counted in the student's tokens (report §6.2)."""
    repetition: Repetition = Repetition()
    """What counts as repeating itself."""
    require_correct: bool = False
    """Whether only right answers are trained on; selection needs no ground truth (report §4)."""
    apply: Literal["before_selection", "after_selection"] = "before_selection"
    """The report's figure shows selection first; filtering first saves forward passes of the student."""
    required: Annotated[tuple[str, ...], AddedLater] = Field(default=(), strict=False)
    """Filters that a response must pass besides the report's (docs/filters.md); all verdicts are recorded anyway."""
    max_refusal_chars: Annotated[Positive, AddedLater] = 400
    """Of an answer that counts as a refusal."""
    max_foreign_share: Annotated[Share, AddedLater] = 0.1
    """Of the thinking, in another language than the question's."""
    min_question_share: Annotated[Share, AddedLater] = 0.1
    """Of the question's terms, in the thinking."""


class Divergence(Part):
    """A sentence is the teacher's (student's) where the two differ by more than `threshold` (report §4)."""

    measure: Measure = "probability"
    """Difference of the probabilities, or of their logarithms."""
    threshold: Annotated[float, Field(gt=0)] = 0.1
    """The report says much greater; below 1 where probabilities are compared."""
    per: Per = "token"
    """Geometric mean over tokens (report §4), or over characters, which favours no tokenizer."""

    @model_validator(mode="after")
    def _can_be_exceeded(self) -> Self:
        if self.measure == "probability" and self.threshold >= 1:
            raise ValueError("threshold must be below 1 with measure probability; for nats, write measure: log")
        return self


class Selection(Part):
    """Divergence-aware sampling (report §4): the score that ranks responses, and how many are kept per domain.

    score: an entry of `dasd_assets.rules.scores.SCORES`, checked where a recipe is used (`rules/recipe_names.py`).
    The defaults suit any number of questions; the report's budgets (§6.3) are those of its own 105 thousand.
    """

    divergence: Divergence = Divergence()
    """When a sentence is the teacher's, or the student's."""
    score: str = "teacher_share"
    """What ranks responses: those richest in teacher sentences first (docs/selection.md)."""
    policy: Literal["best_per_question", "top_k"] = "best_per_question"
    """The best response to each question, or the best of each domain's, within the budgets."""
    min_sentences: Annotated[int, Field(ge=0)] = 0
    """The fewest that a response may have."""
    pseudo_count: Annotated[float, Field(ge=0)] = 0.0
    """Sentences, average for the domain, that are added to each response before it is ranked by a mean."""
    max_per_question: Positive | None = None
    """Responses to one question, with top_k."""
    budgets: dict[str, dict[str, Positive]] = Field(default_factory=dict)
    """Dataset (t060) -> domain -> how much is kept; all of what is not named."""
    budget_unit: Unit = "examples"
    """What budgets count: examples, or the student's tokens."""

    @model_validator(mode="after")
    def _one_limit_per_question(self) -> Self:
        if self.policy == "best_per_question" and self.max_per_question is not None:
            raise ValueError("policy best_per_question keeps one response a question; remove max_per_question")
        return self
