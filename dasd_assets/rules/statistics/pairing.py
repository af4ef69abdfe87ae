"""Answers of two arms -> their differences, paired by seed and by question.

Pairing takes out what both arms share: how hard a question is, and what a seed does to either. Nothing is imputed: a
question that one side lacks would change what is compared, so it is an error.

A model that no seed has made (the undistilled student) has answers whose seed is None. The same ones are held against
every seed of the other side: they are one model, not one per seed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from dasd_resources.errors import UserError

CELL = ["seed", "question_id"]
NUM_NAMED = 5  # of what is missing, in a message


class Unpaired(UserError, ValueError):
    """Answers that cannot be paired; the message names what is missing where."""


@dataclass(frozen=True)
class Paired:
    """Accuracies of an arm and of its baseline, each (S, Q): the mean over a question's samples under one seed.

    Or means of what else is compared. sampling_variances: (S, Q), of a difference by the draw of samples alone; None
    where a cell has a single sample. common_variances: (Q,), what of it is one draw for all seeds: that of a side
    without seeds.
    """

    seeds: tuple[object, ...]
    question_ids: tuple[str, ...]
    arm: np.ndarray
    baseline: np.ndarray
    sampling_variances: np.ndarray | None
    common_variances: np.ndarray | None = None

    @property
    def differences(self) -> np.ndarray:
        """(S, Q), arm less baseline."""
        return np.asarray(self.arm - self.baseline)


def paired_differences(
    answers: pl.DataFrame,
    arm: object,
    baseline: object,
    seeds: Sequence[object] | None = None,
    value: str = "correct",
) -> Paired:
    """Pair an arm's answers with the baseline's.

    answers: arm, seed, question_id, correct; one row per sample, of one benchmark at one temperature. Those of a model
    without a seed, None, are paired with every seed of the other side.
    seeds: those that must be there; those that both have, unless given. value: the column that is compared.
    Raises Unpaired where a seed or a question is missing on one side, and where no seed is common.
    """
    one_setting(answers)
    cells = _cells(answers.filter(pl.col("arm").is_in([arm, baseline])), value)
    sides = {name: cells.filter(pl.col("arm") == name) for name in (arm, baseline)}
    wanted = _seeds(sides, seeds)
    both = {name: _under(side, wanted) for name, side in sides.items()}
    questions = sorted(set(both[arm]["question_id"]) | set(both[baseline]["question_id"]))
    left, right = (_matrices(both[name], name, wanted, questions) for name in (arm, baseline))
    found = Paired(tuple(wanted), tuple(questions), left[0], right[0], None)
    if not (np.isfinite(left[1]).all() and np.isfinite(right[1]).all()):
        return found
    common = sum((of[1][0] for of, side in zip((left, right), sides.values(), strict=True) if _is_seedless(side)), 0.0)
    return replace(
        found, sampling_variances=left[1] + right[1], common_variances=np.broadcast_to(common, len(questions))
    )


def one_arm(answers: pl.DataFrame) -> np.ndarray:
    """(S, Q) accuracies of the one arm whose answers these are. Raises Unpaired where a seed lacks a question."""
    one_setting(answers)
    cells = _cells(answers)
    names = sorted(set(cells["arm"]), key=str)
    if len(names) != 1:
        raise Unpaired(f"a mean is of one arm, these answers are of {len(names)}: {_some(names)}")
    seeds, questions = sorted(set(cells["seed"])), sorted(set(cells["question_id"]))
    return _matrices(cells, names[0], seeds, questions)[0]


def one_setting(answers: pl.DataFrame) -> None:
    """Raise Unpaired unless all answers are of one benchmark and one temperature, or do not say."""
    for name in ("benchmark", "temperature"):
        if name in answers.columns and answers[name].n_unique() > 1:
            found = _some(answers[name].unique().sort().to_list())
            raise Unpaired(f"answers of several {name}s ({found}): compare each of them apart, as `comparisons` does")


def _cells(answers: pl.DataFrame, value: str = "correct") -> pl.DataFrame:
    """arm, seed, question_id, accuracy, variance: of a cell's mean by the draw of its samples; NaN for one sample."""
    for name in ("arm", "question_id", value):
        if answers[name].null_count():
            raise Unpaired(f"{answers[name].null_count()} answers have no {name}: give a failed answer as wrong")
    each = pl.col(value).cast(pl.Float64)
    return answers.group_by(["arm", *CELL]).agg(
        accuracy=each.mean(), variance=(each.var() / pl.len()).fill_null(math.nan)
    )


def _seeds(sides: dict[object, pl.DataFrame], seeds: Sequence[object] | None) -> list[object]:
    found = {name: set(side["seed"]) for name, side in sides.items()}
    for name, of_side in found.items():
        if not of_side:
            raise Unpaired(f"{name} has no answers: evaluate it first")
        if None in of_side and len(of_side) > 1:
            raise Unpaired(f"{name} has answers with a seed and others without: give those of one model")
        if None not in of_side and (lacking := sorted(set(seeds or ()) - of_side, key=str)):
            raise Unpaired(f"{name} has no answers under seed {_some(lacking)}: evaluate these first")
    seeded = [of_side for of_side in found.values() if None not in of_side]
    common = set(seeds) if seeds is not None else set.intersection(*seeded or [{None}])
    if not common:
        each = "; ".join(f"{name}: {_some(sorted(of_side, key=str))}" for name, of_side in found.items())
        raise Unpaired(f"no seed is common ({each}): train both under the same seeds")
    return sorted(common)  # type: ignore[type-var]


def _is_seedless(side: pl.DataFrame) -> bool:
    return side["seed"].null_count() > 0


def _under(side: pl.DataFrame, seeds: Sequence[object]) -> pl.DataFrame:
    """A side's cells under these seeds; those of a model without a seed under each of them."""
    if _is_seedless(side):
        return side.drop("seed").join(_seed_frame(side, seeds), how="cross")
    return side.filter(pl.col("seed").is_in(seeds))


def _seed_frame(cells: pl.DataFrame, seeds: Sequence[object]) -> pl.DataFrame:
    return pl.DataFrame({"seed": seeds}, schema={"seed": cells.schema["seed"]})


def _matrices(
    cells: pl.DataFrame, name: object, seeds: Sequence[object], questions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Accuracies and variances, (S, Q)."""
    grid = _seed_frame(cells, seeds).join(
        pl.DataFrame({"question_id": questions}, schema={"question_id": cells.schema["question_id"]}), how="cross"
    )
    full = grid.join(cells, on=CELL, how="left", nulls_equal=True, maintain_order="left")
    if full["accuracy"].null_count():
        lacking = full.filter(pl.col("accuracy").is_null())
        missing = [f"{row['question_id']} under seed {row['seed']}" for row in lacking.head(NUM_NAMED + 1).to_dicts()]
        raise Unpaired(
            f"{name} has no answer to {_some(missing)} ({lacking.height} missing of {full.height}): evaluate it again, "
            "or leave these questions out on both sides"
        )
    shape = (len(seeds), len(questions))
    return full["accuracy"].to_numpy().reshape(shape), full["variance"].to_numpy().reshape(shape)


def _some(values: Sequence[object]) -> str:
    more = ", …" if len(values) > NUM_NAMED else ""
    return ", ".join(map(str, values[:NUM_NAMED])) + more
