"""`math`: equal numbers, or equal LaTeX where the reference is no number."""

import re
import unicodedata
from fractions import Fraction

from dasd_resources.verifiers.final_answer import compare_final_answer, tidy
from dasd_resources.verifiers.judgement import Asked, Judgement

MAX_NUMBER_CHARS = 200

_NUMBER = re.compile(
    r"(?P<sign>[+-]?)\s*"
    r"(?:(?:(?P<whole>\d+)\s+)?(?P<numerator>\d+)\s*/\s*(?P<denominator>\d+)"
    r"|(?P<decimal>(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)"
    r"(?:[eE](?P<exponent>[+-]?\d{1,3})|\s*(?:\\times|\xd7)\s*10\s*\^\s*\{?(?P<power>[+-]?\d{1,3})\}?)?)"
    r"\s*(?P<unit>[^\d]*)",
    re.ASCII,
)
# Only these may follow a number without changing it: "5 million", "5x" and "5 pi" are not 5.
_UNIT = re.compile(
    r"%|percent|°|degrees?|[ckm]?m|met(?:er|re)s?|miles?|f(?:oo|ee)t|ft|inch(?:es)?|hours?|min(?:ute)?s?|s(?:ec(?:ond)?s?)?"
    r"|days?|weeks?|months?|years?|dollars?|cents?|k?g|(?:kilo)?grams?|mph|units?|points?|ways?"
)
_LATEX = (
    (re.compile(r"\\(?:text|textbf|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}"), r" \1 "),
    (re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,;:! $]|[$€£~]"), ""),
    (re.compile(r"\\[dt]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}"), r" \1/\2 "),
    (re.compile(r"\^\s*(?:\{\s*)?\\circ(?:\s*\})?|\\degree"), "°"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\{,\}"), ","),
    (re.compile("[\N{MINUS SIGN}\N{EN DASH}]"), "-"),
)


def judge_math(answer: str, asked: Asked) -> Judgement:
    """Whether the final answer is the reference answer's number or expression."""
    return compare_final_answer(answer, asked, _same_maths)


def _same_maths(answer: str, reference: str) -> bool:
    """Equal numbers (exactly, as fractions) with no contrary units; where the reference is no number, equal LaTeX."""
    expected, found = _number(plain(reference)), _number(plain(answer))
    if expected is None:
        return "".join(plain(answer).split()) == "".join(plain(reference).split())
    if found is None:
        return False
    units = {unit for _, unit in (expected, found) if unit}
    return found[0] == expected[0] and len(units) <= 1


def plain(text: str) -> str:
    """A LaTeX answer with its typography removed and simple fractions as a/b; a leading `x =` is dropped."""
    text = tidy(unicodedata.normalize("NFC", text))
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return re.sub(r"^\s*[A-Za-z]\s*=", "", text).strip()


def _number(text: str) -> tuple[Fraction, str] | None:
    """Value and unit (singular, may be empty); None if the text is anything but a number and a known unit."""
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_NUMBER_CHARS else None
    unit = match["unit"].strip(" .").casefold() if match else ""
    if match is None or (unit and not _UNIT.fullmatch(unit)):
        return None
    if match["decimal"]:
        scale = int(match["exponent"] or match["power"] or 0)
        value = Fraction(match["decimal"].replace(",", "")) * Fraction(10) ** scale
    elif int(match["denominator"]) == 0:
        return None
    else:
        value = int(match["whole"] or 0) + Fraction(int(match["numerator"]), int(match["denominator"]))
    return (-value if match["sign"] == "-" else value), unit.removesuffix("s")
