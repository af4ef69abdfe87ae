"""Language drift: thinking that turns into another language, as far as its script shows.

Scripts, not a model of languages: what teachers drift into is Chinese or Russian, and a classifier takes formulas and
code for anything. Left out: drift from one language to another of the same script, such as from English to Spanish.
"""

import re
from collections import Counter
from functools import cache

import numpy as np
import numpy.typing as npt

from dasd_assets.rules.verdict import Verdict
from dasd_resources.chat import split_thinking
from dasd_resources.visible_text import excerpt

# Ranges of letters, how much one weighs in Latin letters, and the names by which a question asks for the language.
SCRIPTS: dict[str, tuple[int, tuple[tuple[int, int], ...], str]] = {
    "Latin": (1, ((0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x24F), (0x1E00, 0x1EFF)), ""),
    "Chinese or Japanese": (
        3,
        ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF)),
        "chinese|mandarin|cantonese|japan|kanji|kana|hanzi|pinyin",
    ),
    "Korean": (2, ((0x1100, 0x11FF), (0xAC00, 0xD7AF)), "korea|hangul"),
    "Cyrillic": (1, ((0x400, 0x52F),), "russia|ukrain|bulgar|serb|belarus|macedon|kazakh|mongol|cyrillic"),
    "Arabic": (1, ((0x600, 0x6FF), (0x750, 0x77F)), "arab|persia|farsi|urdu|quran"),
    "Hebrew": (1, ((0x590, 0x5FF),), "hebrew|yiddish|torah"),
    "Indic": (1, ((0x900, 0xDFF),), "hindi|sanskrit|bengali|tamil|telugu|marathi|nepali|devanagari|punjabi|gujarati"),
    "Thai": (1, ((0xE00, 0xE7F),), "thai"),
    "Greek": (1, ((0x370, 0x3FF), (0x1F00, 0x1FFF)), "greek"),
}
NAMES = list(SCRIPTS)
LATIN = 1 + NAMES.index("Latin")
WEIGHTS = np.array([0, *(weight for weight, _, _ in SCRIPTS.values())])
MIN_WEIGHT = 20  # of a stretch that can be of another language: a name or a term is less
OPENING_CHARS = 400  # of the thinking; English thinking about a question in another language is no drift
MIN_ASKED = 4  # letters of a script in the question that make it a matter of the question
LAST = ""  # the piece after the last, in no script
_PIECE = re.compile(r"[^\n.!?;。！？；]+")


def language_drift(text: str, question: str, max_share: float) -> Verdict:
    """At most this share of the thinking in pieces of another script than the question's; value: the share.

    English is no drift where the thinking begins in it.
    """
    body, _ = split_thinking(text)
    expected = _expected(question, body or "")
    if not body or _other(weights(body), expected) < MIN_WEIGHT:  # nearly all, and cutting them up takes long
        return Verdict(True, value=0.0)
    foreign, total, first = _foreign(body, expected)
    share = round(foreign / max(total, 1), 4)
    if share <= max_share:
        return Verdict(True, value=share)
    reason = f"{share:.2f} of the thinking is in another language, at most {max_share:g}: {excerpt(first, 60)}"
    return Verdict(False, "language_drift", reason, share)


def _expected(question: str, body: str) -> set[int]:
    """Scripts, by their number from 1, that the question is in, has a few letters of, or names."""
    asked = weights(question)
    found = {script for script, count in asked.items() if count >= MIN_ASKED}
    lowered = question.lower()
    found |= {NAMES.index(name) + 1 for name, (_, _, names) in SCRIPTS.items() if names and re.search(names, lowered)}
    if not found or main_script(body[:OPENING_CHARS]) == LATIN:
        found.add(LATIN)
    return found


def _foreign(body: str, expected: set[int]) -> tuple[int, int, str]:
    """Weight of the stretches in other scripts, weight of all, and how the first such stretch begins."""
    foreign = total = stretch = 0
    first = beginning = ""
    for piece in [*_PIECE.findall(body), LAST]:
        found = weights(piece)
        weight = sum(found.values())
        total += weight
        if _other(found, expected) > weight / 2:
            stretch, beginning = stretch + weight, beginning or piece.strip()
        elif weight or piece is LAST:  # a formula ends no stretch
            if stretch >= MIN_WEIGHT:
                foreign, first = foreign + stretch, first or beginning
            stretch, beginning = 0, ""
    return foreign, total, first


def _other(found: Counter[int], expected: set[int]) -> int:
    return sum(count for script, count in found.items() if script not in expected)


def weights(text: str) -> Counter[int]:
    """Script, by its number from 1 -> weight of its letters in the text."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    counts = np.bincount(_scripts().take(points, mode="clip"), minlength=len(WEIGHTS)) * WEIGHTS
    return Counter({int(script): int(counts[script]) for script in np.flatnonzero(counts)})


def main_script(text: str) -> int:
    """The script of most of the letters, by its number from 1; 0 without letters."""
    found = weights(text)
    return max(found, key=lambda script: found[script], default=0)


@cache
def _scripts() -> npt.NDArray[np.uint8]:
    """Script of each code point up to U+FFFF, from 1; 0 for what is no letter of these."""
    table = np.zeros(0x10000, np.uint8)
    for number, (_, ranges, _) in enumerate(SCRIPTS.values(), 1):
        for first, last in ranges:
            table[first : last + 1] = number
    return table
