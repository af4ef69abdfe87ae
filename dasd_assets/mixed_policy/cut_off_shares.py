"""The share of rollouts that were cut off, and how long references differ in it from short ones (report, Figure 7)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH_95 = 1.96  # standard errors on either side of an interval of 95 %


@dataclass(frozen=True)
class Share:
    """The share of rollouts that were cut off, and its standard error."""

    value: float
    error: float

    @classmethod
    def of(cls, cut_off: Sequence[bool]) -> "Share":
        """Of independent rollouts, one per question."""
        value = sum(cut_off) / len(cut_off)
        return cls(value, math.sqrt(value * (1 - value) / len(cut_off)))


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
    def width(self) -> float:
        """Of the 95 % interval of the change, on either side: the halves are independent samples."""
        return WIDTH_95 * math.hypot(self.short.error, self.long.error)
