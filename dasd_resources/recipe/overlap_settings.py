"""Which questions are left out because they are too much like others: those of a benchmark, or of another line."""

from typing import Annotated

from pydantic import Field

from dasd_resources.recipe.parts import Part, Probability, Share


class Decontamination(Part):
    """Questions that a benchmark holds are not asked: the same ones, and those that share word n-grams with one.

    ngram_size: in words and operators. min_share: of a benchmark question's n-grams, the least that a question must
    share to be left out; 0: a single one is enough. files: further files of held-out questions, as prompt files are.
    """

    ngram_size: Annotated[int, Field(ge=5)] = 13
    min_share: Share = 0.0
    files: tuple[str, ...] = Field(default=(), strict=False)


class NearDuplicates(Part):
    """Of questions that are almost the same, the first is asked: those whose word n-grams have this Jaccard index."""

    threshold: Annotated[Probability, Field(ge=0.3)] = 0.8
    ngram_size: Annotated[int, Field(ge=1)] = 3
