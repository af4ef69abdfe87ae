"""In which ways the texts that arms are trained on solve a question, and in which ways their students then do.

An experiment declares its ways as regular expressions. A choice of responses can shift what is shown from one way to
another, so that an arm may win or lose by the way alone: `at_baseline` says how far it would.
"""

import polars as pl

from dasd_assets.records.markdown import Cell
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import ANSWERED, ARM, BY_WAYS, OTHER_WAY, SHOWN, Experiment
from dasd_resources.storage.warehouse import Warehouse

FAILED = "failed"  # the way of a request that failed, in no table


def ways_shown(warehouse: Warehouse, recipe: Recipe, experiment: Experiment, stages: pl.DataFrame) -> pl.DataFrame:
    """(arm, way, number): how many of the examples of an arm go each way, in all its stages and seeds.

    Of a continuation, the student's part and the teacher's together. stages: of `cells.stage_rows`.
    """
    used = stages.filter(pl.col("stage") > 0).select(ARM, "dataset", "policy")
    query = f"""WITH examples AS (SELECT dataset, policy, response_id, continuation_id FROM sft_examples
            WHERE recipe = $recipe AND list_contains($policies, policy)),
        texts AS (SELECT dataset, policy, text FROM examples JOIN responses USING (response_id)
            UNION ALL SELECT dataset, policy, text FROM examples JOIN teacher_continuations USING (continuation_id))
        SELECT dataset, policy, {_way(experiment, "text")} AS way, count(*) AS number
        FROM texts GROUP BY ALL ORDER BY ALL"""
    params = {"recipe": recipe.name, "policies": used["policy"].unique().to_list(), **_expressions(experiment)}
    found = used.join(warehouse.read(query, params), on=["dataset", "policy"], maintain_order="left")
    return found.group_by(ARM, "way", maintain_order=True).agg(pl.col("number").sum())


def ways_answered(warehouse: Warehouse, experiment: Experiment, answers: pl.DataFrame) -> pl.DataFrame:
    """(arm, way, number, right): how many of an arm's answers go each way, and the share of these that is right.

    answers: of `cells.answers`, those of one benchmark and temperature.
    """
    query = f"""SELECT evaluation_id, {_way(experiment, "response_text")} AS way FROM evaluations
        WHERE evaluation_id IN (SELECT unnest($ids::VARCHAR[]))"""
    ids = answers["evaluation_id"].drop_nulls().unique().to_list()
    found = warehouse.read(query, {"ids": ids, **_expressions(experiment)})
    given = answers.join(found, on="evaluation_id", how="left").with_columns(pl.col("way").fill_null(FAILED))
    return given.group_by(ARM, "way").agg(number=pl.len().cast(pl.Int64), right=pl.col("correct").mean())


def _way(experiment: Experiment, column: str) -> str:
    """The first way whose expression is found in a column's text, in SQL."""
    cases = [f"WHEN regexp_matches({column}, $way_{i}) THEN $name_{i}" for i in range(len(experiment.ways))]
    return f"CASE {' '.join(cases)} ELSE '{OTHER_WAY}' END"


def _expressions(experiment: Experiment) -> dict[str, str]:
    numbered = list(enumerate(experiment.ways.items()))
    return {f"name_{i}": name for i, (name, _) in numbered} | {f"way_{i}": text for i, (_, text) in numbered}


def ways_columns(experiment: Experiment) -> tuple[str, ...]:
    """Of `ways_rows`."""
    return (ARM, *experiment.ways, OTHER_WAY, BY_WAYS, SHOWN, ANSWERED)


def ways_rows(experiment: Experiment, shown: pl.DataFrame, answered: pl.DataFrame) -> list[dict[str, Cell | None]]:
    """A row per arm that has answered: per way `shown · answered · right`, in %, and how far the ways alone move it.

    shown, answered: of `ways_shown` and `ways_answered`.
    """
    rows = list[dict[str, Cell | None]]()
    for arm in experiment.arms:
        learned, given = (_of_arm(counts, arm) for counts in (shown, answered))
        if given:
            num_shown = sum(number for number, *_ in learned.values())
            num_given = sum(number for way, (number, *_) in given.items() if way != FAILED)
            cells: dict[str, Cell | None] = {
                way: _cell(
                    learned.get(way, (0,))[0] / num_shown if num_shown else None,
                    given.get(way, (0,))[0] / num_given if num_given else None,
                    given[way][1] if way in given else None,
                )
                for way in (*experiment.ways, OTHER_WAY)
            }
            shift = None if arm == experiment.baseline else at_baseline(answered, arm, experiment.baseline)
            moved = None if shift is None else f"{100 * shift:+.1f}"
            rows.append({ARM: arm, **cells, BY_WAYS: moved, SHOWN: f"{num_shown:,}", ANSWERED: f"{num_given:,}"})
    return rows


def _of_arm(counts: pl.DataFrame, arm: str) -> dict[str, tuple[float, ...]]:
    """Way -> the other columns of its row, in order."""
    return {way: tuple(row) for way, *row in counts.filter(pl.col(ARM) == arm).drop(ARM).iter_rows()}


def at_baseline(answered: pl.DataFrame, arm: str, baseline: str) -> float | None:
    """The arm's accuracy less the baseline's, were it as right in each way as the baseline is: direct standardisation.

    In a way that the baseline never goes the arm is as right as it is. None where either has no answers.
    answered: of `ways_answered`.
    """
    own, other = (answered.filter(pl.col(ARM) == name) for name in (arm, baseline))
    if own.is_empty() or other.is_empty():
        return None
    both = own.join(other, on="way", how="left", suffix="_of_baseline")
    expected = (pl.col("number") * pl.coalesce("right_of_baseline", "right")).sum() / pl.col("number").sum()
    accuracy = (pl.col("number") * pl.col("right")).sum() / pl.col("number").sum()
    return float(both.select(expected).item()) - float(other.select(accuracy).item())


def _cell(*shares: float | None) -> str:
    return " · ".join("–" if share is None else f"{100 * share:.0f}" for share in shares)
