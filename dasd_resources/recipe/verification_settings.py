"""`verification`: how programs are run that judge an answer: the answer's own, or a scorer that evaluates it."""

from typing import Annotated, Literal

from pydantic import Field

from dasd_resources.recipe.parts import AddedLater, Part, Seconds
from dasd_resources.sandbox import Confinement


class Verification(Part):
    """Limits of a program that a model wrote, and whether it may run without a sandbox (docs/verifiers.md)."""

    sandbox: Literal["required", "unsafe"] = "required"
    """`unsafe` where there can be none: what models write then runs with your rights. It decides no verdict."""
    seconds_per_test: Annotated[Seconds, AddedLater] = 10.0
    """Of computing."""
    seconds_per_answer: Annotated[Seconds, AddedLater] = 100.0
    """Of computing."""
    memory_mb: Annotated[int, Field(ge=128), AddedLater] = 1024
    """Of a process."""

    @property
    def confinement(self) -> Confinement:
        """The same, as a sandbox takes it."""
        return Confinement(
            self.sandbox == "unsafe", self.seconds_per_test, self.seconds_per_answer, memory_mb=self.memory_mb
        )


# What decides a verdict, as dotted paths: all but where the program runs.
LIMITS = tuple(f"verification.{name}" for name in Verification.model_fields if name != "sandbox")
