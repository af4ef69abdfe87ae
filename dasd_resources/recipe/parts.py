"""What every section of a recipe is made of: a frozen part, numbers within bounds, and the hash of a value."""

import hashlib
import json
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Option = str | int | float | bool | None
Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]


class RecipeError(ValueError):
    """A recipe that cannot be run; the message names key, value and remedy."""


class Part(BaseModel):
    """A frozen section of the recipe; unknown keys and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def content_hash(value: object) -> str:
    """SHA-256 (hex) of a value's canonical JSON: the project's only way to make an id."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(canonical.encode("utf-8", "surrogatepass")).hexdigest()
