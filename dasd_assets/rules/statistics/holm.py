"""Holm's correction: of a table of p-values, which are small although so many were asked for (Holm, 1979)."""

from collections.abc import Sequence

SIGNIFICANT = 0.05  # an adjusted p-value below it


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjusted p-values, in the order given: with all below 0.05 called different, no error in 95 of 100 tables.

    The smallest of m is multiplied by m, the next by m - 1, and so on; none falls below one before it. A None stays
    None and counts as no question.
    """
    asked = sorted((p, place) for place, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    greatest = 0.0
    for rank, (p, place) in enumerate(asked):
        greatest = max(greatest, min(1.0, p * (len(asked) - rank)))
        adjusted[place] = greatest
    return adjusted
