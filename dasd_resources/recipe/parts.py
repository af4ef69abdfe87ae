"""The base class of every section of a recipe, and types of numbers with bounds."""

from collections.abc import Iterator, Mapping
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
)
from pydantic_core import to_jsonable_python

from dasd_resources.errors import UserError

Option = str | int | float | bool | None
Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
DECIDING = "deciding"  # the serialization of what decides rows, for versions
MAY_HOLD_SECRETS = {"server", "landing"}  # values never shown: a key or password may be in them by mistake
_REMEDIES = {"extra_forbidden": "; remove the key or correct its spelling", "missing": "; add the key"}


class AddedLater:
    """Marks a key that hashes leave out as long as it has its default: the recipes from before it keep theirs."""


class RecipeError(UserError, ValueError):
    """A recipe that cannot be run; the message names key, value and remedy."""

    exit_code = 2  # nothing was tried


class Part(BaseModel):
    """A frozen section of the recipe; unknown keys and wrong types are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_serializer(mode="wrap")
    def _deciding(self, serialize: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, object]:
        document: dict[str, object] = serialize(self)
        if info.context != DECIDING:
            return document
        return {name: value for name, value in document.items() if not is_unset(self, name)}


def deciding(value: object) -> object:
    """A part, or a value in one, as plain values, without what decides no row: what versions are made from."""
    return to_jsonable_python(value, context=DECIDING)


def is_unset(part: Part, key: str) -> bool:
    """Whether a key was added later and has its default."""
    field = type(part).model_fields[key]
    return AddedLater in field.metadata and getattr(part, key) == field.get_default(call_default_factory=True)


def error_lines(error: ValidationError) -> Iterator[str]:
    """A line per fault of a document: the key, what is wrong with it, the value found."""
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"])) or error.title.lower()
        message = fault["msg"].removeprefix("Value error, ") + _REMEDIES.get(fault["type"], "")
        hidden = not MAY_HOLD_SECRETS.isdisjoint(fault["loc"]) or isinstance(fault["input"], Mapping)
        yield f"{key}: {message}" if hidden else f"{key}: {message} (found {fault['input']!r})"
