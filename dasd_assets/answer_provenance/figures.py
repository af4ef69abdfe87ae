"""Pictures of provenance (Figures 5 and 6): types by stage and position, right minus wrong, thresholds, one answer."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from dasd_assets.answer_provenance.findings import Findings
from dasd_assets.records.plots import labelled_axes, panels, with_legend
from dasd_assets.rules.answer_types import FOUR_TYPES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"teacher": "#2a7f62", "student": "#c8553d", "shared": "#9aa0a6", "boosted": "#5b6fb5"}
CURVES = {"teacher_prob": "teacher", "student_prob": "undistilled student", "distilled_prob": "checkpoint"}


def pictures(found: Findings) -> dict[str, "Figure"]:
    """Name -> figure."""
    return {
        "types_by_stage": types_by_stage(found.stages),
        "types_by_position": types_by_position(found.positions, found.newest),
        "right_minus_wrong": right_minus_wrong(found.pooled, found.within, found.newest),
        "right_minus_wrong_by_position": right_minus_wrong_by_position(found.differences, found.newest),
        "thresholds": thresholds(found.thresholds, found.divergence.threshold),
        "one_answer": one_answer(found.answer, found.newest),
    }


def types_by_stage(stages: pl.DataFrame) -> "Figure":
    """Share of each type in the own answers of each checkpoint, in the order of training. See `Findings.stages`."""
    figure, axes = labelled_axes("checkpoint", "share of the sentences of an answer")
    names = stages["checkpoint"].unique(maintain_order=True).to_list()
    for place, kind in enumerate(FOUR_TYPES):
        part = stages.filter(pl.col("type") == kind)
        at = np.arange(part.height) + 0.06 * (place - 1.5)
        _points(axes, at, part, "mean", kind, "-o")
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_ylim(0, 1)
    axes.set_title("own answers to held-out questions; intervals of 95 %, clustered by question", fontsize=8)
    return with_legend(figure, axes, columns=2)


def types_by_position(positions: pl.DataFrame, newest: str | None) -> "Figure":
    """Share of each type by relative position, in right and in wrong answers, all questions pooled (Figure 6)."""
    title = f"own answers of {newest}, all questions pooled: difficulty confounds right and wrong"
    figure, axes = panels(list(FOUR_TYPES), "share", title)
    for kind, each in zip(FOUR_TYPES, axes, strict=True):
        for correct, label, style in ((True, "right", "-"), (False, "wrong", "--")):
            part = positions.filter((pl.col("type") == kind) & (pl.col("correct") == correct)).sort("position")
            each.plot(part["position"], part["mean"], style, color=COLOURS[kind], marker="o", markersize=2, label=label)
            _band(each, part, kind)
        each.set_ylim(0, None)
    return with_legend(figure, axes[0])


def right_minus_wrong(pooled: pl.DataFrame, within: pl.DataFrame, newest: str | None) -> "Figure":
    """How much larger each type's share is in right answers, pooled over questions and within them."""
    figure, axes = labelled_axes("", "right minus wrong answers: share of sentences")
    for place, (table, label) in enumerate(((pooled, "pooled over questions"), (within, "within questions"))):
        part = table.filter(pl.col("checkpoint").eq_missing(newest)).sort("type")
        at = part["type"].to_physical().to_numpy() + 0.2 * (place - 0.5)
        _points(axes, at, part, "difference", None, "os"[place], "#9aa0a6" if place == 0 else "#202124", label)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(range(len(FOUR_TYPES)), FOUR_TYPES, fontsize=8)
    axes.set_title(f"own answers of {newest}; intervals of 95 %, clustered by question", fontsize=8)
    return with_legend(figure, axes)


def right_minus_wrong_by_position(differences: pl.DataFrame, newest: str | None) -> "Figure":
    """The same within questions, by relative position."""
    title = f"own answers of {newest}: right minus wrong answers to the same question"
    figure, axes = panels(list(FOUR_TYPES), "difference", title)
    for kind, each in zip(FOUR_TYPES, axes, strict=True):
        part = differences.filter(pl.col("type") == kind).sort("position")
        each.axhline(0, color="black", linewidth=0.6)
        each.plot(part["position"], part["difference"], color=COLOURS[kind], marker="o", markersize=2)
        _band(each, part, kind)
    return figure


def thresholds(table: pl.DataFrame, threshold: float) -> "Figure":
    """Right minus wrong within questions under other thresholds; the sources give none. See `sensitivity`."""
    figure, axes = labelled_axes("threshold", "right minus wrong within questions")
    for place, kind in enumerate(FOUR_TYPES):
        part = table.filter(pl.col("type") == kind).sort("threshold")
        _points(axes, part["threshold"].to_numpy() * (1 + 0.03 * (place - 1.5)), part, "difference", kind, "-o")
    axes.axhline(0, color="black", linewidth=0.6)
    axes.axvline(threshold, color="black", linewidth=0.6, linestyle="--", label="the recipe's")
    axes.set_xscale("log", base=2)
    found = table["threshold"].unique().sort().to_list()
    axes.set_xticks(found, [f"{value:g}" for value in found])
    return with_legend(figure, axes, columns=3)


def one_answer(answer: pl.DataFrame, newest: str | None) -> "Figure":
    """Each sentence's probability under three models, on its type's colour (Figure 5). See `Findings.answer`."""
    figure, axes = labelled_axes("sentence, from 1", "probability")
    places = (answer["sentence_index"] + 1).to_list()
    for place, kind in zip(places, answer["sentence_type"], strict=True):
        axes.axvspan(place - 0.5, place + 0.5, color=COLOURS.get(kind, "#ffffff"), alpha=0.25, linewidth=0)
    for (column, label), style in zip(CURVES.items(), ("-o", "--s", ":^"), strict=True):
        values = answer[column].cast(pl.Float64).to_numpy()
        axes.plot(places, values, style, color="#202124", markersize=3, linewidth=1, label=label)
    for kind in FOUR_TYPES:
        axes.fill_between([], [], color=COLOURS[kind], alpha=0.25, linewidth=0, label=f"{kind} sentence")
    axes.set_ylim(0, 1.6)
    axes.set_title(f"an answer of {newest} to a held-out question", fontsize=8)
    return with_legend(figure, axes, columns=3)


def _points(
    axes: "Axes",
    at: "np.ndarray",
    part: pl.DataFrame,
    column: str,
    kind: str | None,
    style: str,
    colour: str | None = None,
    label: str | None = None,
) -> None:
    """Values with their intervals; one whose interval is not known has no bar."""
    value = part[column].cast(pl.Float64)
    low, high = (value - part["low"]).fill_null(0), (part["high"] - value).fill_null(0)
    colour = COLOURS[kind] if colour is None and kind is not None else colour
    axes.errorbar(
        at,
        value.to_numpy(),
        np.stack([low, high]),
        fmt=style,
        color=colour,
        markersize=3,
        capsize=2,
        label=label or kind,
    )


def _band(axes: "Axes", part: pl.DataFrame, kind: str) -> None:
    known = part.drop_nulls(["low", "high"])
    axes.fill_between(known["position"], known["low"], known["high"], color=COLOURS[kind], alpha=0.15, linewidth=0)
