"""Numbers as people and models write them, with a unit: `1,234.5`, `\\frac12`, `2 1/2`, `1.5 \\times 10^3`, `5 cm`.

Read exactly, as fractions. What is more than a number and its unit (`5 million`, `5x`, `5 or 6`) is no number here.
"""

import re
import unicodedata
from dataclasses import dataclass, replace
from fractions import Fraction

from dasd_resources.verifiers.final_answer import TEXT_COMMAND, tidy

MAX_NUMBER_CHARS = 200
MIN_ROUNDED_DIGITS = 6  # of a decimal that may stand for 1/3; math-verify compares six decimals, too

_GROUPS = r"\d{1,3}(?:(?:,\d{3})+|(?: \d{3})+)"
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)\s*"
    r"(?:(?:(?P<whole>\d+)\s+)?(?P<numerator>\d+)\s*/\s*(?P<denominator>\d+)"
    r"|10\s*\^\s*(?:\{\s*(?P<braced>[+-]?\d{1,3})\s*\}|(?P<ten>[+-]?\d(?!\d)))"
    rf"|(?P<comma>0,\d+|\d+,(?!\d{{3}}(?!\d))\d{{2,}})"
    rf"|(?P<decimal>(?:{_GROUPS}|\d+)(?:\.\d*)?|\.\d+)"
    r"(?:[eE](?P<exponent>[+-]?\d{1,3})|\s*(?:\\times|\\cdot|\xd7)\s*10\s*\^\s*\{?(?P<power>[+-]?\d{1,3})\}?)?)"
    r"\s*(?P<unit>(?:[^\d]+[23]?\}?)?)",
    re.ASCII,
)
# Names of a unit, the first of which stands for all. None is converted: 60 minutes are not 1 hour.
_UNITS = (
    "% percent percentage pct",
    "° degree deg",
    "m meter metre",
    "cm centimeter centimetre",
    "mm millimeter millimetre",
    "km kilometer kilometre",
    "inch inches in",
    "foot feet ft",
    "yard yd",
    "mile mi",
    "g gram gm",
    "kg kilogram",
    "mg milligram",
    "lb pound",
    "l liter litre",
    "ml milliliter millilitre",
    "second sec s",
    "minute min",
    "hour hr h",
    "day",
    "week",
    "month",
    "year yr",
    "dollar usd",
    "cent",
    "euro eur",
    "mph",
    "km/h kmh kph",
    "m/s",
    "unit",
    "point",
    "way",
    "N newton",
    "J joule",
    "W watt",
    "V volt",
    "A ampere amp",
    "K kelvin",
    "C coulomb",
    "F farad",
    "T tesla",
    "H henry",
    "S siemens",
    "Ω ohm",
    "Hz hertz hz",
    "kHz khz",
    "MHz mhz",
    "GHz ghz",
    "kWh kwh",
    "Pa pascal",
    "kPa kpa",
    "MPa mpa",
    "eV electronvolt ev",
    "keV kev",
    "MeV mev",
    "mol mole",
)
_UNIT = {name: names.split()[0] for names in _UNITS for name in names.split()}
# Symbols of which case counts, and their products: `kJ/mol`, `N·m`.
_SYMBOL = r"(?:[pnμmkMGT]?(?:[NJWVAKCFTHSΩ]|Hz|eV|Pa|Wh|mol|cal)|°[CF]|[nμmck]?m|[μm]?s|[μmk]?g|[μm]?[lL]|h)"
_SYMBOLS = re.compile(rf"{_SYMBOL}(?:[·/]{_SYMBOL})*")
_NO_VARIABLES = re.compile(r"[A-Za-z]{3}|Hz|eV|Pa|[µμ°]")
_UPRIGHT = re.compile(r"\\(?:text|textrm|textnormal|mathrm|mbox)\s*\{")
_CELSIUS = re.compile(r"(?:°|degrees?)\s*([CF])(?:elsius|ahrenheit)?", re.IGNORECASE)
# These change the number before them, so what they are part of is none: they are no units.
_NOT_UNITS = re.compile(
    r"(?:hundred|thousand|million|billion|trillion|dozen|score|half|third|quarter|pi|or|and|to|times|plus|minus|by|of|mod"
    r"|not|at|more|less|least|most|about|than|over|per|out|the|is|sin|cos|tan|log|exp|max|min|greater|larger|smaller|fewer|bigger|higher|lower|where|when|if|for)s?",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z]{3,}(?:-[a-z]+)*", re.IGNORECASE)
