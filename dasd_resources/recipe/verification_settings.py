"""`verification`: how programs are run that judge an answer: the answer's own, or a scorer that evaluates it."""

from typing import Annotated, Literal

from pydantic import Field

from dasd_resources.recipe.parts import AddedLater, Part, Seconds
from dasd_resources.sandbox import Confinement


class Verification(Part):
    """Limits of a program that a model wrote, and whether it may run without a sandbox (docs/verifiers.md).

    sandbox: `required`, or `unsafe` where there can be none: what models write then runs with the rights of this
    process. It decides no verdict, the limits do. seconds_per_test, seconds_per_answer: of computing. memory_mb: of a
    process.
    """

    sandbox: Literal["required", "unsafe"] = "required"
    seconds_per_test: Annotated[Seconds, AddedLater] = 10.0
    seconds_per_answer: Annotated[Seconds, AddedLater] = 100.0
    memory_mb: Annotated[int, Field(ge=128), AddedLater] = 1024

    @property
    def confinement(self) -> Confinement:
        """The same, as a sandbox takes it."""
        return Confinement(
            self.sandbox == "unsafe", self.seconds_per_test, self.seconds_per_answer, memory_mb=self.memory_mb
        )


# What decides a verdict, as dotted paths: all but where the program runs.
LIMITS = tuple(f"verification.{name}" for name in Verification.model_fields if name != "sandbox")
