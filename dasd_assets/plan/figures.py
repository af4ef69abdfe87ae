"""Numbers with an interval and an origin, and the interval of whatever is computed from them."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

Z90 = 1.645  # a normal variable lies within so many deviations nine times in ten
NUM_DRAWS = 400  # the ends of a 90 % interval are then known to some 3 % of its width
PILOT = "pilot"


@dataclass(frozen=True)
class Figure:
    """A number, the interval that holds it nine times in ten, and where it comes from.

    origin: `pilot`, or the assumption in words. is_share: never above 1.
    """

    value: float
    low: float
    high: float
    origin: str
    is_share: bool = False

    def __post_init__(self) -> None:
        assert self.low <= self.value <= self.high, self

    @property
    def is_measured(self) -> bool:
        return self.origin.startswith(PILOT)


Figures = Mapping[str, Figure]
Values = Mapping[str, float]


@dataclass(frozen=True)
class Interval:
    """What was computed from the figures' values, and the interval that holds it nine times in ten."""

    value: float
    low: float
    high: float


def exact(value: float, origin: str, is_share: bool = False) -> Figure:
    """A number that is known."""
    return Figure(value, value, value, origin, is_share)


def measured(values: np.ndarray, groups: np.ndarray | None = None, is_share: bool = False) -> Figure:
    """The mean of a pilot's values with its interval; values of one group (a question) count as one draw."""
    mean = float(values.mean())
    if groups is not None:
        _, index, counts = np.unique(groups, return_inverse=True, return_counts=True)
        # The mean is a ratio of sums over questions: its error follows from what each adds beyond its share.
        excess = np.bincount(index, weights=values - mean)
        num, spread = len(counts), float(np.sqrt((excess**2).sum())) / len(values)
        error = spread * math.sqrt(num / max(num - 1, 1))
    else:
        num = len(values)
        error = float(values.std(ddof=1) / math.sqrt(num)) if num > 1 else 0.0
    if is_share and num > 0:
        # Where all or none of a few passed, the error is not 0: one more of them might not have.
        error = max(error, 0.5 / num)
    low, high = max(mean - Z90 * error, 0.0), mean + Z90 * error
    return Figure(mean, low, min(high, 1.0) if is_share else high, PILOT, is_share)


def at_hand(figures: Figures) -> Values:
    """The values by themselves."""
    return {name: figure.value for name, figure in figures.items()}


def intervals(compute: Callable[[Values], Mapping[str, float]], figures: Figures) -> dict[str, Interval]:
    """What `compute` gives for the values, and between which ends it lies as all figures vary together.

    A figure is drawn log-normally, with the deviation of either side of its interval: sums of stages that share a
    figure are then as uncertain as they should be, and no more.
    """
    drawn = _draws(figures)
    outcomes = [compute({name: float(values[index]) for name, values in drawn.items()}) for index in range(NUM_DRAWS)]
    found = compute(at_hand(figures))
    result = dict[str, Interval]()
    for name, value in found.items():
        low, high = np.quantile([outcome[name] for outcome in outcomes], (0.05, 0.95))
        result[name] = Interval(value, min(float(low), value), max(float(high), value))
    return result


def _draws(figures: Figures) -> dict[str, np.ndarray]:
    """Name -> NUM_DRAWS values. In the order of the names: a figure that is added changes no other's draws."""
    drawn = dict[str, np.ndarray]()
    for name, figure in sorted(figures.items()):
        normal = np.random.default_rng([0, *map(ord, name)]).standard_normal(NUM_DRAWS)
        if figure.value == 0:
            drawn[name] = np.zeros(NUM_DRAWS)
            continue
        below = math.log(figure.value / max(figure.low, figure.value / 1000)) / Z90
        above = math.log(figure.high / figure.value) / Z90
        values = figure.value * np.exp(np.where(normal < 0, below, above) * normal)
        drawn[name] = np.minimum(values, 1.0) if figure.is_share else values
    return drawn
