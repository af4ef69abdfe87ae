"""Whose sentences a checkpoint's own answers consist of (report §4, Figures 5 and 6): which answers are looked at."""

from typing import Annotated

from pydantic import Field

from dasd_resources.recipe.parts import Part, Positive


class Provenance(Part):
    """Of the answers that `evaluation` asks for, those that teacher, undistilled student and checkpoint score.

    benchmarks, temperatures: of the evaluation's; None takes all. num_questions: of each benchmark, those whose ids
    come first, which are hashes; None takes all. samples_per_question: at most so many; None takes all.
    """

    benchmarks: tuple[str, ...] | None = Field(None, strict=False, min_length=1)
    temperatures: tuple[Annotated[float, Field(gt=0, le=2)], ...] | None = Field(None, strict=False, min_length=1)
    num_questions: Positive | None = None
    samples_per_question: Positive | None = None
