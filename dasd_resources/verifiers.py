"""Verifiers: whether a final answer is correct, recorded for every response (report §4 compares right with wrong).

An answer is model output: it is compared, never executed, and no input makes a verifier raise. Left out: verifiers that
run code (TACO, APPS, …); they need a sandbox, so code questions land without a verifier. To add a verifier, add its
comparison to `COMPARISONS` (docs/extending.md).
"""

import json
import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

VERIFIER_VERSION = "1"  # raise it when a verdict can change; not for a verifier that is added

# Several reasoning-gym scorers eval() or sympy-parse (which evals) the answer: string_insertion, spiral_matrix,
# binary_matrix, n_queens, puzzle24, countdown, polynomial_multiplication, the integrations. Those below were read
# (0.1.25) and only compare: most with ==, three as Decimals, spell_backward by letter. A test holds them to it.
REASONING_GYM_DATASETS = frozenset(
    {
        "base_conversion",
        "basic_arithmetic",
        "chain_sum",
        "count_bits",
        "count_primes",
        "decimal_chain_sum",
        "gcd",
        "lcm",
        "leg_counting",
        "letter_counting",
        "number_sequence",
        "products",
        "simple_equations",
        "simple_geometry",
        "spell_backward",
        "syllogism",
    }
)
MAX_ANSWER_CHARS = 10_000  # longer answers are wrong unread, which bounds the work an answer can cause
MAX_NUMBER_CHARS = 200

_MARKER = re.compile(r"\banswers?[*_`]*\s*(?:is\b|:)[\s:*_`]*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\.(?=\s|$)|\n")
_BRACE = re.compile(r"(?P<boxed>\\boxed\s*\{)|\\.|(?P<brace>[{}])", re.DOTALL)
_MARKUP = " \t\r\n*_`$"
_CHOICE = re.compile(r"(?i:option|choice)\s+\(?([A-Za-z])\b|\(([A-Za-z])\)|([A-Za-z])(?=$|[.):,])")
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


@dataclass(frozen=True)
class Asked:
    """What an answer is compared with: its question, the reference answer, and its metadata (JSON)."""

    question: str
    reference_answer: str
    metadata: str


def known_verifier(name: str) -> bool:
    """Whether `verify` takes this name: exact, math, multiple_choice or reasoning_gym:<an allowed dataset>."""
    kind, _, dataset = name.partition(":")
    return name in COMPARISONS or (kind == "reasoning_gym" and dataset in REASONING_GYM_DATASETS)


def verifier_names() -> list[str]:
    """Every accepted name, for error messages."""
    return sorted([*COMPARISONS, *(f"reasoning_gym:{dataset}" for dataset in REASONING_GYM_DATASETS)])


def verify(
    verifier: str, answer_text: str, question: str, reference_answer: str, metadata: str
) -> tuple[bool, str | None]:
    """Whether the answer part of a response is correct, and if not, why.

    metadata: the prompt's JSON object. Raises ValueError for an unknown verifier, never for an answer.
    """
    answer = extract_answer(answer_text)
    if not answer:
        return False, f"{verifier}: the answer is empty"
    if len(answer) > MAX_ANSWER_CHARS:
        return False, f"{verifier}: the answer has {len(answer)} characters, at most {MAX_ANSWER_CHARS} are compared"
    if _matches(verifier, answer, question, reference_answer, metadata):
        return True, None
    return False, f"{verifier}: answer {excerpt(answer)}, expected {excerpt(reference_answer)}"


def reference_fault(verifier: str, question: str, reference_answer: str, metadata: str) -> str | None:
    """Why no answer could be correct, because the reference answer fails its own verifier; None if it passes."""
    if len(reference_answer) > MAX_ANSWER_CHARS:
        return f"reference_answer has {len(reference_answer)} characters, at most {MAX_ANSWER_CHARS} are compared"
    if _matches(verifier, reference_answer, question, reference_answer, metadata):
        return None
    return f"reference_answer {excerpt(reference_answer)} fails its own verifier {verifier}"


