"""The faults of a document as lines for people: the key, what is wrong with it, what was meant, the value found."""

import re
from collections.abc import Iterator, Mapping
from typing import TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from dasd_resources.recipe.keys import key_meant
from dasd_resources.recipe.parts import Part, RecipeError

Section = TypeVar("Section", bound=Part)

# Values never shown: a key or password may be in them by mistake.
MAY_HOLD_SECRETS = {"server", "scoring_server", "landing"}
_UNKNOWN = "extra_forbidden"
_POWER_OF_TEN = re.compile(r"([+-]?\d+)(\.\d*)?[eE]([+-]?)(\d+)")  # a number to YAML only with both point and sign
_REMEDIES = {_UNKNOWN: "; remove the key or correct its spelling", "missing": "; add the key"}


def checked(part: type[Section], document: object, where: str) -> Section:
    """The document as a `part`. Raises RecipeError: where it was given, and each fault."""
    try:
        return part.model_validate(document)
    except ValidationError as error:
        raise RecipeError(f"{where}: {'; '.join(error_lines(error, part))}") from None


def error_lines(error: ValidationError, part: type[Part]) -> Iterator[str]:
    """A line per fault of a document that was to be a `part`."""
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"])) or error.title.lower()
        message = _message(fault, part)
        hidden = not MAY_HOLD_SECRETS.isdisjoint(fault["loc"]) or isinstance(fault["input"], Mapping)
        yield f"{key}: {message}" if hidden else f"{key}: {message} (found {fault['input']!r})"


def _message(fault: ErrorDetails, part: type[Part]) -> str:
    """What is wrong with a value, and what to do."""
    kind, found = fault["type"], fault["input"]
    if kind == "tuple_type":
        return "must be a list: [a, b]"
    if kind == "float_type" and isinstance(found, str) and (number := _POWER_OF_TEN.fullmatch(found)):
        return f"YAML reads {found} as text: write {number[1]}{number[2] or '.0'}e{number[3] or '+'}{number[4]}"
    if kind == "string_type" and isinstance(found, int | float):
        return f"{fault['msg']}; put it in quotes"
    close = key_meant(part, fault["loc"]) if kind == _UNKNOWN else ""
    return fault["msg"].removeprefix("Value error, ") + (close or _REMEDIES.get(kind, ""))
