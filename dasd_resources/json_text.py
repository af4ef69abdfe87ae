"""Strict JSON: it has no NaN, no infinity and no repeated key, and what is read is nested MAX_DEPTH deep at most."""

import json
import math
from collections import Counter

from dasd_resources.visible_text import ODD, excerpt, visible

MAX_DEPTH = 100  # of objects and lists within each other


def json_text(value: object) -> str:
    """A value as JSON: times as text, bytes in hexadecimal, non-finite numbers null, invisible characters escaped."""
    document = json.dumps(finite(value), ensure_ascii=False, default=_text, allow_nan=False)
    return ODD.sub(lambda found: found[0] if visible(found[0]) == found[0] else json.dumps(found[0])[1:-1], document)


def finite(value: object) -> object:
    """The value with None for every non-finite number, at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list | tuple) else value


def depth(value: object) -> int:
    """How many objects and lists are within each other, at most."""
    deep, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        deep += 1
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
    return deep


def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An `object_pairs_hook` of `json`. Raises ValueError for a repeated key."""
    value = dict(pairs)
    if len(value) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {excerpt(key)}")
    return value


def no_constant(name: str) -> None:
    """A `parse_constant` of `json`. Raises ValueError for NaN and infinity."""
    raise ValueError(f"{name} is not JSON")


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
