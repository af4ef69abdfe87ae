"""What is said of a difference, in one place: estimate, interval, p-value, and what could have been seen."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import ceil

import numpy as np
import polars as pl

from dasd_assets.rules.rule import Rule
from dasd_assets.rules.statistics.bootstrap import LEAST_P, NUM_REPLICATES, deviations, interval, p_value
from dasd_assets.rules.statistics.holm import holm
from dasd_assets.rules.statistics.pairing import Paired, one_arm, paired_differences
from dasd_assets.rules.statistics.power import minimum_detectable_effect
from dasd_assets.rules.statistics.variance import MeanSquares

STATISTICS_VERSION = "1"
STATISTICS = Rule("statistics", STATISTICS_VERSION)
OF_ONE_SEED = "of these two models, not of others trained alike"  # what a difference over one seed is
SETTING = ["benchmark", "temperature"]


@dataclass(frozen=True)
class Comparison:
    """An arm less its baseline, over questions and seeds.

    num_seeds: those of the comparison; a model without a seed is held against each. low, high: 95 % interval. All but
    the accuracies, the difference and the counts are None where nothing varies or there is a single question: such
    answers do not say how exact they are. With one seed the interval is of these two trained models, and says nothing
    of others trained alike.
    """

    accuracy: float
    baseline_accuracy: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    standard_error: float | None
    degrees_of_freedom: float | None
    minimum_detectable_effect: float | None
    num_questions: int
    num_seeds: int


@dataclass(frozen=True)
class Mean:
    """An accuracy with its standard error, clustered by question and by seed; None where that is not known.

    num_seeds: 1, too, for a model that no seed has made.
    """

    accuracy: float
    standard_error: float | None
    num_questions: int
    num_seeds: int


def compare(paired: Paired, num_replicates: int = NUM_REPLICATES) -> Comparison:
    """The difference between an arm and its baseline; deterministic, and mirrored where they change places."""
    cells = paired.differences
    mean = float(cells.mean())
    accuracies = float(paired.arm.mean()), float(paired.baseline.mean())
    num_seeds, num_questions = cells.shape
    squares = MeanSquares.of(cells) if num_questions > 1 else None
    if squares is None or squares.standard_error is None:
        return Comparison(*accuracies, mean, None, None, None, None, None, None, num_questions, num_seeds)
    drawn = deviations(cells, [list(map(str, paired.seeds)), list(paired.question_ids)], num_replicates)
    return Comparison(
        *accuracies,
        mean,
        *interval(mean, drawn),
        p_value(mean, drawn),
        squares.standard_error,
        squares.degrees_of_freedom,
        minimum_detectable_effect(squares),
        num_questions,
        num_seeds,
    )


def comparisons(answers: pl.DataFrame, pairs: Sequence[tuple[object, object]]) -> pl.DataFrame:
    """Each pair's arm less its baseline, per benchmark and temperature; Holm's correction is over all rows.

    answers: arm, seed, benchmark, temperature, question_id, correct; one row per sample, failed ones wrong.
    pairs: arm and baseline, paired under the seeds that both have.
    Returns arm, baseline, benchmark, temperature, the columns of Comparison, p_holm, statistics_version.
    Raises Unpaired as `paired_differences` does.
    """
    rows = []
    for (benchmark, temperature), part in answers.sort(SETTING).group_by(SETTING, maintain_order=True):
        for arm, baseline in pairs:
            found = compare(paired_differences(part, arm, baseline))
            setting = {"arm": arm, "baseline": baseline, "benchmark": benchmark, "temperature": temperature}
            rows.append({**setting, **asdict(found)})
    adjusted = holm([row["p"] for row in rows])
    schema = dict.fromkeys(("arm", "baseline"), answers.schema["arm"]) | {
        name: answers.schema[name] for name in SETTING
    }
    found_columns = {name: pl.Int64() if name.startswith("num_") else pl.Float64() for name in _COLUMNS}
    return pl.DataFrame(rows, schema={**schema, **found_columns}).with_columns(
        p_holm=pl.Series(adjusted, dtype=pl.Float64), statistics_version=pl.lit(STATISTICS_VERSION)
    )


_COLUMNS = tuple(Comparison.__dataclass_fields__)


def p_text(p: float, *, at_most: bool = False) -> str:
    """`0.012`; one that so many digits would show as zero, which no p-value is, as `<0.001`.

    at_most: whether more replicates could have made it smaller: `≤0.005`.
    """
    if p < 0.001:
        return "<0.001"
    return f"≤{ceil(1000 * p) / 1000:.3f}" if at_most else f"{p:.3f}"


def corrected_p_text(p_holm: float, num_corrected: int) -> str:
    """A p-value corrected for so many; at the least that it can be, more replicates could have made it smaller."""
    return p_text(p_holm, at_most=p_holm <= num_corrected * LEAST_P * (1 + 1e-9))


def mean_accuracy(answers: pl.DataFrame) -> Mean:
    """Accuracy of one arm at one benchmark and temperature, each question weighing the same.

    answers: arm, seed, question_id, correct. With one seed the standard error is that of a mean over questions.
    """
    cells: np.ndarray = one_arm(answers)
    num_seeds, num_questions = cells.shape
    error = MeanSquares.of(cells).standard_error if num_questions > 1 else None
    return Mean(float(cells.mean()), error, num_questions, num_seeds)
