"""`generation` and `parity`: the teacher's candidates (report §3), and the check of their logprobs."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from dasd_resources.inference.engine_catalogue import PLAIN_SCORER, local_engines
from dasd_resources.recipe.parts import AddedLater, Part, Positive, Probability


def _instruction(text: str) -> str:
    if not text.strip() or text != text.strip():
        raise ValueError("must be a text without white space around it: it is written below the question")
    return text


class Generation(Part):
    """Candidates sampled from the teacher for every question, at each temperature (report §3).

    By domain: how many questions are asked at most, which come first, and what is written below the question.
    """

    temperatures: tuple[Annotated[float, Field(gt=0, le=2)], ...] = Field(min_length=1, strict=False)
    num_candidates: Positive
    top_p: Probability
    max_tokens: Positive
    questions_per_domain: Annotated[dict[str, Annotated[int, Field(ge=0)]], AddedLater] = Field(default_factory=dict)
    question_order: Annotated[dict[str, Literal["hash", "longest_reference_first"]], AddedLater] = Field(
        default_factory=dict
    )
    instructions: Annotated[dict[str, Annotated[str, AfterValidator(_instruction)]], AddedLater] = Field(
        default_factory=dict
    )

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


class Rescoring(Part):
    """The engine that scores a sample again, and the mean and largest difference allowed, in nats per token."""

    engine: Annotated[str, AfterValidator(_rescoring_engine)]
    max_mean_difference: Annotated[float, Field(gt=0)]
    max_difference: Annotated[float, Field(gt=0)]

    def engine_for(self, own: str) -> str:
        """The engine that re-scores a model which runs on `own`."""
        return own if self.engine == OWN else self.engine


class Parity(Part):
    """The check that a batch must pass before its logprobs are used: a sample is computed again by prefill.

    The engine `own` is the one that the model runs on. An engine that can scores one sequence at a time, unpadded.
    The defaults suit bfloat16, where decode and prefill round differently; in float32 a thousandth of them is enough.
    """

    num_responses: Positive = 16
    max_tokens: Positive = 4096
    teacher: Rescoring = Rescoring(engine="own", max_mean_difference=0.05, max_difference=1.0)
    student: Rescoring = Rescoring(engine=PLAIN_SCORER, max_mean_difference=0.05, max_difference=1.0)


def dataset_name(temperature: float) -> str:
    """0.6 -> `t060`."""
    return f"t{round(temperature * 100):03d}"
