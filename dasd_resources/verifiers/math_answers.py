"""`math`: the same number or expression. Numbers and words are compared here, all else in a child by math-verify.

Reference and answer are read alike (`math_text`). math-verify parses LaTeX into sympy, which takes milliseconds where
all goes well, and for ever or any amount of memory where it does not, so it runs in `math_worker`.
"""

import re
from dataclasses import replace
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Literal

from dasd_resources.verifiers.final_answer import TEXT_COMMAND, size_fault, wrong
from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement
from dasd_resources.verifiers.math_text import stated_answer, words
from dasd_resources.verifiers.verdict_cache import VERDICTS
from dasd_resources.verifiers.worker_pool import Died, TimedOut, WorkerPool
from dasd_resources.verifiers.written_numbers import (
    Quantity,
    asks_percent,
    is_upright,
    listed_unit,
    may_be_variables,
    plain,
    quantity,
    same_quantity,
    unit_name,
)

COMPARISON = (
    f"math-verify {version('math-verify')}, worker 2"  # raise the number when `math_worker` can reply otherwise
)
CPU_SECONDS = 5  # of one comparison; of 269 pairs of math-verify's own tests the slowest takes 0.4 s
SECONDS = 90.0  # the same on the clock, for a machine on which much else runs
MEMORY_BYTES = 2**30  # of address space; an idle worker has 0.3 GB of it
_POOL = WorkerPool(Path(__file__).with_name("math_worker.py"), (str(CPU_SECONDS), str(MEMORY_BYTES)), SECONDS)
MIN_PROSE_WORDS = 4  # of a reference that is a sentence, which another sentence may well agree with

Sameness = Literal["same", "different", "unreadable_reference", "unreadable_answer", "timed_out", "out_of_memory"]

_NAME = (
    r"(?:[A-Za-z](?:_(?:\w|\{\w+\}))?'?|\\[a-z]+|[A-Za-z]\([\w, ]{1,20}\)|\|?[A-Z]{2,3}\|?"
    r"|(?:\\angle|\\triangle)?\s*[A-Z]{1,3}|[A-Za-z][A-Za-z ]{2,40})"
)
_NAMED = re.compile(rf"\s*(?P<name>{_NAME})\s*(?::?=)\s*(?P<value>[^=<>]+)")
_APPROXIMATELY = re.compile(r"\\approx(?![a-z])|\\simeq(?![a-z])|\\doteq|\u2248")
_IN_BASE = re.compile(r"(?P<digits>[0-9A-Za-z]+)_(?:(?P<base>\d)|\{(?P<long>\d+)\})")
_LETTER = re.compile(r"\(?([A-Za-z])\)?")
_UNIT_TAIL = re.compile(
    rf"^(?P<value>.*\S)\s*(?:{TEXT_COMMAND}|\s(?P<word>[A-Za-z]{{3,}}))(?P<power>\s*\^\s*\{{?[23]\}}?)?$"
)
_LOOSE_DIGITS = re.compile(r"\d\s+\d(?![\d\s]*/)|\d\.\d+\.\d")
# Maths without LaTeX, as it stands in plain text, and a command that math-verify does not know.
_TYPED = (
    (re.compile(r"(?:\u221a|(?<![\\A-Za-z])sqrt)\s*(?:\(([^()]*)\)|(\d+|[A-Za-z]))"), r"\\sqrt{\1\2}"),
    (re.compile(r"(?<![\\A-Za-z])(pi|sin|cos|tan|cot|sec|csc|log|ln|exp)(?![A-Za-z])"), r"\\\1 "),
    (re.compile(r"\*\*"), "^"),
    (re.compile(r"\\varnothing(?![A-Za-z])"), r"\\emptyset "),
)
_UNICODE = str.maketrans(
    {
        "\u03c0": r"\pi ",
        "\u221e": r"\infty ",
        "\u2264": r"\le ",
        "\u2265": r"\ge ",
        "\u2260": r"\ne ",
        "\xd7": r"\times ",
        "\xb7": r"\cdot ",
        "\u222a": r"\cup ",
        "\u2229": r"\cap ",
        "\u2208": r"\in ",
        "\xb1": r"\pm ",
        "\u2212": "-",
        "\xb2": "^2",
        "\xb3": "^3",
    }
)


def judge_math(answer: str, asked: Asked) -> Judgement:
    """Whether the final answer is the reference answer's number or expression."""
    found, expected = stated_answer(answer), stated_answer(asked.reference_answer)
    if fault := size_fault(found):
        return fault
    compared = _compared(found, expected, in_percent=asks_percent(asked.question))
    match compared:
        case "same":
            return CORRECT
        case "different" | "unreadable_answer":
            return wrong(found, asked)
        case "unreadable_reference":
            why = f"{wrong(found, asked).reason}: these are not comparable"
            return Judgement("unverifiable", "not_comparable", why)
        case "timed_out":
            why = f"comparing took more than {CPU_SECONDS} s: {wrong(found, asked).reason}"
            return Judgement("unverifiable", "verifier_timed_out", why)
        case "out_of_memory":
            why = f"comparing took more than {MEMORY_BYTES / 2**30:g} GiB: {wrong(found, asked).reason}"
            return Judgement("unverifiable", "verifier_out_of_memory", why)
    return Judgement("error", "verifier_failed", f"{compared}: {wrong(found, asked).reason}")


