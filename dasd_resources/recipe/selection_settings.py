"""Quality filters (report §6.2) and divergence-aware sampling (§4): which responses are trained on."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dasd_resources.recipe.parts import AddedLater, Part, Positive, Probability, Share

Per = Literal["token", "character"]
Measure = Literal["probability", "log"]
Unit = Literal["examples", "tokens"]


class Repetition(Part):
    """The shares of repetition above which a response is dropped (report §6.2; docs/filters.md).

    max_duplicate_share: of the response, in n-grams of `ngram_sizes` words and signs said again and again.
    max_loop_share: of any `window_tokens` tokens, in loops. max_tail_share: of the last `tail_tokens`, in a loop.
    """

    ngram_sizes: tuple[Positive, ...] = Field(strict=False)
    max_duplicate_share: Probability
    tail_tokens: Positive
    max_tail_share: Probability
    window_tokens: Annotated[Positive, AddedLater] = 256
    max_loop_share: Annotated[Probability, AddedLater] = 0.7


class Filters(Part):
    """Quality filters (report §6.2), applied before or after selection. Correctness is always recorded.

    required: filters that a response must pass besides the report's (docs/filters.md); their verdicts are recorded
    anyway. max_refusal_chars: of an answer that counts as a refusal. max_foreign_share: of the thinking in another
    language. min_question_share: of the question's terms in the thinking.
    """

    max_student_tokens: Positive
    repetition: Repetition
    require_correct: bool
    apply: Literal["before_selection", "after_selection"]
    required: Annotated[tuple[str, ...], AddedLater] = Field((), strict=False)
    max_refusal_chars: Annotated[Positive, AddedLater] = 400
    max_foreign_share: Annotated[Share, AddedLater] = 0.1
    min_question_share: Annotated[Share, AddedLater] = 0.1


class Divergence(Part):
    """A sentence is the teacher's (student's) where the two differ by more than `threshold` (report §4)."""

    measure: Measure
    threshold: Annotated[float, Field(gt=0)]
    per: Per


class Selection(Part):
    """Divergence-aware sampling (report §4): the score that ranks responses, and how many are kept per domain.

    score: an entry of `dasd_assets.rules.scores.SCORES`, checked where a recipe is used (`rules/recipe_names.py`).
    min_sentences: the fewest that a response may have. pseudo_count: how many sentences, average for the domain, are
    added to each response before it is ranked by a mean; 0 ranks by the mean itself. max_per_question: for top_k.
    budgets: dataset -> domain -> how much is kept, in examples or in the student's tokens (`budget_unit`).
    """

    divergence: Divergence
    score: str
    policy: Literal["best_per_question", "top_k"]
    min_sentences: Annotated[int, Field(ge=0)] = 0
    pseudo_count: Annotated[float, Field(ge=0)] = 0.0
    max_per_question: Positive | None = None
    budgets: dict[str, dict[str, Positive]]
    budget_unit: Unit = "examples"

    @model_validator(mode="after")
    def _one_limit_per_question(self) -> Self:
        if self.policy == "best_per_question" and self.max_per_question is not None:
            raise ValueError("policy best_per_question keeps one response a question; remove max_per_question")
        return self
