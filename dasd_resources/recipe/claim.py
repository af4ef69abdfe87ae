"""A claim of an experiment: what is expected of its arms, and which of its comparisons decide whether it is so."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from dasd_resources.recipe.parts import Part

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=60)]
Pair = Annotated[tuple[Name, Name], Field(strict=False)]  # arms, of which the first less the second is asked for


class Claim(Part):
    """What is claimed, in words, and by which comparisons it is decided.

    above: pairs that the experiment compares, either way round; of each the first is claimed to be above the second.
    of: in what; the last two are of what the arms are trained on.
    """

    claim: Annotated[str, Field(min_length=1)]
    above: tuple[Pair, ...] = Field(min_length=1, strict=False)
    of: Literal["accuracy", "training_loss", "probability"] = "accuracy"

    @field_validator("above")
    @classmethod
    def _distinct(cls, pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
        if len(set(map(frozenset, pairs))) < len(pairs):
            raise ValueError("names a pair twice, this way round or the other; remove one")
        return pairs
