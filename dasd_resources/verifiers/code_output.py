"""Whether a program gave what a test expects: output word by word, values as plain data; decimals within 1e-6."""

import math
import re

TOLERANCE = 1e-6  # relative or absolute, the usual one of contests; only where a decimal is expected
_DECIMAL = re.compile(r"[+-]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][+-]?\d+)?", re.ASCII)


def same_output(found: str, expected: str) -> bool:
    """The same words in each line; blank lines and white space count for nothing, case does."""
    lines, wanted = _lines(found), _lines(expected)
    return len(lines) == len(wanted) and all(
        len(line) == len(other) and all(map(_same_word, line, other)) for line, other in zip(lines, wanted, strict=True)
    )


def same_value(found: object, expected: object) -> bool:
    """Equal plain data; a tuple is a list, a key of a dict its text, as JSON has them; no code of a program acts."""
    if isinstance(expected, float):
        first, second = _number(found), _number(expected)
        return first is not None and second is not None and _close(first, second)
    if isinstance(expected, list | tuple):
        return isinstance(found, list | tuple) and len(found) == len(expected) and all(map(same_value, found, expected))
    if isinstance(expected, dict):
        if not isinstance(found, dict) or len(found) != len(expected):
            return False
        try:
            values = {str(key): value for key, value in found.items()}
        except ValueError:  # Python does not write numbers of thousands of digits
            return False
        return all(str(key) in values and same_value(values[str(key)], value) for key, value in expected.items())
    return found == expected


def _lines(text: str) -> list[list[str]]:
    return [words for line in text.splitlines() if (words := line.split())]


def _same_word(found: str, expected: str) -> bool:
    if found == expected:
        return True
    if not _DECIMAL.fullmatch(expected):
        return False
    try:
        return _close(float(found), float(expected))
    except ValueError:
        return False


def _number(value: object) -> float | None:
    """A number, or a bool, as the number that it is to Python; None of anything else, and of what is too large."""
    if isinstance(value, int | float) and (abs(value) < 1e300 or value in (math.inf, -math.inf)):
        return float(value)
    return None


def _close(found: float, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
