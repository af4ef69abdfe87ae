"""Accuracies as a table and as bars."""

from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from dasd_assets.records.markdown import table
from dasd_assets.records.plots import labelled_axes, with_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def accuracy_bars(table: pl.DataFrame) -> "Figure":
    """Accuracy with one standard error per checkpoint, one group of bars per benchmark and temperature."""
    figure, axes = labelled_axes("", "accuracy")
    groups = table.partition_by("benchmark", "temperature", maintain_order=True)
    for number, group in enumerate(groups):
        position = np.arange(group.height) + number * 0.8 / len(groups)
        label = f"{group['benchmark'][0]}, T={group['temperature'][0]:g}"
        errors = group["standard_error"].fill_null(0)
        axes.bar(position, group["accuracy"], 0.75 / len(groups), yerr=errors, capsize=2, label=label)
        axes.set_xticks(np.arange(group.height), list(group["checkpoint"]), fontsize=8)
    axes.set_ylim(0, 1.15)
    return with_legend(figure, axes, columns=2)


def accuracy_table(scores: pl.DataFrame) -> dg.TableMetadataValue:
    """A row per checkpoint, a column per benchmark and temperature: accuracy ± its standard error in %."""
    columns, rows = ["checkpoint"], dict[str, dict[str, str | None]]()
    for row in scores.to_dicts():
        column = f"{row['benchmark']}, T={row['temperature']:g}"
        columns += [] if column in columns else [column]
        accuracy = f"{row['accuracy']:.1%} ± {row['standard_error'] or 0:.1%}"
        rows.setdefault(row["checkpoint"], {"checkpoint": row["checkpoint"]})[column] = accuracy
    return table(columns, [dict.fromkeys(columns) | row for row in rows.values()])
