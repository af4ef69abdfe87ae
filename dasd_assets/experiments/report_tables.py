"""Tables of an experiment beside its result: by domain and difficulty, of what arms were trained on, by ways.

A page explains them, the web UI shows them.
"""

from collections.abc import Iterator

import polars as pl

from dasd_assets.experiments.by_difficulty import difficulty_tables, question_groups
from dasd_assets.experiments.dataset_differences import DIFFERENCES, LESS, LOSS, SAME, dataset_differences, width
from dasd_assets.experiments.dataset_traits import ERRORS, TRAITS, dataset_traits, traits_by_question
from dasd_assets.experiments.result_table import ShownTable, of_models, setting_name
from dasd_assets.experiments.ways import ways_answered, ways_columns, ways_rows, ways_shown
from dasd_assets.records.wording import with_error, with_interval
from dasd_assets.rules.statistics.comparison import SETTING
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.storage.warehouse import Warehouse

_FORMATS = {
    "examples": ",.0f",
    "continuations": ",.0f",
    "tokens": ".1f",
    "with_loss": ".1%",
    "sentences": ".2f",
    "right": ".1%",
    "sound": ".1%",
    "teacher_share": ".3f",
    "mean_difference": "+.4f",
    "probability": ".3f",
    LOSS: ".3f",
}


def by_difficulty(
    warehouse: Warehouse, experiment: Experiment, stages: pl.DataFrame, found: pl.DataFrame
) -> dict[str, dict[str, ShownTable]]:
    """Benchmark and temperature -> `difficulty_tables`; without those whose questions are of one group."""
    groups, tables = question_groups(warehouse, found), dict[str, dict[str, ShownTable]]()
    for setting, benchmark, answered in _settings(found):
        of_benchmark = groups.filter(benchmark=benchmark)
        if of_benchmark["group"].n_unique() > 1:
            tables[setting] = difficulty_tables(experiment, answered, stages, of_benchmark)
    return tables


def by_way(
    warehouse: Warehouse, recipe: Recipe, experiment: Experiment, stages: pl.DataFrame, found: pl.DataFrame
) -> dict[str, ShownTable]:
    """Benchmark and temperature -> the ways that the experiment declares; none where it declares none."""
    if not experiment.ways:
        return {}
    shown, columns = ways_shown(warehouse, recipe, experiment, stages), ways_columns(experiment)
    return {
        setting: ShownTable(columns, ways_rows(experiment, shown, ways_answered(warehouse, experiment, answered)))
        for setting, _, answered in _settings(of_models(found, experiment))
    }


def of_training(
    warehouse: Warehouse, recipe: Recipe, experiment: Experiment, stages: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`dataset_traits` of what arms are trained on, and `dataset_differences` of those that are compared."""
    by_question = traits_by_question(warehouse, recipe, stages)
    traits = dataset_traits(warehouse, recipe, stages, by_question)
    differences = dataset_differences(warehouse, recipe, experiment, stages, by_question)
    return traits, differences


def trait_table(traits: pl.DataFrame) -> ShownTable:
    """The traits of the stages' examples. traits: of `dataset_traits`."""
    columns = ("arm", "stage", "dataset", *(name.replace("_", " ") for name in TRAITS))
    rows = [
        {
            name.replace("_", " "): _shown(name, value, row.get(ERRORS.get(name, "")))
            for name, value in row.items()
            if name not in ERRORS.values()
        }
        for row in traits.iter_rows(named=True)
    ]
    return ShownTable(columns, rows)


def difference_table(differences: pl.DataFrame) -> ShownTable:
    """How arms differ in what they were trained on; no row where no two were. differences: of `dataset_differences`."""
    columns = ("arm", LESS, SAME, *(name.replace("_", " ") for name in DIFFERENCES))
    rows = [
        {
            "arm": row["arm"],
            LESS: row[LESS],
            SAME: None if row[SAME] is None else f"{row[SAME]:.1%}",
            **{name.replace("_", " "): _change(name, row[name], row[width(name)]) for name in DIFFERENCES},
        }
        for row in differences.iter_rows(named=True)
    ]
    return ShownTable(columns, rows)


def _settings(found: pl.DataFrame) -> Iterator[tuple[str, str, pl.DataFrame]]:
    """Name, benchmark and answers of each benchmark and temperature."""
    for setting, part in found.sort(SETTING, maintain_order=True).group_by(SETTING, maintain_order=True):
        yield setting_name(*setting), str(setting[0]), part


def _shown(name: str, value: str | float | None, error: float | None) -> str | None:
    """`0.339 ± 0.005`, or without an error, where there is none."""
    if value is None:
        return None
    if isinstance(value, str):
        return value
    return with_error(value, error or None, _FORMATS.get(name, ""))


def _change(name: str, value: float | None, width: float | None) -> str | None:
    """`+0.194 [+0.181, +0.207]`, or without an interval, where there is none."""
    if value is None:
        return None
    low, high = (None if width is None else value + side * width for side in (-1, 1))
    return with_interval(value, low, high, "+" + _FORMATS[name].removeprefix("+"))
