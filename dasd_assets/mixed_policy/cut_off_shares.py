"""The share of rollouts that were cut off, and how long references differ in it from short ones (report, Figure 7)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH_95 = 1.96  # standard errors on either side of an interval of 95 %


@dataclass(frozen=True)
class Share:
    """The share of rollouts that were cut off, of how many."""

    value: float
    num: int

    @classmethod
    def of(cls, cut_off: Sequence[bool]) -> "Share":
        """Of independent rollouts, one per question."""
        return cls(sum(cut_off) / len(cut_off), len(cut_off))

    @property
    def error(self) -> float:
        """Its standard error."""
        return math.sqrt(self.value * (1 - self.value) / self.num)


@dataclass(frozen=True)
class Halves:
    """The shares of those with the shorter and with the longer references; of an odd number without the middle."""

    short: Share
    long: Share

    @classmethod
    def of(cls, cut_off: Sequence[bool]) -> "Halves":
        """Of at least two rollouts in the order of their references' lengths."""
        half = len(cut_off) // 2
        return cls(Share.of(cut_off[:half]), Share.of(cut_off[-half:]))

    @property
    def change(self) -> float:
        """The longer less the shorter."""
        return self.long.value - self.short.value

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the change: Agresti and Caffo's (American Statistician 2000), for independent samples.

        Each half is counted with one more rollout that was cut off and one more that was not, so that a few rollouts
        that are all alike are not taken for certain.
        """
        short, long = (Share((one.value * one.num + 1) / (one.num + 2), one.num + 2) for one in (self.short, self.long))
        middle, reach = long.value - short.value, WIDTH_95 * math.hypot(short.error, long.error)
        return max(-1.0, middle - reach), min(1.0, middle + reach)
