"""A text as the units in which repetition is sought: words, numbers, signs and line ends, as arrays.

Made for texts of any script and any length in a few array operations: a loop in Python over 64K tokens would take
longer than all that follows. Two views: the units as they are, and with every number and single letter masked, in which
"Wait, maybe it is 301. Wait, maybe it is 302." is one sentence said twice.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

BLANK, LINE_END, LETTER, DIGIT, SYLLABLE, SIGN = range(6)
MAX_RUN = 16  # characters of one unit, a power of 2: a run of one letter or digit is many units, as its tokens are
LETTERS_OF_TOKEN = 6
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))
NUMBER, SINGLE_LETTER = np.uint64(0x8E2F1A6C3B5D7091), np.uint64(0xD1B54A32D192ED03)  # what masks them
# Scripts without spaces between words: kana, Han, and those of Thailand, Laos, Myanmar and Cambodia.
UNSPACED = ((0x3040, 0x30FF), (0x3400, 0x9FFF), (0xF900, 0xFAFF), (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF))
HAN_NUMERALS = "〇零一二三四五六七八九十百千万两"


@dataclass(frozen=True)
class Units:
    """The units of a text, in order; what they leave out are single blanks between words.

    bounds: (U + 1,) code points at which they begin; the last is the end of the text. exact, masked: (U,) hashes.
    is_word, is_number, is_space, is_line_end: (U,). weights: (U,) about how many tokens each is, by which shares are
    measured: one for every six letters, one for a digit, a sign or a syllable.
    """

    bounds: Ints
    weights: Ints
    exact: Hashes
    masked: Hashes
    is_word: Flags
    is_number: Flags
    is_space: Flags
    is_line_end: Flags

    def __len__(self) -> int:
        return len(self.exact)


def units(text: str) -> Units:
    """All units of a text."""
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    classes = _classes().take(points, mode="clip")
    starts, ends = _cut(classes)
    kinds, lengths = classes[starts], ends - starts
    exact = _mixed(span_hashes(points.astype(np.uint64) + np.uint64(1), starts, ends))
    is_letter = kinds == LETTER
    masked = np.where(kinds == DIGIT, NUMBER, np.where(is_letter & (lengths == 1), SINGLE_LETTER, exact))
    is_command = (starts > 0) & (points[np.maximum(starts - 1, 0)] == ord("\\"))  # \frac is a sign, no word
    is_word = (is_letter & (lengths > 1) & ~is_command) | (kinds == SYLLABLE)
    weights = np.where(is_letter, 1 + (lengths - 1) // LETTERS_OF_TOKEN, np.where(kinds == DIGIT, lengths, 1))
    return Units(
        np.append(starts, len(text)),
        weights,
        exact,
        masked,
        is_word,
        kinds == DIGIT,
        kinds <= LINE_END,
        kinds == LINE_END,
    )


def span_hashes(values: Hashes, starts: Ints, stops: Ints) -> Hashes:
    """Polynomial hash of each span of values, from the differences of one running sum; (N,). The high bits are best."""
    powers, inverses = _powers(1 << len(values).bit_length())
    sums = np.zeros(len(values) + 1, np.uint64)
    np.cumsum(values * powers[: len(values)], out=sums[1:])
    return (sums[stops] - sums[starts]) * inverses[starts]


def _cut(classes: npt.NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """Where units begin and end: a change of class, each sign and syllable, and each MAX_RUN characters of a run."""
    places = np.arange(len(classes), dtype=np.int32)
    begins = np.ones(len(classes), np.bool_)
    begins[1:] = (classes[1:] != classes[:-1]) | (classes[1:] >= SYLLABLE) | (classes[1:] == LINE_END)
    run_start = np.maximum.accumulate(np.where(begins, places, 0))
    starts = np.flatnonzero((places - run_start) & (MAX_RUN - 1) == 0)
    ends = np.append(starts[1:], len(classes))[: len(starts)]
    # A single blank parts two words and is no unit; longer ones indent, or are a run of blanks.
    kept = (classes[starts] != BLANK) | (ends - starts > 1)
    return starts[kept], ends[kept]


def _mixed(values: Hashes) -> Hashes:
    """SplitMix64: each output bit depends on every input bit, so sums of mixed values do not cancel."""
    values = values + BASE
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@cache
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """BASE^i and its inverse modulo 2^64, i < count."""
    base, inverse = (np.full(count, value, np.uint64) for value in (BASE, INVERSE))
    base[0] = inverse[0] = 1
    return np.multiply.accumulate(base), np.multiply.accumulate(inverse)


@cache
def _classes() -> npt.NDArray[np.uint8]:
    """Class of each code point up to U+FFFF, which stands for all beyond it; (65536,)."""
    table = np.full(0x10000, SIGN, np.uint8)
    for point in range(0x10000):
        character = chr(point)
        if character.isalpha():
            table[point] = LETTER
        elif character.isdigit():
            table[point] = DIGIT
        elif character.isspace():
            table[point] = LINE_END if character in "\n\r\v\f\x85\u2028\u2029" else BLANK
    for first, last in UNSPACED:
        table[first : last + 1] = SYLLABLE
    for numeral in HAN_NUMERALS:
        table[ord(numeral)] = DIGIT
    return table
