"""Values as strict JSON, which has no NaN and no infinity."""

import json
import math

from dasd_resources.visible_text import ODD, visible


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


def _text(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
