"""n-grams of a sequence of units, and where one is said again: one sort of their hashes answers both questions."""

from functools import cached_property

import numpy as np
import numpy.typing as npt

from dasd_assets.rules.filters.units import Flags, Hashes, Ints, span_hashes


class NGrams:
    """The n-grams of units that begin at `places`, or at all; compared by hash.

    Of (U,) units there are U - size + 1 n-grams, none where that is negative.
    """

    def __init__(self, units: Hashes, size: int, places: Ints | None = None) -> None:
        self.size, self.count = size, max(len(units) - size + 1, 0)
        starts = np.arange(self.count) if places is None else places
        # Hash and place in one number, so that a plain sort does, which is ten times as fast as an indirect one: equal
        # n-grams stand together, in the text's order. Of 64K units, 48 bits are left for the hash.
        bits = np.uint64(max(len(units), 1).bit_length())
        ordered = np.sort(span_hashes(units, starts, starts + size) >> bits << bits | starts.astype(np.uint64))
        self._hashes = ordered >> bits
        self._at = (ordered & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)

    @cached_property
    def distances(self) -> Ints:
        """(count,) units back to where each was said last; 0: never before."""
        found = np.zeros(self.count, np.int64)
        again = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        found[self._at[again + 1]] = self._at[again + 1] - self._at[again]
        return found

    def often(self, times: int, near: int) -> Flags:
        """(count,) whether it is one of so many that are alike and begin within so many units of each other."""
        found, back = np.zeros(self.count, np.bool_), times - 1
        if len(self._at) >= times:
            alike = np.flatnonzero(self._hashes[back:] == self._hashes[:-back])
            alike = alike[self._at[alike + back] - self._at[alike] <= near]
            found[self._at[covered(alike, times, len(self._at))]] = True
        return found


def covered(starts: Ints, size: int, length: int) -> Flags:
    """(length,) whether one of the spans of one size that begin at `starts`, in ascending order, reaches there."""
    if not len(starts):
        return np.zeros(length, np.bool_)
    changes = np.zeros(length + 1, np.int64)
    changes[starts] = 1
    changes -= np.bincount(np.minimum(starts + size, length), minlength=length + 1)
    flags: Flags = np.cumsum(changes)[:-1] > 0
    return flags


def running(values: npt.NDArray) -> Ints:
    """(U,) -> (U + 1,) sums of all values before each place."""
    sums = np.zeros(len(values) + 1, np.int64)
    values.cumsum(out=sums[1:])
    return sums


def within(flags: Flags, starts: Ints, stops: Ints) -> Ints:
    """(P,) how many flags are true from each start up to its stop."""
    if not len(starts):
        return np.zeros(0, np.int64)
    sums = running(flags)
    return sums[stops] - sums[starts]


def stretches(flags: Flags) -> Ints:
    """(N, 2) half-open ranges of consecutive true values."""
    padded = np.zeros(len(flags) + 2, np.bool_)
    padded[1:-1] = flags
    return np.flatnonzero(padded[1:] != padded[:-1]).reshape(-1, 2)
