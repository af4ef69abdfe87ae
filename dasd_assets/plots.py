"""The pictures people look at first, as in the report's Figures 3, 5, 6 and 7: plain values in, PNG bytes out."""

import base64
import io
from collections.abc import Mapping, Sequence

import dagster as dg
import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dasd_resources.checkpoint import Progress

TYPE_COLOURS = {"teacher": "#2a7f62", "student": "#c8553d", "close": "#9aa0a6", None: "#e3e3e3"}


def inline(png: bytes) -> dg.MarkdownMetadataValue:
    """A PNG as metadata that the web UI shows in place; keep it small, it lives in the event log."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


def loss_curve(losses: Mapping[str, Sequence[Progress]]) -> bytes:
    """Training loss against the step, one line per stage."""
    figure, axes = _figure("step", "loss (nats per token)")
    for name, points in losses.items():
        axes.plot([p.step for p in points], [p.loss for p in points], label=name, linewidth=1.2)
    return _png(figure, axes)


def probability_densities(probs: Mapping[str, Sequence[float]]) -> bytes:
    """Density of response probabilities, the geometric mean over tokens, one curve per group (Figure 3)."""
    figure, axes = _figure("response probability (geometric mean of its tokens')", "density")
    for name, values in probs.items():
        heights, edges = np.histogram(values, bins=40, range=(0.0, 1.0), density=len(values) > 0)
        axes.stairs(heights, edges, label=f"{name} (n={len(values):,})", fill=False)
    return _png(figure, axes)


def sentence_bars(sentences: pl.DataFrame) -> bytes:
    """Each sentence's probability under both models, coloured by its type (Figure 5).

    sentences: teacher_prob, student_prob, sentence_type, in order.
    """
    figure, axes = _figure("sentence", "probability")
    position = np.arange(sentences.height)
    colours = [TYPE_COLOURS[kind] for kind in sentences["sentence_type"]]
    axes.bar(position - 0.2, sentences["teacher_prob"].fill_null(0), 0.38, color=colours)
    axes.bar(position + 0.2, sentences["student_prob"].fill_null(0), 0.38, color=colours, alpha=0.45)
    for kind in ("teacher", "student", "close"):
        axes.bar([0], [0], color=TYPE_COLOURS[kind], label=f"{kind} sentence")
    axes.set_ylim(0, 1.2)
    axes.set_title("left bar: under the teacher, right and pale: under the student", fontsize=8)
    return _png(figure, axes, columns=3)


def teacher_share_by_position(shares: pl.DataFrame) -> bytes:
    """Share of teacher sentences at each relative position, in right and wrong responses (Figure 6).

    shares: position (0 to 1), correct, teacher_share.
    """
    figure, axes = _figure("position in the response", "share of teacher sentences")
    for correct, label in ((True, "correct"), (False, "incorrect")):
        part = shares.filter(pl.col("correct") == correct).sort("position")
        axes.plot(part["position"], part["teacher_share"], marker="o", markersize=3, label=label)
    return _png(figure, axes)


def cut_off_rates(lengths: Sequence[int], cut_off: Sequence[bool]) -> bytes:
    """Share of rollouts cut off against the length of their reference, in eight groups of equal size (Figure 7)."""
    figure, axes = _figure("tokens of the teacher's response", "share of rollouts cut off")
    order = np.argsort(lengths, kind="stable")
    groups = [group for group in np.array_split(order, 8) if len(group)]
    centres = [float(np.mean(np.asarray(lengths)[group])) for group in groups]
    rates = [float(np.mean(np.asarray(cut_off)[group])) for group in groups]
    axes.plot(centres, rates, marker="o", label=f"n={len(lengths):,}")
    return _png(figure, axes)


def accuracy_bars(table: pl.DataFrame) -> bytes:
    """Accuracy with one standard error per stage, one group of bars per benchmark and temperature."""
    figure, axes = _figure("", "accuracy")
    groups = table.partition_by("benchmark", "temperature", maintain_order=True)
    for number, group in enumerate(groups):
        position = np.arange(group.height) + number * 0.8 / len(groups)
        label = f"{group['benchmark'][0]}, T={group['temperature'][0]:g}"
        errors = group["standard_error"].fill_null(0)
        axes.bar(position, group["accuracy"], 0.75 / len(groups), yerr=errors, capsize=2, label=label)
        axes.set_xticks(np.arange(group.height), list(group["stage"]), fontsize=8)
    axes.set_ylim(0, 1.15)
    return _png(figure, axes, columns=2)


def _figure(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.1), dpi=90, layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, fontsize=8)
    axes.set_ylabel(y_label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure, axes: Axes, columns: int = 1) -> bytes:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, ncols=columns)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
