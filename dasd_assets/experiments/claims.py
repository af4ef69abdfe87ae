"""What a grid claims, held against its comparisons: a verdict is computed, nobody writes it.

The differences between arms, in accuracy and in what they were trained on -> rows for the page, the list of results,
the web UI and the terminal.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from dasd_assets.experiments.cells import current
from dasd_assets.experiments.dataset_differences import LESS, dataset_differences, width
from dasd_assets.experiments.dataset_traits import traits_by_question
from dasd_assets.experiments.result_table import Results, Shown, ShownTable, markdown_table, setting_name
from dasd_assets.records.wording import with_interval
from dasd_assets.rules.statistics.comparison import SETTING
from dasd_assets.rules.statistics.holm import SIGNIFICANT
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.claim import Pair
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.storage.warehouse import Row, Warehouse

CLAIMED = ("claim", "verdict", "comparisons")
HOLDS, FAILS, OPEN = "holds", "does not hold", "open"
YES, OTHER_WAY, UNSURE = "yes", "no: the other way", "not told apart"
NOT_THERE, NO_INTERVAL, ONE_SEED = "not there yet", "no interval", "one seed"


class Difference(NamedTuple):
    """The first arm of a pair less the second. is_sure: that it is not zero; unsure: what is said where it is not."""

    value: float
    interval: tuple[float, float] | None
    is_sure: bool
    unsure: str
    form: str

    def turned(self) -> "Difference":
        """The second less the first."""
        interval = None if self.interval is None else (0 - self.interval[1], 0 - self.interval[0])
        return self._replace(value=0 - self.value, interval=interval)

    @property
    def says(self) -> str:
        """Whether the first is above the second."""
        if not self.is_sure:
            return self.unsure
        return YES if self.value > 0 else OTHER_WAY

    def __str__(self) -> str:
        low, high = self.interval or (None, None)
        return with_interval(self.value, low, high, self.form)


class Verdict(NamedTuple):
    """What the comparisons of a claim say. setting: benchmark and temperature, where the experiment asks at several.

    differences: of each pair; None where there is none yet.
    """

    claim: str
    setting: str
    differences: Mapping[Pair, Difference | None]

    @property
    def said(self) -> dict[str, str]:
        """`low_high less low` -> what that comparison says."""
        found = {" less ".join(pair): one for pair, one in self.differences.items()}
        return {name: NOT_THERE if one is None else one.says for name, one in found.items()}

    @property
    def whole(self) -> str:
        """Of all its comparisons: it holds where each says yes, and does not where one is the other way."""
        said = set(self.said.values())
        if OTHER_WAY in said:
            return FAILS
        return HOLDS if said == {YES} else OPEN

    @property
    def text(self) -> str:
        """The same with its setting."""
        return f"{self.setting}: {self.whole}" if self.setting else self.whole

    @property
    def figures(self) -> list[str | None]:
        """`-13.6 [-15.7, -11.7]`, of each."""
        return [None if one is None else str(one) for one in self.differences.values()]

    @property
    def comparisons(self) -> list[str]:
        """`low_high less low -13.6 [-15.7, -11.7] (no: the other way)`, of each."""
        shown = zip(self.said.items(), self.figures, strict=True)
        return [f"{name} {figure} ({said})" if figure else f"{name} ({said})" for (name, said), figure in shown]


def verdicts(
    warehouse: Warehouse, recipe: Recipe, experiment: Experiment, results: Results, trained: pl.DataFrame | None = None
) -> list[Verdict]:
    """The verdict on each claim, in the experiment's order; one of accuracy at each benchmark and temperature.

    trained: of `dataset_differences`; read if a claim needs it and it is not given.
    """
    of_training = any(claim.of != "accuracy" for claim in experiment.claims)
    if trained is not None or not of_training or results.answers.is_empty():
        return judged(experiment, results.compared, trained)
    stages = current(results.stages, results.outdated)
    by_question = traits_by_question(warehouse, recipe, stages)
    trained = dataset_differences(warehouse, recipe, experiment, stages, by_question)
    return judged(experiment, results.compared, trained)


def judged(experiment: Experiment, compared: pl.DataFrame, trained: pl.DataFrame | None) -> list[Verdict]:
    """The verdicts by these differences. compared: of `compared_arms`; trained: of `dataset_differences`, if any."""
    settings = {
        setting_name(*setting): {(row["arm"], row["baseline"]): _of_accuracy(row) for row in part.to_dicts()}
        for setting, part in compared.group_by(SETTING, maintain_order=True)
    }
    rows = [] if trained is None else trained.to_dicts()
    found = list[Verdict]()
    for claim in experiment.claims:
        by_setting = settings or {"": {}}
        if claim.of != "accuracy":
            of_pairs = ((row["arm"], row[LESS], _of_training(row, claim.of)) for row in rows)
            by_setting = {"": {(arm, less): one for arm, less, one in of_pairs if one is not None}}
        for setting, known in by_setting.items():
            differences = {pair: _either_way(pair, known) for pair in claim.above}
            named = setting if len(by_setting) > 1 else ""
            found.append(Verdict(" ".join(claim.claim.split()), named, differences))
    return found


def _either_way(pair: Pair, known: Mapping[Pair, Difference]) -> Difference | None:
    turned = known.get((pair[1], pair[0]))
    return known.get(pair) or (None if turned is None else turned.turned())


def _of_accuracy(row: Row) -> Difference:
    """In points of %. What is of one seed says nothing of others trained alike, however small its p is."""
    value, form = 100 * row["difference"], "+.1f"
    if row["low"] is None:
        return Difference(value, None, False, NO_INTERVAL, form)
    interval = (100 * row["low"], 100 * row["high"])
    if row["num_seeds"] == 1:
        return Difference(value, interval, False, ONE_SEED, form)
    unsure = f"{UNSURE}; {100 * row['minimum_detectable_effect']:.1f} could have been seen"
    return Difference(value, interval, row["p_holm"] < SIGNIFICANT, unsure, form)


def _of_training(row: Row, of: str) -> Difference | None:
    value, half = row[of], row[width(of)]
    if value is None:
        return None
    if half is None:
        return Difference(value, None, False, NO_INTERVAL, "+.3f")
    interval = (value - half, value + half)
    if row["num_seeds"] < 2:
        return Difference(value, interval, False, ONE_SEED, "+.3f")
    return Difference(value, interval, abs(value) > half, UNSURE, "+.3f")


def claim_rows(found: Sequence[Verdict]) -> list[Shown]:
    """Rows of CLAIMED, a row per verdict."""
    return [dict(zip(CLAIMED, (one.claim, one.text, "; ".join(one.comparisons)), strict=True)) for one in found]


def claims_section(found: Sequence[Verdict]) -> list[str]:
    """What is claimed, as parts of a page; none where the experiment declares no claim."""
    return ["## What is claimed", markdown_table(CLAIMED, claim_rows(found)), LEGEND] if found else []


def claims_table(found: Sequence[Verdict]) -> ShownTable:
    """The same, a row per comparison: in the web UI a cell is cut where it is long."""
    rows = [
        {"claim": one.claim, "verdict": one.text, "comparison": name, "difference": shown, "says": said}
        for one in found
        for (name, said), shown in zip(one.said.items(), one.figures, strict=True)
    ]
    return ShownTable(("claim", "verdict", "comparison", "difference", "says"), rows)


LEGEND = f"""A claim is declared in the grid's file, its verdict computed. It names pairs of arms: of each the first is
claimed to be above the second. A comparison says {YES}, or {OTHER_WAY}, where its p, corrected for all differences of
the experiment, is below {SIGNIFICANT}; else the two are {UNSURE}, and beside it stands the true difference that could
have been seen. Training loss and probability have no p: there the 95 % interval decides, by leaving zero out, and
nothing is corrected ([how they are computed](../statistics.md#what-arms-were-trained-on)). One seed decides nothing,
nor does a difference without an interval. A claim {HOLDS} where each comparison says {YES}, {FAILS} where one is the
other way, and is {OPEN} else. Differences of accuracies are in points of %, all with 95 % intervals."""
