"""The base class of every section of a recipe, and types of numbers with bounds."""

from dataclasses import dataclass
from typing import Annotated

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
)
from pydantic_core import to_jsonable_python

from dasd_resources.errors import UserError

Option = str | int | float | bool | None
Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
CONTEXT = 65_536  # tokens that the student is trained on (report §6.4.1)
DECIDING = "deciding"  # the serialization of what decides rows, for versions


class AddedLater:
    """Marks a key that hashes leave out as long as it has its default: the recipes from before it keep theirs."""


class DecidesNothing:
    """Marks a key that no row or checkpoint depends on: hashes leave it out, whatever it is."""


@dataclass(frozen=True)
class HashedAs:
    """Marks a key that decides nothing but is in ids made before: hashes take this value, whatever it is."""

    value: object


class RecipeError(UserError, ValueError):
    """A recipe that cannot be run; the message names key, value and remedy."""

    exit_code = 2  # nothing was tried


class Part(BaseModel):
    """A frozen section of the recipe; unknown keys and wrong types are errors.

    The text below a key is what people are shown of it: by `dasd recipe --full`, and by editors (`--schema`).
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_serializer(mode="wrap")
    def _deciding(self, serialize: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, object]:
        document: dict[str, object] = serialize(self)
        if info.context != DECIDING:
            return document
        return {name: self._hashed(name, value) for name, value in document.items() if not is_unset(self, name)}

    def _hashed(self, key: str, value: object) -> object:
        marks = type(self).model_fields[key].metadata
        return next((mark.value for mark in marks if isinstance(mark, HashedAs)), value)


def deciding(value: object) -> object:
    """A part, or a value in one, as plain values, without what decides no row: what versions are made from."""
    return to_jsonable_python(value, context=DECIDING)


def is_unset(part: Part, key: str) -> bool:
    """Whether hashes leave a key out: it decides nothing, or was added later and has its default."""
    field = type(part).model_fields[key]
    if DecidesNothing in field.metadata:
        return True
    return AddedLater in field.metadata and getattr(part, key) == field.get_default(call_default_factory=True)
