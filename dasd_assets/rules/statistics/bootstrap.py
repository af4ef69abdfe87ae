"""Interval and p-value of a mean over seeds and questions: a hierarchical bootstrap of both levels.

Each replicate draws questions with replacement, the same for all seeds, since every seed answers the same questions;
and it draws seeds with replacement. The seeds' deviations are first shrunk to what seeds alone vary (`variance`): their
means hold chance that the questions' draw brings already, and counted twice it widens the interval up to 1.7-fold (the
"pigeonhole" bootstrap; Owen, Annals of Applied Statistics 2007). Drawing other questions for each seed would do the
opposite. Questions' deviations are enlarged by Q / (Q - 1) for the variance that a draw of a sample lacks. Shrunk
so: Davison, Hinkley, Bootstrap Methods, 1997, section 3.8. Last, a replicate's deviation is divided by the root of
chi² / its degrees of freedom, as Student's t is: the variance itself is known from a few seeds alone.

The p-value is the same replicates' share beyond zero, twice, so that it is below 0.05 where the interval leaves zero
out. A sign-flip permutation would not do: over questions it takes the seeds as given and is too often significant; over
5 seeds its least p is 2 / 32.
"""

import numpy as np

from dasd_assets.rules.statistics.variance import MeanSquares
from dasd_resources.content_hash import content_hash

NUM_REPLICATES = 10_000
LEAST_P = 2 / (NUM_REPLICATES + 1)  # where none of them is beyond zero
CHUNK = 1_000_000  # drawn questions at a time, which bounds the memory to some 20 MB
LEVEL = 0.95


def deviations(cells: np.ndarray, key: object, num_replicates: int = NUM_REPLICATES) -> np.ndarray:
    """(R,) deviations of the mean, whose law is that of the estimate's error.

    cells: (S, Q) with a standard error. key: seeds the draw, so that the same cells give the same interval; of the
    questions' and seeds' names, so that arms of one table, and a comparison and its reverse, draw alike.
    """
    random = np.random.default_rng(int(content_hash(["bootstrap", key])[:16], 16))
    squares = MeanSquares.of(cells)
    freedom = squares.degrees_of_freedom
    drawn = _question_part(cells.mean(axis=0), random, num_replicates)
    if squares.num_seeds > 1:
        drawn += _seed_part(cells.mean(axis=1), squares.of_seeds_alone, random, num_replicates)
    return np.asarray(drawn / np.sqrt(random.chisquare(freedom, num_replicates) / freedom))


def _question_part(means: np.ndarray, random: np.random.Generator, num_replicates: int) -> np.ndarray:
    """means: (Q,) -> (R,) deviations of the mean of as many drawn with replacement."""
    count = len(means)
    centred = (means - means.mean()) * (count / (count - 1)) ** 0.5
    rows = max(1, CHUNK // count)
    parts = [
        centred[random.integers(count, size=(min(rows, num_replicates - start), count), dtype=np.int32)].mean(axis=1)
        for start in range(0, num_replicates, rows)
    ]
    return np.concatenate(parts)


def _seed_part(means: np.ndarray, variance: float, random: np.random.Generator, num_replicates: int) -> np.ndarray:
    """means: (S,) -> (R,) deviations with that variance."""
    count = len(means)
    centred = means - means.mean()
    drawn = centred[random.integers(count, size=(num_replicates, count))].mean(axis=1)
    spread = (centred**2).sum() / count**2  # the variance of the drawn means
    return np.asarray(drawn * (variance / spread) ** 0.5 if variance else np.zeros(num_replicates))


def interval(mean: float, drawn: np.ndarray) -> tuple[float, float]:
    """95 %: from the 2.5th to the 97.5th percentile of the replicates."""
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return mean + float(low), mean + float(high)


def p_value(mean: float, drawn: np.ndarray) -> float:
    """Two-sided, for a mean of zero; at least 2 / (R + 1)."""
    beyond = min(np.count_nonzero(mean + drawn <= 0), np.count_nonzero(mean + drawn >= 0))
    return float(min(1.0, 2 * (beyond + 1) / (len(drawn) + 1)))
