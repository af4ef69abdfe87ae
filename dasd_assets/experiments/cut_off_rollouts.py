"""How many rollouts of a mixed-policy stage were cut off, by the length of the teacher's response: Figure 7 in numbers.

The figure has the shares alone; what is said of it needs the counts, and an interval.
"""

import numpy as np
import polars as pl

from dasd_assets.experiments.result_table import markdown_table, percent, points
from dasd_assets.mixed_policy.cut_off_shares import Halves, Share
from dasd_assets.mixed_policy.rollouts import NUM_GROUPS

_LENGTH = "reference_num_tokens"
_COLUMNS = ("the teacher's response, tokens", "rollouts", "cut off", "share")
_LEGEND = """Answers of one student, as it is before the mixed-policy stage, one to each question that it was trained
on, from the shortest response of the teacher to the longest; one is cut off at `mixed_policy.length_cap` times that
length. Shares in %, ± a standard error over questions. Intervals are of 95 %, and over questions, too: not over
students."""


def rollouts_cut_off(rollouts: pl.DataFrame) -> list[str]:
    """The section of an experiment's page, if there are enough rollouts. rollouts: reference_num_tokens, cut_off."""
    if rollouts.height < 2 * NUM_GROUPS:
        return []
    ordered = rollouts.sort(_LENGTH, maintain_order=True)
    groups = [ordered[part] for part in np.array_split(np.arange(ordered.height), NUM_GROUPS)]
    rows = [_row(group) for group in [*groups, ordered]]
    return ["## Rollouts that were cut off", markdown_table(_COLUMNS, rows), _halves(ordered, groups[0]), _LEGEND]


def _row(group: pl.DataFrame) -> dict[str, str]:
    share, lengths = Share.of(group["cut_off"].to_list()), group[_LENGTH].to_list()  # the shortest first
    values = (
        f"{lengths[0]} to {lengths[-1]}",
        f"{group.height:,}",
        f"{group['cut_off'].sum():,}",
        percent(share.value, share.error or None),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _halves(ordered: pl.DataFrame, shortest: pl.DataFrame) -> str:
    """The longer half of the rollouts against the shorter, with the shortest group and without it."""
    cut_off = ordered["cut_off"].to_list()
    halves, without = Halves.of(cut_off), Halves.of(cut_off[shortest.height :])
    return (
        f"Of the half with the shorter responses {100 * halves.short.value:.1f} % were cut off, of the other "
        f"{100 * halves.long.value:.1f} %: {change_text(halves)} points; without the shortest eighth, which has "
        f"{shortest['cut_off'].sum():,} of the {ordered['cut_off'].sum():,}, {change_text(without)}."
    )


def change_text(halves: Halves) -> str:
    """The longer half less the shorter, with its interval: `-8.4 [-10.6, -6.1]`, in points of %."""
    return points(halves.change, *halves.interval)
