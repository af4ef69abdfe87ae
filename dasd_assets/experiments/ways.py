"""In which ways the texts that arms are trained on solve a question, and in which ways their students then do.

An experiment declares its ways as regular expressions. A choice of responses can shift what is shown from one way to
another, so that an arm may win or lose by the way alone: `by_ways_alone` says how far it would.
"""

import polars as pl

from dasd_assets.experiments.result_table import can_be_paired, percent, points
from dasd_assets.records.markdown import Cell
from dasd_assets.rules.statistics.comparison import Comparison, compare, mean_accuracy
from dasd_assets.rules.statistics.pairing import paired_differences
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import ANSWERED, ARM, BY_WAYS, FAILED_WAY, OTHER_WAY, SHOWN, Experiment
from dasd_resources.storage.warehouse import Warehouse

FEW = 10  # questions: of fewer, an accuracy has no error to be relied on


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
    """The answers with the `way` of each. answers: of `result_table.of_models`, of one benchmark and temperature."""
    query = f"""SELECT evaluation_id, {_way(experiment, "response_text")} AS way FROM evaluations
        WHERE evaluation_id IN (SELECT unnest($ids::VARCHAR[]))"""
    ids = answers["evaluation_id"].drop_nulls().unique().to_list()
    found = warehouse.read(query, {"ids": ids, **_expressions(experiment)})
    given = answers.join(found, on="evaluation_id", how="left", maintain_order="left")
    return given.with_columns(pl.col("way").fill_null(FAILED_WAY))


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
        given = answered.filter(pl.col(ARM) == arm)
        if given.is_empty():
            continue
        learned = dict(shown.filter(pl.col(ARM) == arm).select("way", "number").iter_rows())
        num_shown, was_given = sum(learned.values()), pl.col("way") != FAILED_WAY
        ways = {
            way: " · ".join(
                (
                    percent(learned.get(way, 0) / num_shown if num_shown else None, None, 0),
                    percent(*_share(given, pl.col("way") == way, was_given), 0),
                    percent(*_share(given, (pl.col("way") == way) & pl.col("correct"), pl.col("way") == way), 0),
                )
            )
            for way in (*experiment.ways, OTHER_WAY)
        }
        moved = None if arm == experiment.baseline else by_ways_alone(answered, arm, experiment.baseline)
        shift = None if moved is None else points(moved.difference, moved.low, moved.high)
        counts = {SHOWN: f"{num_shown:,}", ANSWERED: f"{given.filter(was_given).height:,}"}
        rows.append({ARM: arm, **ways, BY_WAYS: shift, **counts})
    return rows


def by_ways_alone(answered: pl.DataFrame, arm: str, baseline: str) -> Comparison | None:
    """The arm's accuracy less the baseline's, were it as right in each way as the baseline is: direct standardisation.

    In a way that the baseline goes on fewer than FEW questions, the arm is as right as it is. Its interval is that of
    any difference, of what each answer adds to it: an arm's answer the baseline's accuracy in its way; an answer of the
    baseline, by how much it moves that accuracy. None where they share no seed. answered: of `ways_answered`, as many
    to each question.
    """
    seeds = [set(answered.filter(pl.col(ARM) == name)["seed"]) for name in (arm, baseline)]
    if not can_be_paired(*seeds):
        return None
    common = set.intersection(*seeds) or set.union(*seeds)  # a model without a seed is held against every one
    pair = answered.filter(pl.col(ARM).is_in([arm, baseline]), pl.col("seed").is_in(list(common), nulls_equal=True))
    of_arm = pl.col(ARM) == arm
    own, others = (pl.col("way").filter(side).count().over("way") / side.sum() for side in (of_arm, ~of_arm))
    known = pl.col("question_id").filter(~of_arm).n_unique().over("way") >= FEW
    right = pl.when(known).then(pl.col("correct").filter(~of_arm).mean().over("way"))
    correct = pl.col("correct").cast(pl.Float64)
    expected = pl.coalesce(right, correct)
    added = pl.when(of_arm).then(expected).otherwise(correct - (correct - expected) * own / others)
    return compare(paired_differences(pair.with_columns(added=added), arm, baseline, value="added"))


def _share(answers: pl.DataFrame, hits: pl.Expr, among: pl.Expr) -> tuple[float | None, float | None]:
    """Of an arm's answers, how many of some are of a kind, and a standard error over seeds and questions."""
    num_hits, number = (int(answers.select(of.sum()).item()) for of in (hits, among))
    if not number:
        return None, None
    share = num_hits / number
    # The error of a ratio is that of the mean of what each answer adds to it.
    added = (hits.cast(pl.Float64) - share * among.cast(pl.Float64)) * len(answers) / number
    return share, mean_accuracy(answers.with_columns(correct=added)).standard_error
