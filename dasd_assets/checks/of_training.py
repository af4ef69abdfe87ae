"""The checks of what reads all batches: rollouts, continuations, and accuracy from stage to stage."""

from collections.abc import Callable
from itertools import pairwise

import polars as pl

from dasd_assets.checks.findings import AssetCheckFinding, Check, Scope, failed_requests
from dasd_assets.evaluation import checkpoint_outcomes
from dasd_assets.evaluation.metrics import Estimate, paired_change
from dasd_assets.mixed_policy.continuations import current_continuations, current_prefixes
from dasd_assets.mixed_policy.distilled_student import distilled_checkpoint, student_rollouts_now
from dasd_assets.rules.asset_names import checkpoint_asset
from dasd_assets.rules.checkpoints import current_checkpoints, trained_names
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_assets.rules.rollouts import current_wanted
from dasd_resources.recipe import Recipe


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
    """Whether a checkpoint is as accurate as its parent, but for `limit` standard errors, on every benchmark.

    before, after: benchmark, temperature, question_id, correct (None where not asked yet, False where the request
    failed). Questions are paired, and all samples of one are one observation, so that only what changed counts.
    """
    failed, figures = [], {}
    setting = ["benchmark", "temperature"]
    old, new = (rows.partition_by(setting, as_dict=True) for rows in (before, after))
    for key in sorted(old.keys() & new.keys()):
        where = f"{key[0]}, T={key[1]:g}"
        if num_missing := sum(rows[key]["correct"].null_count() for rows in (old, new)):
            figures[where] = f"incomplete, {num_missing:,} answers are missing"
            continue
        change = paired_change(old[key], new[key])
        if change.value is None:
            continue
        figures[where] = _points(change)
        # Of one question nothing says how much of a change is chance.
        if change.standard_error is not None and change.value < min(0, -limit * change.standard_error):
            failed.append(where)
    compared = "; ".join(f"{where}: {change}" for where, change in figures.items())
    message = compared or f"nothing to compare: {name} and {previous} have answered no question in common yet"
    if failed:
        message = (
            f"{name} answers worse than {previous} by more than {limit:g} standard errors on {' and '.join(failed)} "
            f"({message}). Look at {checkpoint_asset(name)}'s loss, at its dataset's samples, and at the answers: "
            f"`SELECT * FROM evaluations WHERE NOT correct`; recipe key checks.max_accuracy_drop"
        )
    return AssetCheckFinding(not failed, message, figures)


def _points(change: Estimate) -> str:
    """`-37.5 ± 12.5 points (4 questions)`."""
    error = "no standard error" if change.standard_error is None else f"± {100 * change.standard_error:.1f}"
    questions = "1 question" if change.num_questions == 1 else f"{change.num_questions} questions"
    return f"{100 * (change.value or 0):+.1f} {error} points ({questions})"


def _missing_rollouts(scope: Scope) -> AssetCheckFinding:
    checkpoint = str(distilled_checkpoint(scope.warehouse, scope.recipe)["checkpoint_id"])
    wanted = len(current_wanted(scope.warehouse, scope.recipe, scope.student, checkpoint))
    made = student_rollouts_now(scope.warehouse, scope.engines, scope.recipe).height
    return failed_requests(scope, "student_rollouts", wanted - made, wanted)


def _missing_continuations(scope: Scope) -> AssetCheckFinding:
    wanted = len(current_prefixes(scope.warehouse, scope.engines, scope.recipe, scope.teacher))
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
