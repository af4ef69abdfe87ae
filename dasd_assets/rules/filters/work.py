"""The work that leads to an answer, as far as it can be checked without a model: steps, not outcomes.

A right answer may follow from wrong work: a teacher that has slipped may know the result all the same, and a student
that learns from it learns the slip. Checked are equations of numbers, and every step of a question of the school, whose
procedures are known (`dasd_resources/school`). Left out: variables, units, remainders, brackets.
"""

import json
import re
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from typing import TYPE_CHECKING

from dasd_assets.rules.verdict import Verdict
from dasd_resources.chat import split_thinking

if TYPE_CHECKING:
    from dasd_resources.school.family import Family

MAX_DIGITS, MAX_TERMS = 15, 30
SHOWN = 3  # false equations that a reason quotes
_NUMBER = rf"[-−]?(?:\d{{1,3}}(?:,\d{{3}})+|\d{{1,{MAX_DIGITS}}})(?:\.\d{{1,{MAX_DIGITS}}})?"
_OPERATOR = r"(?:[-−+*/×·÷]|\\times|\\cdot|\\div)"
_SIDE = rf"{_NUMBER}(?:\s*{_OPERATOR}\s*{_NUMBER}){{0,{MAX_TERMS}}}"
_EQUALS = r"\s*(?:=|\bgives\b|\bequals\b)\s*"
_EQUATION = re.compile(rf"(?<![\w.,$^_√\\]){_SIDE}(?:{_EQUALS}{_SIDE})+(?![\w%^√!(\[{{\\])(?![.,]\d)")
_PART = re.compile(rf"({_NUMBER})|({_OPERATOR})")
# "Adding 1/2 gives 3/4" says nothing of the number that it follows.
_SAYS_OF_NUMBER = re.compile(rf"(?:\A|=|gives|equals)\s*{_NUMBER}(?:\s*[/÷]\s*{_NUMBER})?\s*\b(?:gives|equals)\b")
_COMPUTES = re.compile(rf"\d\s*{_OPERATOR}")
# What stands beside an equation where it is a part of another formula or number (`2 1/2`, `10 000`), or holds in other
# arithmetic.
_GOES_ON_BEFORE = re.compile(
    r"(?:[-−+*/×·÷^√=)}\]|:]|\\[a-z]+|\b(?:of|plus|minus|times|over|by|log|ln|sin|cos|tan|sqrt|root)"
    r"|(?i:\b(?:adding|subtracting|binary|octal|hex\w*|(?:mod(?:ulo)?|base) \d{1,3})),?)\s*\Z|\d[ \t\xa0\u202f]+\Z"
)
_GOES_ON_AFTER = re.compile(
    r"\s*(?:[-−+*/×·÷^|:]\s*[\w(√\\{]|\(?\s*\\?[bp]?mod(?:ulo)?\b|\(?(?:in )?(?:base|binary|octal|hex)"
    r"|r(?:emainder)?\s*\d|remainder|times\b|over\b)|[ \t\xa0\u202f]+\d"
)
_TAKEN_BACK = re.compile(
    r"[\s.,;!?)*-]*(?:wait|hmm|no\b|oops|actually|but\b|(?:that|this)(?:'s| is)? (?:not|wrong))", re.I
)
_TIMES, _OVER, _MINUS = {"*", "×", "·", r"\times", r"\cdot"}, {"/", "÷", r"\div"}, {"-", "−"}


def work(text: str, metadata: str) -> Verdict:
    """No step of the thinking is known to be wrong; value: how many are, None where none could be checked.

    metadata: of the question, a JSON object or empty. What the next words take back is not counted.
    """
    checked = list(equations(split_thinking(text)[0] or ""))
    if false := [written for written, holds in checked if not holds]:
        return Verdict(False, "wrong_step", f"does not hold: {'; '.join(false[:SHOWN])}", len(false))
    sound = _is_sound(text, metadata)
    if sound is False:
        return Verdict(False, "wrong_step", "not the steps of its procedure, each right", 1)
    return Verdict(True, value=0 if checked or sound else None)


def equations(body: str) -> Iterator[tuple[str, bool]]:
    """Every equation of numbers as it is written, and whether it holds; broken values may be rounded either way."""
    for match in _EQUATION.finditer(body):
        before, after = body[max(match.start() - 12, 0) : match.start()], body[match.end() : match.end() + 24]
        if _GOES_ON_BEFORE.search(before) or _GOES_ON_AFTER.match(after) or _SAYS_OF_NUMBER.search(match[0]):
            continue
        sides = re.split(_EQUALS, match[0])
        try:
            values = [_value(side) for side in sides]
        except ZeroDivisionError:
            continue
        results = [side for side in sides if not _COMPUTES.search(side)]
        if len(results) == len(sides):
            continue  # nothing is computed
        last = min((Fraction(1, 10 ** len(side.partition(".")[2])) for side in results), default=Fraction(0))
        difference = max(values) - min(values)
        holds = difference == 0 or (difference < last and any(value.denominator > 1 for value in values))
        if holds or not _TAKEN_BACK.match(after):
            yield " ".join(match[0].split()), holds


def _value(side: str) -> Fraction:
    """What a side comes to; raises ZeroDivisionError."""
    terms, pending = list[Fraction](), "+"
    for number, operator in _PART.findall(side):
        if operator:
            pending = operator
            continue
        value = Fraction(number.replace(",", "").replace("−", "-"))
        if pending in _TIMES:
            terms[-1] *= value
        elif pending in _OVER:
            terms[-1] /= value
        else:
            terms.append(-value if pending in _MINUS else value)
        pending = "+"  # the sign of a number that follows without an operator is its own: `2*3-5`
    return sum(terms, Fraction(0))


def _is_sound(text: str, metadata: str) -> bool | None:
    """What the school says of a response to one of its questions; None for any other."""
    known = json.loads(metadata or "{}")
    if "source_dataset" not in known:
        return None
    try:
        family = _families().get(known["source_dataset"])
        return None if family is None else family.is_sound({"metadata": known}, text)
    except (KeyError, TypeError, ValueError):  # a question like the school's, with other metadata
        return None


@cache
def _families() -> dict[str, "Family"]:
    """Data set -> family of the school; loads reasoning-gym."""
    from dasd_resources.school.catalogue import FAMILIES

    return {family.dataset: family for family in FAMILIES}