def _compared(found: str, expected: str, in_percent: bool) -> str:
    """How the answer compares with the reference: a `Sameness`, or how the comparison failed."""
    pairs = list(product(_approximations(found), _approximations(expected)))
    quick = [_quickly(answer, reference, in_percent) for answer, reference in pairs]
    if "same" in quick:
        return "same"
    reply = "different"
    for (answer, reference), known in zip(pairs, quick, strict=True):
        reply = known or _by_math_verify(_bare(answer, in_percent), _bare(reference, in_percent))
        if reply == "same":
            return reply
    return reply


def _approximations(text: str) -> list[str]:
    r"""The text, or what stands on either side of \approx."""
    return [part for part in _APPROXIMATELY.split(text) if part.strip()][:3] or [text]


def _quickly(found: str, expected: str, in_percent: bool) -> Sameness | None:
    """What can be said without parsing: of the same text, numbers, words, letters; None if that is nothing."""
    one, other = plain(found), plain(expected)
    if squeezed(one) == squeezed(other) or one.casefold() == other.casefold() == "no":  # too short for a word
        return "same"
    (name, one), (other_name, other) = _named(one), _named(other)
    numbers = _number(one, found), _number(other, expected)
    if numbers[0] and numbers[1] and (not name or not other_name or name == other_name):
        if same_quantity(numbers[0], numbers[1], in_percent=in_percent):
            return "same"
        return "different" if numbers[0].sure and numbers[1].sure else None
    if (letters := [_LETTER.fullmatch(text) for text in (one, other)]) and letters[0] and letters[1]:
        return "same" if letters[0][1] == letters[1][1] else "different"
    return _in_base(one, other) or _by_words(found, expected) or ("different" if _LOOSE_DIGITS.search(one) else None)


def _number(text: str, latex: str) -> Quantity | None:
    """The number that a plain text is; in upright letters, its unit is no variables."""
    number = quantity(text)
    return replace(number, of_variables=False) if number and is_upright(latex) else number


def _in_base(found: str, expected: str) -> Sameness | None:
    """Of a reference in another base than ten: the same digits, whose base the answer may leave out."""
    one, other = _IN_BASE.fullmatch(found), _IN_BASE.fullmatch(expected)
    if other is None or not other["digits"][0].isdigit():
        return "different" if one and one["digits"].isdigit() and quantity(expected) else None
    digits, base = (one["digits"], one["base"] or one["long"]) if one else (found, None)
    return "same" if digits == other["digits"] and base in (None, other["base"] or other["long"]) else "different"


def _by_words(found: str, expected: str) -> Sameness | None:
    """Of a text with words, in which letters are no variables: the same words, in any case."""
    one, other = (_split_unit(text)[0] for text in (found, expected))
    if not words(one) and not words(other) and not (_is_name(one) and _is_name(other)):
        return None
    if squeezed(plain(found)).casefold() == squeezed(plain(expected)).casefold():
        return "same"
    return "unreadable_reference" if len(words(other)) >= MIN_PROSE_WORDS and words(one) else "different"


def _is_name(text: str) -> bool:
    """Whether a text is capital letters, such as a segment's: their order counts."""
    return re.fullmatch(r"[A-Z]{2,}", plain(text)) is not None


def _named(text: str) -> tuple[str, str]:
    """The name and the value of `x = 5`, `f(2) = 5`, `Area = 5`; no name and the text of anything else."""
    match = _NAMED.fullmatch(text)
    return (match["name"].strip(), match["value"].strip()) if match else ("", text)


def squeezed(text: str) -> str:
    """Without white space, except between two letters or digits."""
    return re.sub(r"(?<!\w)\s+|\s+(?!\w)", "", " ".join(text.split()))


def _split_unit(text: str) -> tuple[str, str]:
    r"""What stands before a unit, and the unit: of `\sqrt{2} \text{ cm}`."""
    match = _UNIT_TAIL.fullmatch(text.strip().rstrip("."))
    if not match or (match["word"] and not listed_unit(match["word"])):
        return text, ""
    written = (match[2] or match["word"] or "") + (match["power"] or "")
    unit = unit_name(written)
    return (match["value"], unit) if unit and not may_be_variables(written, unit) else (text, "")


def _bare(text: str, in_percent: bool) -> tuple[str, str]:
    """LaTeX for math-verify, and the unit, which it would drop."""
    value, unit = _split_unit(text)
    value = re.sub(r"\\\$|[$€£¥₹]", "", value).strip().translate(_UNICODE)
    for pattern, latex in _TYPED:
        value = pattern.sub(latex, value)
    _, named = _named(plain(value))
    if words(value) and not words(named):
        value = named
    return (re.sub(r"\\?%", "", value) if in_percent else value), unit


def _by_math_verify(found: tuple[str, str], expected: tuple[str, str]) -> str:
    if found[1] and expected[1] and found[1] != expected[1]:
        return "different"
    request = {"reference": expected[0], "answer": found[0]}
    try:
        return VERDICTS.found([COMPARISON, expected[0], found[0]], lambda: _asked(request))
    except Died as error:
        return f"math-verify ended twice without a reply ({error})"


def _asked(request: dict[str, str]) -> str:
    """What a worker says; that there was not enough time or memory is kept, too, as trying again costs the most."""
    try:
        reply = _POOL.ask(request)
        return str(_POOL.retire(request) if reply == "out_of_memory" else reply)
    except TimedOut:
        return "timed_out"
