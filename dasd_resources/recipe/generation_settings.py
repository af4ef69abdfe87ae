"""Candidates of the teacher (report §3), and the check of the logprobs that come with them."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dasd_resources.recipe.parts import Part, Positive, Probability


class Generation(Part):
    """Candidates sampled from the teacher for every question, at each temperature (report §3)."""

    temperatures: tuple[Annotated[float, Field(gt=0, le=2)], ...] = Field(min_length=1, strict=False)
    num_candidates: Positive
    top_p: Probability
    max_tokens: Positive

    @field_validator("temperatures")
    @classmethod
    def _ascending(cls, temperatures: tuple[float, ...]) -> tuple[float, ...]:
        names = [dataset_name(t) for t in temperatures]
        if list(temperatures) != sorted(temperatures) or len(set(names)) < len(names):
            raise ValueError("must ascend, at least 0.01 apart: training goes from the lowest to the highest")
        return temperatures


class Rescoring(Part):
    """How a model's stored logprobs are re-made, and by how many nats a token's may differ, on average and at most."""

    engine: Literal["own", "transformers", "vllm"]
    max_mean_difference: Annotated[float, Field(gt=0)]
    max_difference: Annotated[float, Field(gt=0)]


class Parity(Part):
    """The gate before anything is made from logprobs: a sample of them is re-made by prefill, and must agree.

    `own` is the engine that the model has anyway; transformers is one sequence at a time, unpadded. The defaults suit
    bfloat16, where decode and prefill round differently; float32 allows a thousandth of them.
    """

    num_responses: Positive = 16
    max_tokens: Positive = 4096
    teacher: Rescoring = Rescoring(engine="own", max_mean_difference=0.05, max_difference=1.0)
    student: Rescoring = Rescoring(engine="transformers", max_mean_difference=0.05, max_difference=1.0)


def dataset_name(temperature: float) -> str:
    """0.6 -> `t060`."""
    return f"t{round(temperature * 100):03d}"
