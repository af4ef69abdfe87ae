"""How the examples of two arms that are compared differ: how many are the same, and their traits, question by question.

Two choices from few responses, or from responses that are alike, differ little: what one does to a student beyond the
other is then smaller, too, whatever it would do where they can differ more. So a smaller difference between students
has to be read beside these.
"""

import numpy as np
import polars as pl

from dasd_assets.experiments.dataset_traits import ERRORS, clustered_error, count_column, mean_of, num_clusters
from dasd_assets.experiments.figure_data import mean_losses
from dasd_assets.rules.statistics.power import interval_quantile
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.storage.warehouse import Warehouse

LESS, SAME, LOSS = "less", "same", "training_loss"
DIFFERENCES = (*ERRORS, LOSS)
_OTHER = "_of_other"


def dataset_differences(
    warehouse: Warehouse, recipe: Recipe, experiment: Experiment, stages: pl.DataFrame, by_question: pl.DataFrame
) -> pl.DataFrame:
    """(arm, less, num_seeds, SAME, DIFFERENCES, and `width` of these) of what the experiment compares and was trained.

    Of all stages together. num_seeds: those of both. same: the share of the arm's examples that the other has, too,
    under the same seed. A difference is of two means over all examples of all seeds, with a 95 % interval over
    questions, in which all examples to a question are one; training_loss: of `mean_losses`, paired by seed, its
    interval over seeds.
    stages: of `cells.stage_rows`; by_question: of `traits_by_question`.
    """
    examples, losses = _examples(warehouse, recipe, stages), mean_losses(warehouse, stages)
    names = [*ERRORS, *map(count_column, ERRORS)]
    questions = by_question.group_by("arm", "prompt_id", maintain_order=True).agg(pl.col(names).sum())
    trained = set(questions["arm"])
    seeds = {arm: set(part["seed"].unique()) for (arm,), part in examples.group_by("arm")}
    rows = [
        {
            "arm": arm,
            LESS: other,
            "num_seeds": len(seeds[arm] & seeds[other]),
            SAME: _same(*(examples.filter(arm=name) for name in (arm, other))),
            **of_traits(*(questions.filter(arm=name).drop("arm") for name in (arm, other))),
            **of_losses(*(losses.filter(arm=name) for name in (arm, other))),
        }
        for arm, other in experiment.compared
        if {arm, other} <= trained
    ]
    numbers = (SAME, *DIFFERENCES, *map(width, DIFFERENCES))
    return pl.DataFrame(
        rows, schema={"arm": pl.String, LESS: pl.String, "num_seeds": pl.Int64, **dict.fromkeys(numbers, pl.Float64)}
    )


def width(name: str) -> str:
    """The column of how far an interval goes to either side of a difference."""
    return f"{name}_width"


def _examples(warehouse: Warehouse, recipe: Recipe, stages: pl.DataFrame) -> pl.DataFrame:
    """(arm, seed, example): the responses and continuations of all stages of each cell, each once."""
    used = stages.filter(pl.col("stage") > 0).select("arm", "seed", "dataset", "policy")
    query = """SELECT dataset, policy, coalesce(response_id, continuation_id) AS example FROM sft_examples
        WHERE recipe = $recipe AND list_contains($policies, policy)"""
    found = warehouse.read(query, {"recipe": recipe.name, "policies": used["policy"].unique().to_list()})
    return used.join(found, on=["dataset", "policy"]).select("arm", "seed", "example").unique()


def _same(own: pl.DataFrame, other: pl.DataFrame) -> float | None:
    """The share of `own` that `other` has, of the seeds of both. own, other: seed, example."""
    of_both = own.join(other, on="seed", how="semi")
    return of_both.join(other, on=["seed", "example"], how="semi").height / of_both.height if of_both.height else None


def of_traits(own: pl.DataFrame, other: pl.DataFrame) -> dict[str, float | None]:
    """Difference and width of each trait. own, other: prompt_id, and of each trait its sum and `count_column`."""
    both = own.join(other, on="prompt_id", how="full", coalesce=True, suffix=_OTHER)
    renamed = {f"{count_column(name)}{_OTHER}": count_column(f"{name}{_OTHER}") for name in ERRORS}
    both = both.rename(renamed).with_columns(pl.exclude("prompt_id").fill_null(0))
    num = both.select(num_clusters(name, f"{name}{_OTHER}") for name in ERRORS).row(0)
    quantiles = {name: interval_quantile(max(1, number - 1)) for name, number in zip(ERRORS, num, strict=True)}
    found = both.select(
        *(_rounded(mean_of(name) - mean_of(f"{name}{_OTHER}")).alias(name) for name in ERRORS),
        *((quantiles[name] * clustered_error(name, f"{name}{_OTHER}")).alias(width(name)) for name in ERRORS),
    )
    return found.row(0, named=True)


def _rounded(difference: pl.Expr) -> pl.Expr:
    """Without the last digits, in which the order of a sum shows: what two arms share differs by 0, not by -0."""
    return difference.round(12) + 0.0


def of_losses(own: pl.DataFrame, other: pl.DataFrame) -> dict[str, float | None]:
    """Difference and width of the losses, paired by seed; the width needs two. own, other: seed, loss."""
    paired = own.join(other, on="seed", suffix=_OTHER)
    differences = (paired["loss"] - paired[f"loss{_OTHER}"]).to_numpy()
    num = len(differences)
    error = float(differences.std(ddof=1)) / np.sqrt(num) if num > 1 else None
    return {
        LOSS: float(differences.mean()) if num else None,
        width(LOSS): interval_quantile(num - 1) * error if error else None,
    }
