"""Repetition (report §6.2): loops anywhere in a response, at its end, and n-grams said again and again.

Sought in the text, not in the tokens: a counter has other tokens each time. The number of tokens only says how long the
recipe's windows are. Left out: repeats that are far apart, such as a result that is stated in every section.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dasd_assets.rules.filters.loops import PATTERN, PHRASE, PROSE, find_loops
from dasd_assets.rules.filters.ngrams import NGrams, covered, running, stretches, within
from dasd_assets.rules.filters.units import Flags, Ints, Units, units
from dasd_assets.rules.verdict import Verdict, VerdictKind
from dasd_resources.recipe import Repetition
from dasd_resources.visible_text import excerpt

EVIDENCE = 300  # units that one n-gram must make up by being said again: 20 units 15 times, 50 units 6 times
NEAR = 4096  # units within which it is
FEW, MANY = 6, 1000  # of n-grams said only so often, so many units nearby are as much: a rhyme of 12 verses has 600
_PARAGRAPH_END = re.compile(r"\n[^\S\n]*\n")
_SENTENCE_END = re.compile(r"[.!?]\s|[\u3002\uff01\uff1f\n]")


@dataclass(frozen=True)
class Share:
    """A share of a text that is repetition, its limit, and where it is found: units `start` to `stop`.

    kind: None for a loop that is named for what it says over and over.
    """

    kind: VerdictKind | None
    name: str
    value: float
    limit: float
    start: int
    stop: int

    @property
    def of_limit(self) -> float:
        """The share as a multiple of its limit."""
        return round(self.value / self.limit, 4)


def repetition(text: str, token_ids: Sequence[int], limits: Repetition) -> Verdict:
    """No measure of repetition above the recipe's share; value: the greatest, as a multiple of its limit."""
    found = units(text)
    shares = repeated_shares(text, found, max(len(token_ids), 1), limits) if len(found) else []
    value = max((share.of_limit for share in shares), default=0.0)
    return Verdict.of_faults([_fault(text, found, share) for share in shares if share.of_limit > 1], value)


def repeated_shares(text: str, found: Units, num_tokens: int, limits: Repetition) -> list[Share]:
    """All that is measured of a text, in the order of its kinds. found: its units, one at least."""
    exact = NGrams(found.exact, PATTERN)
    loops = find_loops(text, found, exact)
    again = said_again(found, exact, limits.ngram_sizes)
    densest_share, start, stop = densest(loops.any | again, found, limits.window_tokens / num_tokens)
    last = _last(found, limits.tail_tokens / num_tokens)
    return [
        Share(
            "repeated_ngrams",
            "of the response is n-grams said again and again",
            _share(again, found, 0),
            limits.max_duplicate_share,
            int(np.argmax(again)),
            len(found),
        ),
        Share(None, f"of {limits.window_tokens} tokens are a loop", densest_share, limits.max_loop_share, start, stop),
        # At the end, only what goes on to the letter or only counts: phrases may well recur in a list that ends a text.
        Share(
            "looping_tail",
            f"of the last {limits.tail_tokens} tokens are a loop",
            _share(loops.exact | loops.masked, found, last),
            limits.max_tail_share,
            last,
            len(found),
        ),
    ]


def said_again(found: Units, seeds: NGrams, sizes: Sequence[int]) -> Flags:
    """(U,) units in an n-gram of prose that makes up EVIDENCE units nearby.

    seeds: shorter n-grams; a longer one is sought only where these recur, which in sound text is nowhere.
    """
    again, few = np.zeros(len(found), np.bool_), np.zeros(len(found), np.bool_)
    for size in sizes:
        times = max(-(-EVIDENCE // size), 2)
        places = _places(seeds.often(min(times, FEW), NEAR), size - seeds.size + 1)
        places = places[places <= len(found) - size]
        if not len(places):
            continue
        ngrams = NGrams(found.exact, size, places)
        again |= _of_prose(found, ngrams.often(times, NEAR), size)
        few |= _of_prose(found, ngrams.often(min(times, FEW), NEAR), size)
    sums = running(few)
    return again | few if (sums[NEAR:] - sums[:-NEAR] if len(sums) > NEAR else sums[-1:]).max() >= MANY else again


def _of_prose(found: Units, often: Flags, size: int) -> Flags:
    """(U,) units of those n-grams that are mostly words."""
    at = np.flatnonzero(often)
    num_words, num_visible = (within(flags, at, at + size) for flags in (found.is_word, ~found.is_space))
    return covered(at[num_words >= PROSE * np.maximum(num_visible, 1)], size, len(found))


def densest(flags: Flags, found: Units, size: float) -> tuple[float, int, int]:
    """The window in which most is flagged: that share, its first unit, and the unit after its last.

    size: of the window, as a share of the text; the whole text from 1 on.
    """
    ranges, ends = stretches(flags), running(found.weights)
    if not len(ranges):
        return 0.0, 0, 0
    # It begins where a flagged stretch does, or ends where one does.
    length, last = min(size, 1) * ends[-1], _last(found, size)
    begins = np.concatenate((ranges[:, 0], np.searchsorted(ends, ends[ranges[:, 1]] - length)))
    starts = np.minimum(begins, last)
    stops = np.minimum(np.searchsorted(ends, ends[starts] + length), len(flags))
    flagged = running(found.weights * flags)
    shares = (flagged[stops] - flagged[starts]) / np.maximum(ends[stops] - ends[starts], 1)
    best = int(np.argmax(shares))
    return float(shares[best]), int(starts[best]), int(stops[best])


def _last(found: Units, size: float) -> int:
    """First unit of the last window of this size."""
    ends = running(found.weights)
    return min(int(np.searchsorted(ends, (1 - min(size, 1)) * ends[-1])), len(found) - 1)


def _share(flags: Flags, found: Units, start: int) -> float:
    """Share of the text from a unit on that is flagged."""
    weights = found.weights[start:]
    return float(weights[flags[start:]].sum() / weights.sum())


def _places(flags: Flags, length: int) -> Ints:
    """Where so many true values in a row begin."""
    if not flags.any():
        return np.zeros(0, np.int64)
    length = max(length, 1)
    starts = np.arange(len(flags) - length + 1)
    places: Ints = starts[within(flags, starts, starts + length) == length]
    return places


def _piece(text: str, found: Units, start: int, stop: int) -> str:
    """What is said over and over between two units: from one time to the next, numbers and single letters masked."""
    distances = NGrams(found.masked, PHRASE).distances[start:stop]
    if not distances.any():
        return text[found.bounds[start] : found.bounds[stop]].strip()
    period = int(np.argmax(np.bincount(distances[distances > 0])))
    at = start + int(np.flatnonzero(distances == period)[0])
    return text[found.bounds[at - period] : found.bounds[at]].strip()


def _fault(text: str, found: Units, share: Share) -> tuple[VerdictKind, str]:
    piece = _piece(text, found, share.start, share.stop)
    reason = f"{share.value:.2f} {share.name}, at most {share.limit:g}: {excerpt(piece, 60)}"
    return share.kind or _kind(piece), reason


def _kind(piece: str) -> VerdictKind:
    if _PARAGRAPH_END.search(piece):
        return "repeated_paragraphs"
    return "repeated_sentences" if _SENTENCE_END.search(piece + " ") else "repeated_phrases"
