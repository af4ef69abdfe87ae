"""How often the intervals of a comparison hold the truth, against simpler ways, and how long one takes.

    python bench/bench_statistics.py

Simulated: two arms of equal accuracy, 200 questions, 4 samples each, whose difference varies by 0.05 between questions
and by `sd` between seeds. An interval of 95 % should hold the true difference in 95 of 100 comparisons; the margin of
what is shown is about 1.5 points.
"""

import time

import numpy as np
from results import table

from dasd_assets.rules.statistics.comparison import compare
from dasd_assets.rules.statistics.pairing import Paired
from dasd_assets.rules.statistics.variance import MeanSquares

NUM_COMPARISONS, NUM_QUESTIONS, NUM_SAMPLES, NUM_REPLICATES = 800, 200, 4, 2_000
SETTINGS = [(1, 0.0), *((num_seeds, sd) for num_seeds in (2, 3, 5, 8) for sd in (0.0, 0.02, 0.05))]
NORMAL = 1.96


def cells(random: np.random.Generator, num_seeds: int, sd: float) -> np.ndarray:
    """(S, Q) differences; the true one is 0."""
    base = random.uniform(0.3, 0.7, NUM_QUESTIONS)
    shift = random.normal(0, sd, num_seeds)[:, None] + random.normal(0, 0.05, NUM_QUESTIONS)
    sides = [random.binomial(NUM_SAMPLES, (base + sign * shift / 2).clip(0, 1)) for sign in (1, -1)]
    return np.asarray(sides[0] - sides[1]) / NUM_SAMPLES


def held(differences: np.ndarray) -> list[bool]:
    """Whether each interval holds 0: of questions alone, nested and pigeonhole, by their variance, and ours."""
    num_seeds, num_questions = differences.shape
    squares, mean = MeanSquares.of(differences), abs(differences.mean())
    size = num_seeds * num_questions
    questions = squares.questions / size
    drawn_seeds = squares.seeds / size * (num_seeds - 1) / num_seeds
    nested = drawn_seeds + differences.var(axis=1).mean() / size
    pigeonhole = drawn_seeds + questions + squares.rest / size
    names = tuple(map(str, range(num_questions)))
    found = compare(
        Paired(tuple(range(num_seeds)), names, differences, np.zeros_like(differences), None), NUM_REPLICATES
    )
    assert found.low is not None and found.high is not None
    simple = [bool(mean <= NORMAL * variance**0.5) for variance in (questions, nested, pigeonhole)]
    return [*simple, found.low <= 0 <= found.high]


def coverage(num_seeds: int, sd: float) -> list[object]:
    """A row: seeds, sd, and the share of comparisons in % whose interval holds the truth."""
    random = np.random.default_rng([num_seeds, round(1000 * sd)])
    shares = 100 * np.mean([held(cells(random, num_seeds, sd)) for _ in range(NUM_COMPARISONS)], axis=0)
    return [num_seeds, f"{sd:g}", *(f"{share:.1f}" for share in shares)]


def main() -> None:
    print("## Intervals of a comparison\n")
    print(
        f"Share of {NUM_COMPARISONS} simulated comparisons ({NUM_QUESTIONS} questions, {NUM_SAMPLES} samples, no true "
        "difference) whose 95 % interval\nheld the truth. `sd`: of the difference between seeds.\n"
    )
    head = ["seeds", "sd", "questions alone", "nested bootstrap", "pigeonhole bootstrap", "ours"]
    print(table(head, [coverage(num_seeds, sd) for num_seeds, sd in SETTINGS]))
    differences = np.random.default_rng(0).normal(size=(5, 1000))
    names = tuple(map(str, range(1000)))
    begun = time.perf_counter()
    compare(Paired(tuple(range(5)), names, differences, np.zeros_like(differences), None))
    print(f"One comparison of 1,000 questions and 5 seeds, 10,000 replicates: {time.perf_counter() - begun:.2f} s.")


if __name__ == "__main__":
    main()
