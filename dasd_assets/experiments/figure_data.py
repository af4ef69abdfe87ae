"""What the figures of an experiment are drawn from, besides its answers: losses, probabilities, rollouts."""

from pathlib import Path

import numpy as np
import polars as pl

from dasd_assets.records.current_checkpoint import current_checkpoint
from dasd_assets.rules.asset_names import MIXED
from dasd_assets.rules.rollouts import current_rollouts
from dasd_resources.home import CHECKPOINT_FOLDER
from dasd_resources.recipe import Recipe
from dasd_resources.sft.checkpoint import Progress, Trained
from dasd_resources.storage.tables import measured
from dasd_resources.storage.warehouse import Warehouse

NUM_POINTS = 20  # of a stage's curve, each a mean: single ones go up and down with the lengths of the rows
Point = tuple[int, float]  # step, loss in nats per token


def losses(warehouse: Warehouse, stages: pl.DataFrame, answers: pl.DataFrame) -> pl.DataFrame:
    """(arm, seed, loss, accuracy) of every cell whose checkpoints are here; loss: of `mean_losses`.

    stages: arm, seed, checkpoint_id, num_steps, in order. answers: arm, seed, correct.
    """
    accuracy = answers.group_by("arm", "seed").agg(accuracy=pl.col("correct").mean())
    return mean_losses(warehouse, stages).join(accuracy, on=["arm", "seed"], maintain_order="left")


def loss_curves(warehouse: Warehouse, stages: pl.DataFrame) -> dict[str, list[Point]]:
    """Arms -> the training loss over the steps of all their stages, under one seed (`of_one_seed`; Figure 3).

    Arms that are trained alike are one curve; those whose checkpoints are not in this home have none. stages: arm,
    seed, checkpoint_id, num_steps, in order.
    """
    first = of_one_seed(stages.filter(pl.col("num_steps") > 0))
    chains: dict[tuple[Path, ...], list[str]] = {}
    for (arm,), part in first.group_by("arm", maintain_order=True):
        folders = tuple(Path(warehouse.home) / CHECKPOINT_FOLDER / name for name in part["checkpoint_id"])
        chains.setdefault(folders, []).append(str(arm))
    return {
        ", ".join(arms): _over_steps([Trained.load(path).losses for path in paths])
        for paths, arms in chains.items()
        if all(path.is_dir() for path in paths)
    }


def mean_losses(warehouse: Warehouse, stages: pl.DataFrame) -> pl.DataFrame:
    """(arm, seed, loss): the mean of the training loss over the steps of a cell's last stage (Figure 3 as a number).

    Cells whose checkpoints are not in this home are left out. stages: arm, seed, checkpoint_id, num_steps, in order.
    """
    last = stages.filter(pl.col("num_steps") > 0).group_by("arm", "seed", maintain_order=True).last()
    rows = [
        (arm, seed, float(np.mean([point.loss for point in Trained.load(folder).losses])))
        for arm, seed, checkpoint in last.select("arm", "seed", "checkpoint_id").iter_rows()
        if (folder := Path(warehouse.home) / CHECKPOINT_FOLDER / checkpoint).is_dir()
    ]
    return pl.DataFrame(rows, schema={"arm": pl.String, "seed": pl.Int64, "loss": pl.Float64}, orient="row")


def of_one_seed(stages: pl.DataFrame) -> pl.DataFrame:
    """The rows of the first seed that all of these arms have; where there is none, of each arm's own first.

    The arm's name then says which. stages: arm, seed, and more, in the experiment's order of arms and seeds.
    """
    arms_of_seed = stages.group_by("seed", maintain_order=True).agg(num_arms=pl.col("arm").n_unique())
    common = arms_of_seed.filter(pl.col("num_arms") == stages["arm"].n_unique())["seed"]
    if not common.is_empty():
        return stages.filter(pl.col("seed") == common[0])
    own = stages.filter(pl.col("seed") == pl.col("seed").first().over("arm"))
    return own.with_columns(arm=pl.format("{} (seed {})", "arm", "seed"))


def _over_steps(stages: list[list[Progress]]) -> list[Point]:
    """Means over a NUM_POINTS-th of each stage, whose steps go on from those of the stage before."""
    points, before = list[Point](), 0
    for losses in stages:
        for part in np.array_split(np.arange(len(losses)), min(NUM_POINTS, len(losses))):
            mean = float(np.mean([losses[place].loss for place in part]))
            points.append((before + losses[part[-1]].step, mean))
        before += losses[-1].num_steps
    return points


def probabilities(warehouse: Warehouse, recipe: Recipe, stages: pl.DataFrame) -> dict[str, list[float]]:
    """`dataset: arms` -> the probability of each response that was chosen for it, under one seed (Figure 10).

    Which seed: `of_one_seed`. The geometric mean over a response's tokens, under the teacher. Arms with the same
    dataset are one group. stages: arm, seed, dataset (`t060`, or several joined by +), policy.
    """
    arms: dict[tuple[str, str], list[str]] = {}
    first = of_one_seed(stages.filter(pl.col("dataset") != MIXED))
    for arm, dataset, policy in first.select("arm", "dataset", "policy").iter_rows():
        for part in dataset.split("+"):
            names = arms.setdefault((part, policy), [])
            names += [] if arm in names else [arm]
    query = f"""SELECT s.dataset, s.policy, exp(r.mean_logprob) AS prob
        FROM selected_responses s JOIN {measured("responses", "mean_logprob", "response_id")} r USING (response_id)
        WHERE s.recipe = $recipe AND list_contains($policies, s.policy) ORDER BY ALL"""
    found = warehouse.read(query, {"recipe": recipe.name, "policies": sorted({policy for _, policy in arms})})
    chosen = found.partition_by("dataset", "policy", as_dict=True)
    return {
        f"{key[0]}: {', '.join(names)}": chosen[key]["prob"].to_list()
        for key, names in sorted(arms.items())
        if key in chosen
    }


def rollouts(warehouse: Warehouse, recipe: Recipe, stages: pl.DataFrame) -> pl.DataFrame:
    """(reference_num_tokens, cut_off) of the rollouts from which the mixed-policy stage was made; none without one."""
    if MIXED in stages["dataset"]:
        student, distilled = (
            str(current_checkpoint(warehouse, recipe, name)["checkpoint_id"])
            for name in ("student", recipe.last_dataset)
        )
        return current_rollouts(warehouse, recipe, student, distilled).select("reference_num_tokens", "cut_off")
    return pl.DataFrame(schema={"reference_num_tokens": pl.Int32, "cut_off": pl.Boolean})
