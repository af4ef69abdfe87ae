"""The pictures people look at first, as in the report's Figures 3, 5, 6 and 7: plain values in, a figure out.

`inline` shows a figure in the web UI, at a click; it is kept in the event log, so it is made small. `shape` and
`course` are text, which the page shows at once. `png` is for a file.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl
from PIL import Image

from dasd_resources.sft.checkpoint import Progress

if TYPE_CHECKING:  # half a second that whoever loads the code location, but draws nothing, need not pay
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLOCKS = "▁▂▃▄▅▆▇█"
NUM_BLOCKS = 24
INLINE_BYTES, INLINE_COLOURS, INLINE_DPI, FILE_DPI = 50_000, 32, 90, 200
TYPE_COLOURS = {"teacher": "#2a7f62", "student": "#c8553d", "close": "#9aa0a6", None: "#e3e3e3"}


def inline(figure: "Figure") -> dg.MarkdownMetadataValue:
    """A figure as metadata that the web UI shows in a dialog, of few colours: some 5 kB, and never above 50.

    Raises ValueError for a figure too rich for that: give it `png` in a file instead.
    """
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png(figure, dpi=INLINE_DPI))).convert("RGB")
    image.quantize(INLINE_COLOURS, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    if len(encoded) > INLINE_BYTES:
        raise ValueError(f"a picture of {len(encoded):,} bytes does not belong in the event log; draw less in it")
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{encoded})")


def shape(values: Sequence[float]) -> str:
    """How values are distributed, at a glance: `0.1 ▁▂▅█▆▃▁ 0.97`, from the least to the greatest."""
    finite = np.asarray([value for value in values if value is not None], dtype=np.float64)
    if not len(finite):
        return "no values"
    heights, edges = np.histogram(finite, bins=NUM_BLOCKS)
    return f"{edges[0]:.3g} {_blocks(heights)} {edges[-1]:.3g}"


def course(values: Sequence[float]) -> str:
    """How a series went, at a glance: `2.31 █▅▃▂▁▁ 0.29`, from its first value to its last."""
    if not len(values):
        return "no values"
    parts = np.array_split(np.asarray(values, dtype=np.float64), min(NUM_BLOCKS, len(values)))
    return f"{values[0]:.3g} {_blocks(np.asarray([part.mean() for part in parts]))} {values[-1]:.3g}"


def _blocks(heights: "np.ndarray") -> str:
    low, high = heights.min(), heights.max()
    scaled = (heights - low) / (high - low if high > low else 1) * (len(BLOCKS) - 1)
    return "".join(BLOCKS[round(height)] for height in scaled)


def png(figure: "Figure", dpi: int = FILE_DPI) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def loss_curve(losses: Mapping[str, Sequence[Progress]]) -> "Figure":
    """Training loss against the step, one line per checkpoint."""
    figure, axes = _figure("step", "loss (nats per token)")
    for name, points in losses.items():
        axes.plot([p.step for p in points], [p.loss for p in points], label=name, linewidth=1.2)
    return _finished(figure, axes)


def probability_densities(probs: Mapping[str, Sequence[float]]) -> "Figure":
    """Density of response probabilities, the geometric mean over tokens, one curve per group (Figure 3)."""
    figure, axes = _figure("response probability (geometric mean of its tokens')", "density")
    for name, values in probs.items():
        heights, edges = np.histogram(values, bins=40, range=(0.0, 1.0), density=len(values) > 0)
        axes.stairs(heights, edges, label=f"{name} (n={len(values):,})", fill=False)
    return _finished(figure, axes)


def histogram(groups: Mapping[str, Sequence[float]], x_label: str) -> "Figure":
    """How values are distributed, one outline per group, each of area 1 over the bins they share."""
    figure, axes = _figure(x_label, "density")
    every = np.concatenate([np.asarray(values, dtype=np.float64) for values in groups.values()] or [np.zeros(0)])
    edges = np.histogram_bin_edges(every, bins=30)
    for name, values in groups.items():
        heights, _ = np.histogram(values, bins=edges, density=len(values) > 0)
        axes.stairs(heights, edges, label=f"{name} (n={len(values):,})", fill=len(groups) == 1, alpha=0.8)
    return _finished(figure, axes)


def sentence_bars(sentences: pl.DataFrame) -> "Figure":
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
    return _finished(figure, axes, columns=3)


def teacher_share_by_position(shares: pl.DataFrame) -> "Figure":
    """Share of teacher sentences at each relative position, in right and wrong responses (Figure 6).

    shares: position (0 to 1), correct, teacher_share.
    """
    figure, axes = _figure("position in the response", "share of teacher sentences")
    for correct, label in ((True, "correct"), (False, "incorrect")):
        part = shares.filter(pl.col("correct") == correct).sort("position")
        axes.plot(part["position"], part["teacher_share"], marker="o", markersize=3, label=label)
    return _finished(figure, axes)


def cut_off_rates(lengths: Sequence[int], cut_off: Sequence[bool]) -> "Figure":
    """Share of rollouts cut off against the length of their reference, in eight groups of equal size (Figure 7)."""
    figure, axes = _figure("tokens of the teacher's response", "share of rollouts cut off")
    order = np.argsort(lengths, kind="stable")
    groups = [group for group in np.array_split(order, 8) if len(group)]
    centres = [float(np.mean(np.asarray(lengths)[group])) for group in groups]
    rates = [float(np.mean(np.asarray(cut_off)[group])) for group in groups]
    axes.plot(centres, rates, marker="o", label=f"n={len(lengths):,}")
    return _finished(figure, axes)


def accuracy_bars(table: pl.DataFrame) -> "Figure":
    """Accuracy with one standard error per checkpoint, one group of bars per benchmark and temperature."""
    figure, axes = _figure("", "accuracy")
    groups = table.partition_by("benchmark", "temperature", maintain_order=True)
    for number, group in enumerate(groups):
        position = np.arange(group.height) + number * 0.8 / len(groups)
        label = f"{group['benchmark'][0]}, T={group['temperature'][0]:g}"
        errors = group["standard_error"].fill_null(0)
        axes.bar(position, group["accuracy"], 0.75 / len(groups), yerr=errors, capsize=2, label=label)
        axes.set_xticks(np.arange(group.height), list(group["checkpoint"]), fontsize=8)
    axes.set_ylim(0, 1.15)
    return _finished(figure, axes, columns=2)


def _figure(x_label: str, y_label: str) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.1))  # fixed margins: a layout engine costs as much as all the drawing
    figure.subplots_adjust(left=0.12, right=0.97, top=0.92, bottom=0.15)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, fontsize=8)
    axes.set_ylabel(y_label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finished(figure: "Figure", axes: "Axes", columns: int = 1) -> "Figure":
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, frameon=False, ncols=columns)
    return figure
