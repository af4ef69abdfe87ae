"""`numeric`: a number within a tolerance of the reference, in no contrary unit.

`numeric:rel=0.01` allows one per cent of the reference, `numeric:abs=0.5` half a unit either way,
`numeric:rel=0.01,abs=1` whichever is more. `numeric` alone allows a millionth of the reference, which is what rounding
to six digits may cost.
"""

import re
from fractions import Fraction

from dasd_resources.verifiers.final_answer import size_fault, wrong
from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement
from dasd_resources.verifiers.math_text import stated_answer
from dasd_resources.verifiers.written_numbers import Quantity, asks_percent, plain, quantity

DEFAULT = "rel=0.000001"
_EQUALS = re.compile(r"=|\\approx(?![a-z])|\u2248")
# What stands before the last equality sign where the text is an inequality or says more than one thing.
_INEQUALITY = re.compile(r"(?:[<>]|\\not|(?<![\d)])!)\Z|(?:[<>]|\\not)\s+\Z")
_SEVERAL = re.compile(r"[;\uff0c\uff1b\u3001\u6216\u548c]|,(?!\d)|\\q?quad|\b(?:and|or)\b")
_BRACKETS = re.compile(r"\([^()]*\)|\{[^{}]*\}")
_TOLERANCE = re.compile(r"(rel|abs)=(\d{1,9}(?:\.\d{1,12})?|\.\d{1,12})", re.ASCII)


def is_tolerance(parameter: str) -> bool:
    """Whether a name's parameter is empty, or a tolerance: `rel=0.01`, `abs=0.5`, `rel=0.01,abs=0.5`."""
    return not parameter or _tolerances(parameter) is not None


def _tolerances(parameter: str) -> dict[str, Fraction] | None:
    parts = [_TOLERANCE.fullmatch(part) for part in parameter.split(",")]
    found = {part[1]: Fraction(part[2]) for part in parts if part}
    return found if len(found) == len(parts) else None


def judge_numeric(answer: str, asked: Asked) -> Judgement:
    """Whether the final answer is a number close to the reference answer."""
    found = stated_answer(answer)
    if fault := size_fault(found):
        return fault
    numbers = _number(found), stated_number(asked.reference_answer)
    in_percent = asks_percent(asked.question)
    if numbers[0] and numbers[1] and _within(numbers[0], numbers[1], asked.parameter or DEFAULT, in_percent):
        return CORRECT
    return wrong(found, asked)


def stated_number(text: str) -> Quantity | None:
    """The number that an answer part gives as its final answer."""
    return _number(stated_answer(text))


def _number(text: str) -> Quantity | None:
    r"""The number a text is or gives, as in `v = 5` or `\pi \approx 3.14`; None of `v \not= 5`, `v = 4, v = 5`."""
    text = plain(text)
    last = max((sign.span() for sign in _EQUALS.finditer(text)), default=(0, 0))
    before = text[: last[0]]
    if _INEQUALITY.search(before) or _SEVERAL.search(_BRACKETS.sub("", before)):
        return None
    return quantity(text[last[1] :].strip())


def _within(found: Quantity, expected: Quantity, parameter: str, in_percent: bool) -> bool:
    if in_percent:
        found, expected = found.without_percent, expected.without_percent
    tolerances = _tolerances(parameter)
    if tolerances is None or (found.unit and expected.unit and found.unit != expected.unit):
        return False
    allowed = max(tolerances.get("rel", Fraction(0)) * abs(expected.number), tolerances.get("abs", Fraction(0)))
    return abs(found.number - expected.number) <= allowed
