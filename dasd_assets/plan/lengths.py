"""What a plan's figures become with shorter or fewer responses. Lengths are log-normal, cut at a limit of tokens."""

import math
from statistics import NormalDist

from dasd_assets.plan.figures import Values
from dasd_resources.recipe import Recipe


def shorter(recipe: Recipe, values: Values, limit: int) -> dict[str, float]:
    """The figures with responses cut at `limit` tokens instead of the recipe's: fewer tokens, fewer accepted."""
    changed, spread, before = dict(values), values["length_spread"], recipe.generation.max_tokens
    for dataset in recipe.datasets:
        middle = _median(values[f"teacher_tokens.{dataset}"], spread, before)
        ratio = _mean_below(middle, spread, limit) / _mean_below(middle, spread, before)
        kept = _share_below(middle, spread, limit) / _share_below(middle, spread, before)
        for name in ("teacher_tokens", "student_tokens", "sentences"):
            changed[f"{name}.{dataset}"] *= ratio
        for name in ("scored_share", "accepted_share"):
            changed[f"{name}.{dataset}"] *= kept
        # Of a question's candidates one must still be short enough: rarely the question is lost.
        lost = (1 - kept) ** recipe.generation.num_candidates
        changed[f"covered_share.{dataset}"] *= 1 - lost
    return changed


def fewer(recipe: Recipe, values: Values, num_candidates: int) -> dict[str, float]:
    """The figures with so many candidates a question, of the recipe's two or more: fewer questions have one accepted.

    The share of questions without one is E[(1 - p)^n], of candidates that are independent given their question, and
    log-convex in n: it is at most what lies geometrically between that of one candidate and that of the recipe's.
    """
    changed, before = dict(values), recipe.generation.num_candidates
    towards = (num_candidates - 1) / (before - 1)
    for dataset in recipe.datasets:
        of_one, of_all = (1 - values[f"{name}_share.{dataset}"] for name in ("accepted", "covered"))
        changed[f"covered_share.{dataset}"] = 1 - of_one ** (1 - towards) * of_all**towards
    return changed


def _median(mean: float, spread: float, limit: float) -> float:
    """Of the log-normal whose mean, cut at the limit, is this; by bisection, as the cut mean grows with it."""
    low, high = math.log(mean) - 5, math.log(limit) + 5
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _mean_below(math.exp(middle), spread, limit) < mean else (low, middle)
    return math.exp((low + high) / 2)


def _mean_below(median: float, spread: float, limit: float) -> float:
    """E[min(length, limit)]."""
    below = _share_below(median * math.exp(spread**2), spread, limit)
    return median * math.exp(spread**2 / 2) * below + limit * (1 - _share_below(median, spread, limit))


def _share_below(median: float, spread: float, limit: float) -> float:
    return NormalDist(math.log(median), spread).cdf(math.log(limit))