_POWER = re.compile(r"\s*(?:\^\s*\{?\s*([23])\s*\}?|([\xb2\xb3])|([23]))$")
_LATEX = (
    (re.compile(r"\\mu\s*\\(?:text|mathrm)\s*\{\s*(\w+)\s*\}"), r" μ\1 "),
    (re.compile(r"\\Omega(?![A-Za-z])"), "Ω"),
    (re.compile(TEXT_COMMAND), r" \1 "),
    (re.compile(r"\\(?:left|right|displaystyle|Large|large|bf|rm)(?![A-Za-z])|\\[,;:! $]|[$€£¥₹~]"), ""),
    (re.compile(r"\\[dtc]frac(?![A-Za-z])"), r"\\frac"),
    (re.compile(r"\\frac\s*(\d)\s*(\d)(?!\d)"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*(\d)\s*\{\s*(\d+)\s*\}"), r"\\frac{\1}{\2}"),
    (re.compile(r"\\frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}(?=[A-Za-z])"), r" \1/\2"),  # a variable follows
    (re.compile(r"\\frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}"), r" \1/\2 "),
    (re.compile(r"\^\s*(?:\{\s*)?\\circ(?:\s*\})?|\\degree"), "°"),
    (re.compile(r"\\%"), "%"),
    (re.compile(r"\{,\}"), ","),
    (re.compile("[\N{MINUS SIGN}\N{EN DASH}]"), "-"),
    (re.compile("\N{DIVISION SIGN}"), "/"),
)
_ASKS_PERCENT = re.compile(
    r"(?:what|how many|which|as an?|in|the|of) (?:[a-z]+ ){0,2}percent(?:age)?\b|percentage|\u767e\u5206", re.IGNORECASE
)
_THIN_GROUPS = re.compile(r"(?<=\d)(?:,\s*\\!\s*|\\,|\\ |[\u00a0\u2009\u202f])(?=\d{3}(?!\d))")


@dataclass(frozen=True)
class Quantity:
    """A number with its unit ("" where it has none). In percent, `value` is the number before the sign.

    num_decimals: of a decimal that may be rounded; 0 of a fraction or integer. sure: False where a comma may have been
    meant as in `1,22` the decimal or in `1,22` the pair. of_variables: the unit may be variables (`5 N`, `3 kT`).
    """

    value: Fraction
    unit: str = ""
    num_decimals: int = 0
    sure: bool = True
    of_variables: bool = False

    @property
    def is_percentage(self) -> bool:
        """Whether it is counted in hundredths."""
        return self.unit == "%"

    @property
    def number(self) -> Fraction:
        """The value, of percent in hundredths."""
        return self.value / 100 if self.is_percentage else self.value

    @property
    def without_percent(self) -> "Quantity":
        """The number before the sign: what an answer in percent says, with the sign or without."""
        return replace(self, unit="") if self.is_percentage else self


def asks_percent(question: str) -> bool:
    """Whether a question asks for percent, so that an answer may leave the sign out."""
    return _ASKS_PERCENT.search(question) is not None


def plain(text: str) -> str:
    """A LaTeX answer with its typography removed and simple fractions as a/b."""
    text = _THIN_GROUPS.sub(",", tidy(unicodedata.normalize("NFC", text)))
    for pattern, replacement in _LATEX:
        text = pattern.sub(replacement, text)
    return text.strip()


def quantity(text: str) -> Quantity | None:
    """The number that `plain` text is, and its unit; None if it is anything else."""
    match = _NUMBER.fullmatch(text) if len(text) <= MAX_NUMBER_CHARS else None
    unit = unit_name(match["unit"], text[match.start("unit") - 1].isspace()) if match else None
    if match is None or unit is None:
        return None
    decimals = 0
    if match["comma"]:
        value = Fraction(match["comma"].replace(",", "."))
        decimals = len(match["comma"].partition(",")[2])
    elif match["braced"] or match["ten"]:
        value = Fraction(10) ** int(match["braced"] or match["ten"])
    elif match["decimal"]:
        scale = int(match["exponent"] or match["power"] or 0)
        digits = match["decimal"].replace(",", "").replace(" ", "")
        value = Fraction(digits) * Fraction(10) ** scale
        decimals = len(digits.partition(".")[2]) - scale
    elif int(match["denominator"]) == 0:
        return None
    else:
        value = int(match["whole"] or 0) + Fraction(int(match["numerator"]), int(match["denominator"]))
    signed = -value if match["sign"] == "-" else value
    return Quantity(signed, unit, max(decimals, 0), not match["comma"], may_be_variables(match["unit"], unit))


def same_quantity(found: Quantity, expected: Quantity, *, in_percent: bool = False) -> bool:
    """Whether two numbers are equal, exactly or as a decimal of enough digits rounds the other, in no contrary units.

    A unit may be left out unless it may be variables, but a percent sign is part of the number: 5 % is 0.05 and not 5.
    in_percent: the question asks for percent, so it may be left out as other units.
    """
    if in_percent:
        found, expected = found.without_percent, expected.without_percent
    left_out = not found.unit or not expected.unit
    if found.of_variables or expected.of_variables if left_out else found.unit != expected.unit:
        return False
    return found.number == expected.number or _rounds(found, expected) or _rounds(expected, found)


def _rounds(decimal: Quantity, exact: Quantity) -> bool:
    """Whether a decimal of at least MIN_ROUNDED_DIGITS is what an endless one rounds to: 0.333333 is 1/3."""
    if decimal.num_decimals < MIN_ROUNDED_DIGITS or exact.num_decimals or decimal.unit != exact.unit:
        return False
    endless = exact.value.denominator
    for factor in (2, 5):
        while endless % factor == 0:
            endless //= factor
    return endless > 1 and round(exact.value, decimal.num_decimals) == decimal.value


def unit_name(text: str, apart: bool = True) -> str | None:
    """The unit after a number, one name for all its spellings; None if the text is no unit.

    apart: whether white space precedes it; without it, one letter is a variable, and `nm` and `ms` are two.
    """
    text = text.strip(" .").replace("µ", "μ")  # the sign for micro, and the Greek letter
    power = _POWER.search(text)
    name = (text[: power.start()] if power else text).strip(" .")
    name = re.sub(r"^(?:square|sq|cubic|cu)\b\.?\s*", "", name, flags=re.IGNORECASE)
    exponent = next((p for p in power.groups() if p), "") if power else ""
    if name != text and not exponent:
        exponent = {"sq": "2", "cu": "3"}.get(text[:2].casefold(), "")
    variables = (len(name) == 1 and name.isalpha()) or name in ("nm", "ms")
    known = None if variables and not apart and text.isascii() else _known(name)
    if known is None or (exponent and not known):
        return None
    return known + exponent.translate({0xB2: "2", 0xB3: "3"})


def may_be_variables(written: str, unit: str) -> bool:
    """Whether a unit, as it is written and by name, may be variables: `N`, `kT`, `N/m`; not `Hz` or `newton`."""
    return re.search("[A-ZΩ]", unit) is not None and not _NO_VARIABLES.search(written.replace(r"\cdot", ""))


def is_upright(latex: str) -> bool:
    r"""Whether a LaTeX answer has letters that are no variables, as in `\text{ N}`."""
    return _UPRIGHT.search(latex) is not None


def _known(name: str) -> str | None:
    symbols = re.sub(r"\s*(?:\\cdot|[·⋅*])\s*", "·", re.sub(r"\s*/\s*", "/", name))
    if name in _UNIT or _SYMBOLS.fullmatch(symbols):
        return _UNIT.get(name, symbols.replace("L", "l"))
    if degrees := _CELSIUS.fullmatch(name):
        return f"°{degrees[1].upper()}"
    if len(name) == 1 and name.isupper():
        return None  # `5 M` are not metres
    name = name.casefold()
    if listed := listed_unit(name):
        return listed
    words = name.split()
    if not words or (len(words) <= 3 and all(_WORD.fullmatch(w) and not _NOT_UNITS.fullmatch(w) for w in words)):
        return name.removesuffix("s")  # "12 apples"
    return None


def listed_unit(name: str) -> str | None:
    """The unit of this name, singular or plural; None of what is only a noun."""
    name = name.casefold()
    return next((_UNIT[n] for n in (name, name.removesuffix("s"), name.removesuffix("es")) if n in _UNIT), None)
