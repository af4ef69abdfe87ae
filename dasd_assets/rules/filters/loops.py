"""Loops: stretches of a text in which a model says one thing over and over, however long or short that thing is.

What tells a loop from sound text that repeats itself (a grid printed after each step, a matrix in row reduction, eight
cases, a rhyme that grows, unit tests) is how often the same is said, whether it is prose, and whether what changes from
one time to the next can be foretold. Constants are tuned on tests/passages_dev.py; docs/filters.md has the measurement.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dasd_assets.rules.filters.ngrams import NGrams, covered, stretches, within
from dasd_assets.rules.filters.units import Flags, Hashes, Ints, Units, span_hashes

PROSE = 0.6  # least share of words: tables, matrices, code and grids have more signs and numbers than words
MIN_REPEATS = 4  # of a period: twice is how a writer restates a line, three times how one drafts, revises and answers
# Least characters of an exact loop: of prose, of one unit, of anything else (a 12 by 12 matrix of zeros has 430).
MIN_PROSE_CHARS, MIN_UNIT_CHARS, MIN_OTHER_CHARS = 120, 250, 500
NUM_PERIODS = 24  # the most frequent distances that are tried as a period

PHRASE, PHRASE_WORDS = 5, 3
# So often a phrase is said where there are words between, and where there is next to nothing else. A rhyme has 12
# verses, a proof 8 cases, an algorithm's trace 20 steps: 16 for all took a trace for a loop, 24 missed endless lists.
PHRASE_TIMES, PHRASE_TIMES_ALONE = 24, 16
NOTHING_ELSE, NEIGHBOURS = 0.9, 40  # share of phrases among so many units on either side
AROUND, PROSE_AROUND = 10, 0.45  # units on either side of a phrase, and the least share of words among all of them
LINE_WORDS, LINE_TIMES = 2, 16  # least words of a line, and times that it is said
PATTERN, PATTERN_KINDS, PATTERN_TIMES = 8, 5, 32  # a 9 by 9 grid fits 25 times into NEAR units
NEAR = 2048  # units within which a phrase or pattern is said so often

MIN_MASKED, MIN_MASKED_CHARS = 10, 800  # of a loop of prose in which numbers change: a proof has 8 such cases
MIN_COUNTED, MIN_COUNTED_CHARS = 24, 1500  # of numbers that only count: a table has other columns, too
MAX_WORKED = 100  # cases that are tried one by one, each with a result of its own; more than that is a loop again
FORETOLD = 0.8  # least share of a number's values that continue its progression


@dataclass(frozen=True)
class Stretch:
    """Units start to stop, which repeat themselves with a period of so many units."""

    start: int
    stop: int
    period: int

    @property
    def repeats(self) -> float:
        return (self.stop - self.start) / self.period


@dataclass(frozen=True)
class Loops:
    """Which units lie in a loop, by its kind; (U,) each.

    exact: the same to the letter. masked: but for numbers and single letters. phrases: of prose, these masked, said
    again and again in whatever order. patterns: of signs and numbers, likewise. lines: whole ones, but for the number
    that a list puts before each.
    """

    exact: Flags
    masked: Flags
    phrases: Flags
    patterns: Flags
    lines: Flags

    @property
    def any(self) -> Flags:
        return self.exact | self.masked | self.phrases | self.patterns | self.lines


def find_loops(text: str, units: Units, exact: NGrams) -> Loops:
    """All loops of a text. exact: its n-grams of PATTERN units as they are."""
    masked = NGrams(units.masked, PHRASE)
    looping, worked = _masked(text, units, masked)
    return Loops(
        exact=_exact(units, exact),
        masked=looping,
        phrases=_phrases(units, masked) & ~worked,
        patterns=_patterns(units.exact, exact),
        lines=_lines(units),
    )


def periodic(ids: Hashes, distances: Ints, min_repeats: int) -> Iterator[Stretch]:
    """Stretches that repeat themselves so often, of the periods that are most frequent among the distances."""
    counts = np.bincount(distances[distances > 0], minlength=1)
    # Of a loop, most n-grams after the first period were said one period before.
    likely = np.flatnonzero(counts >= np.maximum(np.arange(len(counts)), MIN_REPEATS))
    for period in likely[np.argsort(-counts[likely], kind="stable")][:NUM_PERIODS].tolist():
        same = stretches(ids[period:] == ids[:-period])
        for start, stop in same[same[:, 1] - same[:, 0] >= (min_repeats - 1) * period].tolist():
            yield Stretch(start, stop + period, period)


def share_of_words(units: Units, start: int, stop: int) -> float:
    """Words among the units of a stretch, blanks and line ends apart."""
    num_visible = int(np.count_nonzero(~units.is_space[start:stop]))
    return int(np.count_nonzero(units.is_word[start:stop])) / max(num_visible, 1)


def _exact(units: Units, ngrams: NGrams) -> Flags:
    found, bounds = np.zeros(len(units), np.bool_), units.bounds
    for loop in periodic(units.exact, ngrams.distances, MIN_REPEATS):
        other = MIN_UNIT_CHARS if loop.period == 1 else MIN_OTHER_CHARS
        is_prose = share_of_words(units, loop.start, loop.stop) >= PROSE
        if bounds[loop.stop] - bounds[loop.start] >= (MIN_PROSE_CHARS if is_prose else other):
            found[loop.start : loop.stop] = True
    return found


def _phrases(units: Units, masked: NGrams) -> Flags:
    often, alone = (_of_prose(units, masked.often(times, NEAR)) for times in (PHRASE_TIMES, PHRASE_TIMES_ALONE))
    if not alone.any():
        return often
    places = np.arange(len(units))
    first, last = np.maximum(places - NEIGHBOURS, 0), np.minimum(places + NEIGHBOURS, len(units))
    nothing_else: Flags = within(alone, first, last) >= NOTHING_ELSE * (last - first)
    return often | (alone & nothing_else)


def _of_prose(units: Units, often: Flags) -> Flags:
    """(U,) units of those phrases that are of words, as is what stands around them.

    Of a list of tests, "self.assertEqual(f" is a phrase, but the line is not prose.
    """
    places = np.flatnonzero(often)
    of_phrase = within(units.is_word, places, places + PHRASE)
    first, last = np.maximum(places - AROUND, 0), np.minimum(places + PHRASE + AROUND, len(units))
    around = within(units.is_word, first, last) >= PROSE_AROUND * within(~units.is_space, first, last)
    return covered(places[(of_phrase >= PHRASE_WORDS) & around], PHRASE, len(units))


def _patterns(ids: Hashes, ngrams: NGrams) -> Flags:
    places = np.flatnonzero(ngrams.often(PATTERN_TIMES, NEAR))
    windows = np.sort(ids[places[:, None] + np.arange(PATTERN)], axis=1)
    num_kinds = 1 + np.count_nonzero(windows[:, 1:] != windows[:, :-1], axis=1)
    return covered(places[num_kinds >= PATTERN_KINDS], PATTERN, len(ids))  # not the dots of an empty grid


def _lines(units: Units) -> Flags:
    ends = np.flatnonzero(units.is_line_end)
    if len(ends) + 1 < LINE_TIMES:
        return np.zeros(len(units), np.bool_)
    starts, stops = np.append(0, ends + 1), np.append(ends, len(units))
    # "17. Drink more water." says what "3. Drink more water." does.
    numbered = (stops - starts > 2) & units.is_number[np.minimum(starts, len(units) - 1)]
    hashes = span_hashes(units.exact, starts + 2 * numbered, stops)
    _, line, counts = np.unique(hashes, return_inverse=True, return_counts=True)
    repeated = (counts[line] >= LINE_TIMES) & (within(units.is_word, starts, stops) >= LINE_WORDS)
    found: Flags = np.repeat(repeated, stops - starts + 1)[: len(units)]  # each with its end, which the last one lacks
    return found


def _masked(text: str, units: Units, masked: NGrams) -> tuple[Flags, Flags]:
    """Units in loops in which nothing but numbers and single letters changes, and units in work that looks the same.

    Work is cases tried one by one, each with a result of its own: one number advances, and another does as it must.
    """
    looping, worked, bounds = np.zeros(len(units), np.bool_), np.zeros(len(units), np.bool_), units.bounds
    for loop in periodic(units.masked, masked.distances, MIN_MASKED):
        if (num_chars := bounds[loop.stop] - bounds[loop.start]) < MIN_MASKED_CHARS:
            continue
        advances, varies = _numbers(_values(text, units, loop), loop.period)
        if advances and varies and loop.repeats < MAX_WORKED:
            worked[loop.start : loop.stop] = True
        elif share_of_words(units, loop.start, loop.stop) >= PROSE or (
            advances and not varies and loop.repeats >= MIN_COUNTED and num_chars >= MIN_COUNTED_CHARS
        ):
            looping[loop.start : loop.stop] = True
    return looping, worked


def _values(text: str, units: Units, loop: Stretch) -> "np.ndarray":
    """(stop - start,) the numbers in a stretch, NaN for other units and for numerals that are no decimals."""
    values, bounds = np.full(loop.stop - loop.start, np.nan), units.bounds
    for place in np.flatnonzero(units.is_number[loop.start : loop.stop]).tolist():
        numeral = text[bounds[loop.start + place] : bounds[loop.start + place + 1]].strip()
        values[place] = float(numeral) if numeral.isdecimal() else np.nan
    return values


def _numbers(values: "np.ndarray", period: int) -> tuple[bool, bool]:
    """Whether a number of the period advances by the same each time, and whether one changes in another way.

    values: (T,) of a stretch, NaN for what is no number.
    """
    steps = values[period:] - values[:-period]
    foretold = steps[period:] == steps[:-period]
    places = np.arange(len(values)) % period
    is_number = np.isfinite(steps)
    totals = np.maximum(np.bincount(places[period:][is_number], minlength=period), 1)
    changes = np.bincount(places[period:][is_number & (steps != 0)], minlength=period) / totals > 0.5
    known = np.isfinite(steps[period:])
    continued = np.bincount(places[2 * period :][known & foretold], minlength=period)
    regular = continued >= FORETOLD * np.bincount(places[2 * period :][known], minlength=period)
    return bool((changes & regular).any()), bool((changes & ~regular).any())
