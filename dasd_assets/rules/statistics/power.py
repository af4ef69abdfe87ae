"""The minimum detectable effect: the true difference that a comparison like this one finds in 80 of 100 repetitions.

(t_0.975 + t_0.8) × standard error, both quantiles of Student's t with the error's degrees of freedom: Bloom, Minimum
Detectable Effects, Evaluation Review 1995; for evaluations of language models: Miller, arXiv 2411.00640, section 5.
A smaller difference may well be there, unseen.
"""

from dataclasses import replace
from functools import lru_cache

import numpy as np

from dasd_assets.rules.statistics.pairing import Paired
from dasd_assets.rules.statistics.variance import MeanSquares

LEVEL, POWER = 0.05, 0.8
NUM_ANGLES = 20_001
FAR = 12  # beyond so many of its units there is no weight that counts, where t is almost normal


def minimum_detectable_effect(squares: MeanSquares) -> float | None:
    """At 80 % power and 5 % level, two-sided, before Holm's correction; None without a standard error."""
    if squares.standard_error is None:
        return None
    freedom = squares.degrees_of_freedom
    return (interval_quantile(freedom) + student_quantile(POWER, freedom)) * squares.standard_error


def detectable_with(paired: Paired, seeds: float = 1, questions: float = 1, samples: float = 1) -> float | None:
    """The minimum detectable effect if there were so many times more seeds, questions and samples per question.

    None where the answers do not say: more seeds, with one seed; more samples, with one sample.
    """
    now = MeanSquares.of(paired.differences) if len(paired.question_ids) > 1 else None
    if now is None or (seeds != 1 and now.num_seeds == 1) or (samples != 1 and paired.sampling_variances is None):
        return None
    return minimum_detectable_effect(_expected(now, *_saved(paired, now, samples), seeds, questions))


def _saved(paired: Paired, now: MeanSquares, samples: float) -> tuple[float, float]:
    """Variance that more samples would take away: of a cell, and of a question under all seeds; no more than there is.

    The second is that of a side without seeds, whose draw is the same under each.
    """
    if paired.sampling_variances is None or paired.common_variances is None or samples == 1:
        return 0.0, 0.0
    of_all, of_cell = float(paired.common_variances.mean()), float(paired.sampling_variances.mean())
    gone = 1 - 1 / samples
    if now.num_seeds == 1:
        return min(now.questions, of_cell) * gone, 0.0
    return min(now.rest, of_cell - of_all) * gone, min(_of_questions(now), of_all) * gone


def _of_questions(now: MeanSquares) -> float:
    return max(0.0, now.questions - now.rest) / now.num_seeds


def _expected(now: MeanSquares, saved: float, saved_of_questions: float, seeds: float, questions: float) -> MeanSquares:
    """The mean squares to expect of more seeds and questions, where cells and questions vary by that much less."""
    num_seeds, num_questions = round(now.num_seeds * seeds), round(now.num_questions * questions)
    if now.num_seeds == 1:
        return replace(now, num_questions=num_questions, questions=now.questions - saved)
    rest = now.rest - saved
    of_seeds = max(0.0, now.seeds - now.rest) / now.num_questions
    of_questions = _of_questions(now) - saved_of_questions
    return MeanSquares(num_seeds, num_questions, num_questions * of_seeds + rest, num_seeds * of_questions + rest, rest)


def interval_quantile(freedom: float) -> float:
    """How many standard errors a 95 % interval by Student's t goes to either side."""
    return student_quantile(1 - LEVEL / 2, freedom)


@lru_cache(maxsize=1024)
def student_quantile(probability: float, freedom: float) -> float:
    """Quantile of Student's t with at least 1 degree of freedom, to five digits.

    t = sqrt(freedom) tan(angle) has the density cos(angle) ** (freedom - 1), which is summed over a grid.
    """
    end = min(np.pi / 2, FAR / freedom**0.5)
    angles = np.linspace(-end, end, NUM_ANGLES)
    density = np.cos(angles).clip(0) ** (freedom - 1)
    below = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return float(np.sqrt(freedom) * np.tan(np.interp(probability, below / below[-1], angles)))
