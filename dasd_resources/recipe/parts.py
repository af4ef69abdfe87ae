"""The base class of every section of a recipe, and types of numbers with bounds."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SerializationInfo

from dasd_resources.errors import UserError

Option = str | int | float | bool | None
Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
DECIDING = "deciding"  # the serialization of what decides rows, for versions


class RecipeError(UserError, ValueError):
    """A recipe that cannot be run; the message names key, value and remedy."""

    exit_code = 2  # nothing was tried


class Part(BaseModel):
    """A frozen section of the recipe; unknown keys and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def without_defaults(
    part: Part, document: dict[str, object], info: SerializationInfo, added: Iterable[str]
) -> dict[str, object]:
    """A section as what decides rows, without the keys added since that are at their default.

    So the versions of recipes written before are what they were.
    """
    if info.context != DECIDING:
        return document
    fields = type(part).model_fields
    unset = {name for name in added if getattr(part, name) == fields[name].default}
    return {name: value for name, value in document.items() if name not in unset}
