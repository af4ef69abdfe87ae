"""Accuracies as a table and as bars."""

from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from dasd_assets.evaluation.metrics import Estimate
from dasd_assets.records.markdown import table
from dasd_assets.records.plots import labelled_axes, with_legend
from dasd_resources.storage.warehouse import Row

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_bars(table: pl.DataFrame) -> "Figure":
    """Accuracy with one standard error per checkpoint, one group of bars per benchmark and temperature."""
    figure, axes = labelled_axes("", "accuracy")
    names = table["checkpoint"].unique(maintain_order=True).to_list()
    groups = table.partition_by("benchmark", "temperature", maintain_order=True)
    for number, group in enumerate(groups):
        places = np.asarray([names.index(name) for name in group["checkpoint"]])  # one may lack a benchmark
        position = places + number * 0.8 / len(groups)
        label = f"{group['benchmark'][0]}, T={group['temperature'][0]:g}"
        errors = np.asarray(group["standard_error"].fill_null(float("nan")), dtype=np.float64)  # NaN: none is drawn
        heights = group["accuracy"].fill_null(0)  # of an incomplete evaluation no bar is seen
        axes.bar(position, heights, 0.75 / len(groups), yerr=errors, capsize=2, label=label)
    middle = np.arange(len(names)) + 0.4 * (1 - 1 / max(len(groups), 1))  # of a checkpoint's bars
    axes.set_xticks(middle, names, fontsize=8)
    axes.set_ylim(0, 1.15)
    return with_legend(figure, axes, columns=2)


def accuracy_table(scores: pl.DataFrame) -> dg.TableMetadataValue:
    """A row per checkpoint, a column per benchmark and temperature: accuracy ± its standard error, and what failed."""
    columns, rows = ["checkpoint"], dict[str, dict[str, str | None]]()
    for row in scores.to_dicts():
        column = f"{row['benchmark']}, T={row['temperature']:g}"
        columns += [] if column in columns else [column]
        rows.setdefault(row["checkpoint"], {"checkpoint": row["checkpoint"]})[column] = shown_accuracy(row)
    return table(columns, [dict.fromkeys(columns) | row for row in rows.values()])


def shown_accuracy(row: Row) -> str:
    """`61.3% ± 2.1% (3 failed)`, `100.0% (one question)`, `incomplete: 37 of 64`. row: of `accuracy`."""
    settled = row["num_answers"] + row["num_failed"]
    if row["num_missing"]:
        return f"incomplete: {settled:,} of {settled + row['num_missing']:,}"
    failed = f" ({row['num_failed']:,} failed)" if row["num_failed"] else ""
    return f"{Estimate(row['accuracy'], row['standard_error'], row['num_questions'])}{failed}"
