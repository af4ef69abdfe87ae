"""Findings of the report in sentences: numbers with their intervals, and what they mean."""

from dataclasses import dataclass

import polars as pl

from dasd_assets.mixed_policy.cut_off_shares import Halves
from dasd_assets.report.findings import ReportData
from dasd_assets.rules.statistics.power import interval_quantile
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Row


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval; low, high: None where that is not known."""

    value: float
    low: float | None
    high: float | None

    def shown(self, sign: str = "") -> str:
        """`86.6 % [84.9, 88.3]`; sign: `+` for a difference."""
        found = f"{100 * self.value:{sign}.1f} {'points' if sign else '%'}"
        if self.low is None or self.high is None:
            return found
        return f"{found} [{100 * self.low:{sign}.1f}, {100 * self.high:{sign}.1f}]"


def accuracy_interval(row: Row) -> Interval | None:
    """Of a row of `ReportData.accuracies`, by Student's t over its questions; None where it is incomplete."""
    value, error = row["accuracy"], row["standard_error"]
    if value is None:
        return None
    if error is None:
        return Interval(value, None, None)
    reach = interval_quantile(row["num_questions"] - 1) * error
    return Interval(value, max(0.0, value - reach), min(1.0, value + reach))


def headline(data: ReportData) -> str:
    """What the student gained, in a sentence: by the last checkpoint that is compared, in its first setting."""
    if data.gains.is_empty():
        return "No trained model has been compared with the undistilled student yet."
    last = data.gains["arm"][-1]
    row = next(row for row in data.gains.to_dicts() if row["arm"] == last)
    gained = Interval(row["difference"], row["low"], row["high"])
    where = f"{row['benchmark']} at T = {row['temperature']:g}"
    return (
        f"The student answered {row['baseline_accuracy']:.1%} of {where} before and {row['accuracy']:.1%} after "
        f"{last}: {gained.shown('+')}, {verdict(gained)}."
    )


def verdict(change: Interval) -> str:
    """What the interval of a change says about its sign."""
    if change.low is None or change.high is None:
        return "of which it is not known how much is chance"
    if change.low > 0:
        return "a gain that chance does not explain"
    if change.high < 0:
        return "a loss that chance does not explain"
    return "which may be chance: the interval holds 0"


def cut_off_direction(rollouts: pl.DataFrame) -> str:
    """Whether longer references are cut off more often, as in the technical report, or the other way round.

    rollouts: reference_num_tokens, cut_off. One rollout per question.
    """
    if rollouts.height < 2:
        return "There are no rollouts yet."
    ordered = rollouts.sort("reference_num_tokens")
    halved = Halves.of(ordered["cut_off"].to_list())
    short, long = halved.short.value, halved.long.value
    halves = f"of the shorter half of the references {short:.1%} are cut off, of the longer half {long:.1%}"
    low, high = halved.interval
    if low <= 0 <= high:
        return f"Here length makes no clear difference: {halves}. The technical report found that the rate grows."
    if low > 0:
        return f"Here it grows too: {halves}."
    return (
        f"Here it falls, the other way than in the technical report: {halves}. One reason: a cap of a multiple of the "
        "reference's length leaves few tokens to spare where the reference is short, so an answer only a little longer "
        "is cut off. The technical report's references have thousands of tokens: there, reaching the cap means that "
        "the student has strayed."
    )


def sawtooth(recipe: Recipe) -> str:
    """Why the loss goes up and down within a stage, and starts anew with the next."""
    training = recipe.training
    stages = "A stage is a line of its own: it starts from the weights before it, with a fresh schedule, on other data."
    epochs = "Where an epoch begins, rows come again that were trained on, so the loss may step down there."
    if not training.group_by_length:
        return f"{stages} {epochs} Rows come in random order, so what is left of ups and downs is chance."
    if training.group_order == "descending":
        return (
            f"{stages} The sawtooth is the order of the rows, not a fault: each part of an epoch goes from its longest "
            "rows to its shortest (training.group_order: descending), and long ones have another loss than short ones. "
            f"So the loss rises and falls as often as there are parts. {epochs}"
        )
    return (
        f"{stages} The zigzag is the order of the rows, not a fault: the rows of a step are of like length "
        "(training.group_by_length), steps come in random order, and long rows have another loss than short ones; with "
        f"training.group_order: descending it would be a regular sawtooth. {epochs}"
    )