def extract_answer(answer: str) -> str:
    r"""The last \boxed{…}, else what follows the last "answer is" or "answer:" in its sentence, else everything."""
    boxed = _last_boxed(answer)
    if boxed is not None:
        return boxed.strip()
    markers = list(_MARKER.finditer(answer))
    rest = answer[markers[-1].end() :] if markers else ""
    end = _SENTENCE_END.search(rest)
    return _tidy(rest[: end.start()] if end else rest) or _tidy(answer) or answer.strip()


def excerpt(value: object, num_chars: int = 80) -> str:
    """A value for a message: quoted, unprintable characters escaped, shortened."""
    shown = repr(value[: num_chars + 1] if isinstance(value, str) else value)
    return shown if len(shown) <= num_chars else f"{shown[:num_chars]}…"


def _last_boxed(text: str) -> str | None:
    """Content of the balanced box that opens last; one pass, so unbalanced braces cost nothing extra."""
    opened: list[tuple[int, bool]] = []
    last: tuple[int, int] | None = None
    for match in _BRACE.finditer(text):
        if match["boxed"] or match["brace"] == "{":
            opened.append((match.end(), match["boxed"] is not None))
        elif match["brace"] == "}" and opened:
            start, boxed = opened.pop()
            if boxed and (last is None or start > last[0]):
                last = start, match.start()
    return text[last[0] : last[1]] if last else None


def _tidy(text: str) -> str:
    """Without surrounding Markdown, inline-maths delimiters and the final full stop."""
    text = text.lstrip(_MARKUP).rstrip(_MARKUP + ".")
    for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]")):
        if text.startswith(opening):
            text = text.removeprefix(opening).removesuffix(closing)
    return text.strip(_MARKUP)


def _matches(verifier: str, answer: str, question: str, reference_answer: str, metadata: str) -> bool:
    if verifier in COMPARISONS:
        return COMPARISONS[verifier](answer, Asked(question, reference_answer, metadata))
    if not known_verifier(verifier):
        raise ValueError(f"unknown verifier {excerpt(verifier)}; known are {', '.join(verifier_names())}")
    entry = {"question": question, "answer": reference_answer, "metadata": json.loads(metadata)}
    return _scorer(verifier.removeprefix("reasoning_gym:"))(answer, entry) == 1.0


@cache
def _scorer(dataset: str) -> Callable[[str, dict[str, object]], float]:
    from reasoning_gym import get_score_answer_fn  # loads sympy: 0.8 s, which only judging should pay

    scorer: Callable[[str, dict[str, object]], float] = get_score_answer_fn(dataset)
    return scorer


def _same_text(answer: str, reference: str) -> bool:
    """Equal but for case, runs of whitespace, markup and Unicode composition."""

    def normal(text: str) -> str:
        return " ".join(unicodedata.normalize("NFC", _tidy(text) or text).casefold().split())

    return normal(answer) == normal(reference)


def _same_maths(answer: str, reference: str) -> bool:
    """Equal numbers (exactly, as fractions) with no contrary units; where the reference is no number, equal LaTeX."""
    expected, found = _number(_plain(reference)), _number(_plain(answer))
    if expected is None:
        return "".join(_plain(answer).split()) == "".join(_plain(reference).split())
    if found is None:
        return False
    units = {unit for _, unit in (expected, found) if unit}
    return found[0] == expected[0] and len(units) <= 1


def _same_choice(answer: str, reference: str) -> bool:
    expected = _choice(reference)
    return expected is not None and _choice(answer) == expected


def _choice(text: str) -> str | None:
    """The option letter a text starts with: `B`, `(b)`, `B. because`, `Option B`."""
    match = _CHOICE.match(_tidy(_plain(text)))
    return match[match.lastindex].upper() if match and match.lastindex else None


def _plain(text: str) -> str:
    """A LaTeX answer with its typography removed and simple fractions as a/b; a leading `x =` is dropped."""
    text = _tidy(unicodedata.normalize("NFC", text))
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


COMPARISONS: dict[str, Callable[[str, Asked], bool]] = {
    "exact": lambda answer, asked: _same_text(answer, asked.reference_answer),
    "math": lambda answer, asked: _same_maths(answer, asked.reference_answer),
    "multiple_choice": lambda answer, asked: _same_choice(answer, asked.reference_answer),
}
