"""Whose sentences a checkpoint's own answers consist of (report §4, Figures 5 and 6): which answers are looked at."""

from typing import Annotated

from pydantic import Field

from dasd_resources.recipe.parts import Part, Positive


class Provenance(Part):
    """Of the answers that `evaluation` asks for, those that teacher, undistilled student and checkpoint score.

    A key that is left out takes all.
    """

    benchmarks: tuple[str, ...] | None = Field(None, strict=False, min_length=1)
    """Of the evaluation's."""
    temperatures: tuple[Annotated[float, Field(gt=0, le=2)], ...] | None = Field(None, strict=False, min_length=1)
    """Of the evaluation's."""
    num_questions: Positive | None = None
    """Of each benchmark, those whose ids come first, which are hashes."""
    samples_per_question: Positive | None = None
    """At most so many answers to each."""
