"""The checks of what reads all batches: rollouts, continuations, and accuracy from stage to stage."""

from collections.abc import Callable
from itertools import pairwise

import polars as pl

from dasd_assets.checks.findings import AssetCheckFinding, Check, Scope, failed_requests
from dasd_assets.evaluation.outcomes import checkpoint_outcomes
from dasd_assets.mixed_policy.continuations import current_continuations, current_cuts
from dasd_assets.mixed_policy.distilled_student import distilled_checkpoint, student_rollouts_now
from dasd_assets.rules.asset_names import checkpoint_asset
from dasd_assets.rules.checkpoints import current_checkpoints, trained_names
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_assets.rules.rollouts import current_wanted
from dasd_assets.rules.statistics.comparison import Comparison, compare
from dasd_assets.rules.statistics.holm import holm
from dasd_assets.rules.statistics.pairing import paired_differences
from dasd_assets.rules.statistics.power import LEVEL
from dasd_resources.recipe import Recipe

BEFORE, AFTER = "before", "after"


def later_checks(recipe: Recipe) -> list[Check]:
    """The checks of what reads all batches."""
    names = ["student", *trained_names(recipe)]
    return [
        Check("student_rollouts", "failed_requests", "Nearly every rollout was made.", _missing_rollouts),
        Check("teacher_continuations", "failed_requests", "Nearly every prefix was continued.", _missing_continuations),
        *[
            Check(
                "evaluations",
                f"accuracy_{name}_not_below_{previous}",
                f"{name} answers held-out questions no worse than {previous}.",
                _accuracy_not_below(name, previous),
            )
            for previous, name in pairwise(names)
        ],
    ]


def accuracy_change(
    before: pl.DataFrame, after: pl.DataFrame, name: str, previous: str, limit: float
) -> AssetCheckFinding:
    """Whether a checkpoint is nowhere significantly less accurate than its parent, and by more than `limit` errors.

    Errors are standard errors; significant is a p below LEVEL by Holm's correction over benchmarks and temperatures.
    before, after: benchmark, temperature, question_id, correct (None where not asked yet, False where the request
    failed). Questions are paired, and all samples of one are one observation, so that only what changed counts.
    """
    figures: dict[str, str] = {}
    changes: dict[str, Comparison] = {}
    setting = ["benchmark", "temperature"]
    old, new = (rows.partition_by(setting, as_dict=True) for rows in (before, after))
    for key in sorted(old.keys() & new.keys()):
        where = f"{key[0]}, T={key[1]:g}"
        if num_missing := sum(rows[key]["correct"].null_count() for rows in (old, new)):
            figures[where] = f"incomplete, {num_missing:,} answers are missing"
            continue
        change = _change(old[key], new[key])
        if change is not None:
            figures[where] = _points(change)
            changes[where] = change
    adjusted = holm([change.p for change in changes.values()])
    failed = [
        where for (where, change), p in zip(changes.items(), adjusted, strict=True) if _is_worse(change, p, limit)
    ]
    compared = "; ".join(f"{where}: {change}" for where, change in figures.items())
    message = compared or f"nothing to compare: {name} and {previous} have answered no question in common yet"
    if failed:
        alike = all(changes[where].p is None for where in failed)
        how = "on each question" if alike else f"significantly, by more than {limit:g} standard errors"
        message = (
            f"{name} answers worse than {previous} on {' and '.join(failed)}, {how} "
            f"({message}). Look at {checkpoint_asset(name)}'s loss, at its dataset's samples, and at the answers: "
            f"`SELECT * FROM evaluations WHERE NOT correct`; recipe key checks.max_accuracy_drop"
        )
    return AssetCheckFinding(not failed, message, figures)


def _change(before: pl.DataFrame, after: pl.DataFrame) -> Comparison | None:
    """After less before, over the questions that both answered; None without any."""
    sides = [
        rows.join(other, on="question_id", how="semi").select("question_id", "correct", arm=pl.lit(arm), seed=pl.lit(0))
        for arm, rows, other in ((AFTER, after, before), (BEFORE, before, after))
    ]
    return None if sides[0].is_empty() else compare(paired_differences(pl.concat(sides), AFTER, BEFORE))


def _is_worse(change: Comparison, p: float | None, limit: float) -> bool:
    """p: corrected; None of one question, of which nothing says how much is chance, and where all fall alike."""
    if p is None:
        return change.num_questions > 1 and change.difference < 0
    return p < LEVEL and change.difference < -limit * (change.standard_error or 0.0)


def _points(change: Comparison) -> str:
    """`-37.5 ± 12.5 points (4 questions; could have seen 52.0)`."""
    questions = "1 question" if change.num_questions == 1 else f"{change.num_questions} questions"
    if change.standard_error is None or change.minimum_detectable_effect is None:
        return f"{100 * change.difference:+.1f} points, no standard error ({questions})"
    seen = f"could have seen {100 * change.minimum_detectable_effect:.1f}"
    return f"{100 * change.difference:+.1f} ± {100 * change.standard_error:.1f} points ({questions}; {seen})"


def _missing_rollouts(scope: Scope) -> AssetCheckFinding:
    checkpoint = str(distilled_checkpoint(scope.warehouse, scope.recipe)["checkpoint_id"])
    wanted = len(current_wanted(scope.warehouse, scope.recipe, scope.student, checkpoint))
    made = student_rollouts_now(scope.warehouse, scope.engines, scope.recipe).height
    return failed_requests(scope, "student_rollouts", wanted - made, wanted)


def _missing_continuations(scope: Scope) -> AssetCheckFinding:
    wanted = len(current_cuts(scope.warehouse, scope.engines, scope.recipe))
    made = current_continuations(scope.warehouse, scope.engines, scope.recipe).height
    return failed_requests(scope, "teacher_continuations", wanted - made, wanted)


def _not_trained(scope: Scope, *names: str) -> str:
    """Which of the checkpoints there is not, and why; empty if there are all."""
    made = current_checkpoints(scope.warehouse, scope.recipe)["name"]
    empty = empty_datasets(scope.warehouse, scope.recipe.name)
    return "; ".join(
        f"{name} was skipped, its dataset is empty: {empty[name]['reason']}"
        if name in empty
        else f"{name} is not trained yet"
        for name in names
        if name not in made
    )


def _accuracy_not_below(name: str, previous: str) -> Callable[[Scope], AssetCheckFinding]:
    def evaluate(scope: Scope) -> AssetCheckFinding:
        if absent := _not_trained(scope, previous, name):
            return AssetCheckFinding(True, f"nothing to compare: {absent}", {})
        answers = checkpoint_outcomes(scope.warehouse, scope.recipe)
        before, after = (answers.filter(pl.col("checkpoint") == of) for of in (previous, name))
        return accuracy_change(before, after, name, previous, scope.recipe.checks.max_accuracy_drop)

    return evaluate
