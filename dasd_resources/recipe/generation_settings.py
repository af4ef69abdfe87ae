"""`generation` and `parity`: the teacher's candidates (report §3), and the check of their logprobs."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from dasd_resources.inference.engine_catalogue import PLAIN_SCORER, local_engines
from dasd_resources.recipe.parts import CONTEXT, AddedLater, Part, Positive, Probability


def _instruction(text: str) -> str:
    if not text.strip() or text != text.strip():
        raise ValueError("must be a text without white space around it: it is written below the question")
    return text


class Generation(Part):
    """Candidates sampled from the teacher for every question, at each temperature (report §3).

    The last three are by domain (docs/questions.md). max_tokens is training.max_length, where only that is given.
    """

    temperatures: tuple[Annotated[float, Field(gt=0, le=2)], ...] = Field(
        default=(0.6, 1.0), min_length=1, strict=False
    )
    """Ascending, a training stage each (report §3)."""
    num_candidates: Positive = 8
    """Responses to each question at each temperature; the report says several."""
    top_p: Probability = 1.0
    """Nucleus; the report is silent."""
    max_tokens: Positive = CONTEXT
    """Of a response; the training context (report §6.4.1)."""
    questions_per_domain: Annotated[dict[str, Annotated[int, Field(ge=0)]], AddedLater] = Field(default_factory=dict)
    """How many questions of a domain are asked at most."""
    question_order: Annotated[dict[str, Literal["hash", "longest_reference_first"]], AddedLater] = Field(
        default_factory=dict
    )
    """Which of them come first: by hash, or with the longest reference answer."""
    instructions: Annotated[dict[str, Annotated[str, AfterValidator(_instruction)]], AddedLater] = Field(
        default_factory=dict
    )
    """What is written below a question, such as the form of the answer."""

    @model_validator(mode="after")
    def _ordered_domains_have_a_quota(self) -> Self:
        if idle := sorted(set(self.question_order) - set(self.questions_per_domain)):
            raise ValueError(
                f"question_order names {idle}, of which every question is asked: give them a number in "
                "questions_per_domain, or leave them out"
            )
        return self

    @field_validator("temperatures")
    @classmethod
    def _ascending(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        names = [dataset_name(t) for t in temperatures]
        if list(temperatures) != sorted(temperatures) or len(set(names)) < len(names):
            raise ValueError("must ascend, at least 0.01 apart: training goes from the lowest to the highest")
        return temperatures


OWN = "own"  # in parity.….engine: the engine that the model itself runs on


def _rescoring_engine(engine: str) -> str:
    if engine not in (names := [OWN, *local_engines()]):
        raise ValueError(f"cannot re-score; must be one of {', '.join(names)}")
    return engine


Nats = Annotated[float, Field(gt=0)]


class Rescoring(Part):
    """The engine that scores a sample again, and how far apart the two may be: on average, and by token.

    The largest difference is reported, and a limit only where one is given: it grows with the number of tokens.
    """

    engine: Annotated[str, AfterValidator(_rescoring_engine)]
    """`own`: the one that the model runs on."""
    max_mean_difference: Nats
    """Nats per token."""
    max_p99_difference: Annotated[Nats | None, AddedLater] = None
    """Nats, of all tokens but one in a hundred; null: no such limit."""
    max_p999_difference: Annotated[Nats | None, AddedLater] = None
    """Nats, of all tokens but one in a thousand; null: no such limit."""
    max_difference: Nats | None = None
    """Nats, of any token; null: no such limit."""

    @model_validator(mode="after")
    def _more_than_a_mean(self) -> Self:
        if self.max_p99_difference is None and self.max_p999_difference is None and self.max_difference is None:
            raise ValueError(
                "a mean hides a few tokens that are all wrong; give max_p99_difference, max_p999_difference or "
                "max_difference, too"
            )
        return self

    def engine_for(self, own: str) -> str:
        """The engine that re-scores a model which runs on `own`."""
        return own if self.engine == OWN else self.engine


def in_bfloat16(engine: str) -> Rescoring:
    """The limits where a recipe sets none.

    More than twice what rounding made of models that could be run (bench_parity.py, docs/log.md) on average, at most
    0.045, and at p99, at most 0.22; a 1.7B model was reported with a mean of 0.046 (vLLM issue 18352). At p99.9 it is
    six times the largest, 0.25, as that was seen on some hundred tokens of the largest model. Logprobs of sampling at
    temperature 0.6, taken for raw ones, are above 0.5 at p99 even where a model is sure of 19 tokens in 20; their mean
    alone is not.
    """
    return Rescoring(engine=engine, max_mean_difference=0.1, max_p99_difference=0.5, max_p999_difference=1.5)


class Parity(Part):
    """The check that a batch must pass before its logprobs are used: a sample is computed again by prefill.

    An engine that can scores one sequence at a time, unpadded.
    The defaults suit bfloat16, where decode and prefill round differently; in float32 a thousandth of them is enough.
    """

    num_responses: Positive = 16
    """Of each batch."""
    max_tokens: Positive = 4096
    """Of each response but the longest of a sample, of which all are compared."""
    teacher: Rescoring = in_bfloat16(OWN)
    """The teacher's logprobs, which came with sampling."""
    student: Rescoring = in_bfloat16(PLAIN_SCORER)
    """The student's, which came of one forward pass."""


def dataset_name(temperature: float) -> str:
    """0.6 -> `t060`."""
    return f"t{round(temperature * 100):03d}"
