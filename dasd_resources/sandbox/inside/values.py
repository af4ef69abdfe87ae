"""A value of a program as JSON, and back: plain data alone, so that no class of a program acts where it is compared."""

import math
from base64 import b64decode, b64encode
from collections import deque

Plain = object  # None, numbers, text, bytes, and lists, tuples, sets and dicts of these
MAX_DEPTH = 100
_EXACT = 1 << 53  # integers below are the same in every JSON reader


class NotPlain(TypeError):
    """A value that is no plain data."""


def encoded(value: object, depth: int = 0) -> object:
    """JSON values; what JSON lacks is an object with one key, its type. Raises NotPlain for anything else."""
    if depth > MAX_DEPTH:
        raise NotPlain(f"it is nested more than {MAX_DEPTH} deep")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        whole = int.__index__(value)
        return whole if -_EXACT < whole < _EXACT else {"int": hex(whole)}
    if isinstance(value, float):
        number = float.__float__(value)
        return number if math.isfinite(number) else {"float": str(number)}
    if isinstance(value, complex):
        return {"complex": [encoded(value.real), encoded(value.imag)]}
    if isinstance(value, bytes | bytearray):
        return {"bytes": b64encode(value).decode()}
    return _collection(value, depth + 1)


def _collection(value: object, depth: int) -> object:
    if isinstance(value, dict):
        return {"dict": [[encoded(key, depth), encoded(part, depth)] for key, part in dict.items(value)]}
    if isinstance(value, set | frozenset):
        return {"set": [encoded(part, depth) for part in value]}
    if isinstance(value, list | tuple | deque):
        parts = [encoded(part, depth) for part in value]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    raise NotPlain(f"it is a {type(value).__name__}, not plain data")


def decoded(value: object) -> Plain:
    """The value again. Raises ValueError for what `encoded` does not make, TypeError for a set or dict of lists."""
    if isinstance(value, list):
        return [decoded(part) for part in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise ValueError("no value has this form")
    ((kind, content),) = value.items()
    if kind == "int" and isinstance(content, str):
        return int(content, 16)
    if kind == "float" and isinstance(content, str):
        return float(content)
    if kind == "bytes" and isinstance(content, str):
        return b64decode(content)
    if not isinstance(content, list):
        raise ValueError("no value has this form")
    return _decoded_collection(str(kind), [decoded(part) for part in content])


def _decoded_collection(kind: str, parts: list[object]) -> Plain:
    if kind == "tuple":
        return tuple(parts)
    if kind == "set":
        return set(parts)
    if kind == "complex":
        real, imaginary = parts
        return complex(float(str(real)), float(str(imaginary)))
    if kind == "dict":
        found: dict[object, object] = {}
        for pair in parts:
            if not (isinstance(pair, list) and len(pair) == 2):
                raise ValueError("no value has this form")
            found[pair[0]] = pair[1]
        return found
    raise ValueError("no value has this form")
