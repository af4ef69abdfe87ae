"""In which ways the responses that arms are shown solve a question, and in which ways their students then do.

An experiment declares its ways as regular expressions. A choice of responses can shift what is shown from one way to
another, so that an arm may win or lose by the way alone: `at_baseline` says how far it would.
"""

import polars as pl

from dasd_assets.records.markdown import Cell
from dasd_assets.rules.asset_names import MIXED
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import ARM, BY_WAYS, OTHER_WAY, Experiment
from dasd_resources.storage.warehouse import Warehouse


def ways_shown(warehouse: Warehouse, recipe: Recipe, experiment: Experiment, stages: pl.DataFrame) -> pl.DataFrame:
    """(arm, way, shown): the share of each way in the teacher's responses of all stages and seeds of an arm.

    The mixed-policy dataset is left out. stages: of `cells.stage_rows`.
    """
    used = stages.filter((pl.col("stage") > 0) & (pl.col("dataset") != MIXED))
    parts = used.select(ARM, "policy", part=pl.col("dataset").str.split("+")).explode("part")
    query = f"""SELECT s.dataset AS part, s.policy, {_way(experiment, "text")} AS way, count(*) AS number
        FROM selected_responses s JOIN responses USING (response_id)
        WHERE s.recipe = $recipe AND list_contains($policies, s.policy) GROUP BY ALL ORDER BY ALL"""
    params = {"recipe": recipe.name, "policies": parts["policy"].unique().to_list(), **_expressions(experiment)}
    found = parts.join(warehouse.read(query, params), on=["part", "policy"], maintain_order="left")
    counts = found.group_by(ARM, "way", maintain_order=True).agg(pl.col("number").sum())
    return counts.select(ARM, "way", shown=pl.col("number") / pl.col("number").sum().over(ARM))


def ways_answered(
    warehouse: Warehouse, experiment: Experiment, stages: pl.DataFrame, answers: pl.DataFrame
) -> pl.DataFrame:
    """(arm, way, answered, right): the share of each way in an arm's answers, and how many of these are right.

    A request that failed is of no way. stages: of `cells.stage_rows`; answers: of `cells.answers`.
    """
    query = f"""SELECT evaluation_id, {_way(experiment, "response_text")} AS way FROM evaluations
        WHERE list_contains($ids, checkpoint_id)"""
    ids = stages["checkpoint_id"].unique().to_list()
    found = warehouse.read(query, {"ids": ids, **_expressions(experiment)})
    given = answers.join(found, on="evaluation_id", how="left").with_columns(pl.col("way").fill_null(OTHER_WAY))
    counts = given.group_by(ARM, "way").agg(number=pl.len(), right=pl.col("correct").mean())
    return counts.select(ARM, "way", "right", answered=pl.col("number") / pl.col("number").sum().over(ARM))


def _way(experiment: Experiment, column: str) -> str:
    """The first way whose expression is found in a column's text, in SQL."""
    cases = [f"WHEN regexp_matches({column}, $way_{i}) THEN $name_{i}" for i in range(len(experiment.ways))]
    return f"CASE {' '.join(cases)} ELSE '{OTHER_WAY}' END"


def _expressions(experiment: Experiment) -> dict[str, str]:
    numbered = list(enumerate(experiment.ways.items()))
    return {f"name_{i}": name for i, (name, _) in numbered} | {f"way_{i}": text for i, (_, text) in numbered}


def ways_columns(experiment: Experiment) -> tuple[str, ...]:
    """Of `ways_rows`."""
    return (ARM, *experiment.ways, OTHER_WAY, BY_WAYS)


def ways_rows(experiment: Experiment, shown: pl.DataFrame, answered: pl.DataFrame) -> list[dict[str, Cell | None]]:
    """A row per arm that has answered: per way `shown · answered · right`, in %, and how far the ways alone move it.

    shown, answered: of `ways_shown` and `ways_answered`.
    """
    ways = pl.DataFrame({"way": [*experiment.ways, OTHER_WAY]})
    every = pl.DataFrame({ARM: list(experiment.arms)}).join(ways, how="cross", maintain_order="left_right")
    for found in (shown, answered):
        every = every.join(found, on=[ARM, "way"], how="left", maintain_order="left")
    known = [
        pl.when(pl.col(name).is_not_null().any().over(ARM)).then(pl.col(name).fill_null(0)).alias(name)
        for name in ("shown", "answered")
    ]
    given = every.with_columns(known).filter(pl.col("answered").is_not_null())
    rows = list[dict[str, Cell | None]]()
    for (arm,), part in given.group_by(ARM, maintain_order=True):
        shift = None if arm == experiment.baseline else at_baseline(answered, str(arm), experiment.baseline)
        cells = {row["way"]: _cell(row["shown"], row["answered"], row["right"]) for row in part.to_dicts()}
        rows.append({ARM: str(arm), **cells, BY_WAYS: None if shift is None else f"{100 * shift:+.1f}"})
    return rows


def at_baseline(answered: pl.DataFrame, arm: str, baseline: str) -> float | None:
    """The arm's accuracy less the baseline's, were it as right in each way as the baseline is.

    None where the baseline has no answers, or the arm has some in a way that the baseline never goes. answered: of
    `ways_answered`.
    """
    own, other = (answered.filter(pl.col(ARM) == name) for name in (arm, baseline))
    shift = own.join(other, on="way", how="full", suffix="_of_baseline", coalesce=True)
    weights = pl.col("answered").fill_null(0) - pl.col("answered_of_baseline").fill_null(0)
    moved = shift.select(weights * pl.col("right_of_baseline")).to_series()
    return None if other.is_empty() or moved.null_count() else float(moved.sum())


def _cell(*shares: float | None) -> str:
    return " · ".join("–" if share is None else f"{100 * share:.0f}" for share in shares)
