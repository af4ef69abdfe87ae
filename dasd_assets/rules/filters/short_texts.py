"""Many short texts at once: which of them `repetition` need not look at, as nothing in them is said again.

Of a hundred characters it takes 0.5 ms, nearly all of it calls of NumPy; here they are shared, and take 0.01 ms a text.
"""

from collections.abc import Sequence

import numpy as np

from dasd_assets.rules.filters.loops import (
    LINE_TIMES,
    MIN_MASKED_CHARS,
    NEAR,
    PATTERN,
    PHRASE,
    PHRASE_TIMES_ALONE,
)
from dasd_assets.rules.filters.ngrams import NGrams
from dasd_assets.rules.filters.units import BASE, Flags, units

TEXTS_AT_ONCE = 256  # at most 200,000 characters


def may_repeat(texts: Sequence[str]) -> list[bool]:
    """Whether `repetition` can find anything in each text; where it cannot, its value is 0."""
    found = [len(text) >= MIN_MASKED_CHARS for text in texts]
    short = [index for index, is_long in enumerate(found) if not is_long]
    for first in range(0, len(short), TEXTS_AT_ONCE):
        part = short[first : first + TEXTS_AT_ONCE]
        for index, may in zip(part, _short_may_repeat([texts[index] for index in part]).tolist(), strict=True):
            found[index] = may
    return found


def _short_may_repeat(texts: Sequence[str]) -> Flags:
    """(N,) the same of texts that are too short for a loop in which numbers change.

    All else that is measured takes PATTERN units that are said again, a phrase said PHRASE_TIMES_ALONE times, or
    LINE_TIMES lines.
    """
    every = units("".join(f"{text}\n" for text in texts))
    of_text = np.searchsorted(np.cumsum([len(text) + 1 for text in texts]), every.bounds[:-1], side="right")
    own = of_text.astype(np.uint64) * BASE  # added to the hashes: what another text says is not said again
    again = NGrams(every.exact + own, PATTERN).distances > 0
    phrases = NGrams(every.masked + own, PHRASE).often(PHRASE_TIMES_ALONE, NEAR)
    found: Flags = np.bincount(of_text[every.is_line_end], minlength=len(texts)) >= LINE_TIMES
    for flags in (again, phrases):
        found[of_text[np.flatnonzero(flags)]] = True
    return found
