"""The faults of a document as lines for people: the key, what is wrong with it, what was meant, the value found."""

from collections.abc import Iterator, Mapping

from pydantic import ValidationError

from dasd_resources.recipe.keys import key_meant
from dasd_resources.recipe.parts import Part

# Values never shown: a key or password may be in them by mistake.
MAY_HOLD_SECRETS = {"server", "scoring_server", "landing"}
_UNKNOWN = "extra_forbidden"
_REMEDIES = {_UNKNOWN: "; remove the key or correct its spelling", "missing": "; add the key"}


def error_lines(error: ValidationError, part: type[Part]) -> Iterator[str]:
    """A line per fault of a document that was to be a `part`."""
    for fault in error.errors():
        key = ".".join(map(str, fault["loc"])) or error.title.lower()
        close = key_meant(part, fault["loc"]) if fault["type"] == _UNKNOWN else ""
        message = fault["msg"].removeprefix("Value error, ") + (close or _REMEDIES.get(fault["type"], ""))
        hidden = not MAY_HOLD_SECRETS.isdisjoint(fault["loc"]) or isinstance(fault["input"], Mapping)
        yield f"{key}: {message}" if hidden else f"{key}: {message} (found {fault['input']!r})"
