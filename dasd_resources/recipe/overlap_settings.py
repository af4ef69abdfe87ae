"""Which questions are left out because they are too much like others: those of a benchmark, or of another line."""

from typing import Annotated

from pydantic import Field

from dasd_resources.recipe.parts import Part, Probability, Share


class Decontamination(Part):
    """Questions that a benchmark holds are not asked: the same ones, and those that share word n-grams with one."""

    ngram_size: Annotated[int, Field(ge=5)] = 13
    """In words and operators."""
    min_share: Share = 0.0
    """Of a benchmark question's n-grams, the least that a question must share to be left out; 0: one is enough."""
    files: tuple[str, ...] = Field(default=(), strict=False)
    """Further files of held-out questions, as prompt files are."""


class NearDuplicates(Part):
    """Of questions that are almost the same, the first is asked: those whose word n-grams have this Jaccard index."""

    threshold: Annotated[Probability, Field(ge=0.3)] = 0.8
    """Jaccard index."""
    ngram_size: Annotated[int, Field(ge=1)] = 3
    """In words."""
