"""Drawing: axes of one size and look, and the ways to show a figure. What is drawn stands with the asset that draws it.

`inline` shows a figure in the web UI, at a click; it is kept in the event log, so it is made small. `shape` and `trend`
are one line of text, which the page shows without a click. `png` is for a file.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
from PIL import Image

from dasd_assets.records.markdown import picture

if TYPE_CHECKING:  # loading matplotlib takes half a second, which only a process that draws should pay
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TYPE_COLOURS: dict[str | None, str] = {
    "teacher": "#2a7f62",
    "student": "#c8553d",
    "close": "#9aa0a6",
    None: "#e3e3e3",
}
BLOCKS = "▁▂▃▄▅▆▇█"
NUM_BLOCKS = 24
LIMIT_FACTORS = (0.25, 0.5, 0.75, 1, 1.5, 2)  # of a limit, at which it is counted what would be dropped
INLINE_BYTES, INLINE_COLOURS, INLINE_DPI, FILE_DPI = 50_000, 256, 90, 200


def inline(figure: "Figure") -> dg.MarkdownMetadataValue:
    """A figure as metadata that the web UI shows in a dialog: about 10 kB, in 256 colours, at most 50 kB.

    Raises ValueError for a figure that needs more: write `png` to a file instead.
    """
    buffer = io.BytesIO()
    image = Image.open(io.BytesIO(png(figure, dpi=INLINE_DPI))).convert("RGB")
    image.quantize(INLINE_COLOURS, dither=Image.Dither.NONE).save(buffer, format="png", optimize=True)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    if len(encoded) > INLINE_BYTES:
        raise ValueError(
            f"a figure of {len(encoded):,} bytes does not belong in the event log, which takes {INLINE_BYTES:,}; "
            "draw less in it"
        )
    return picture(encoded)


def shape(values: Sequence[float]) -> str:
    """A histogram as one line of text: `0.1 ▁▂▅█▆▃▁ 0.97`, from the least value to the greatest."""
    finite = np.asarray([value for value in values if value is not None], dtype=np.float64)
    if not len(finite):
        return "no values"
    heights, edges = np.histogram(finite, bins=NUM_BLOCKS)
    return f"{edges[0]:.3g} {_blocks(heights)} {edges[-1]:.3g}"


def trend(values: Sequence[float]) -> str:
    """A series as one line of text: `2.31 █▅▃▂▁▁ 0.29`, from its first value to its last; blank where not finite."""
    if not len(values):
        return "no values"
    parts = np.array_split(np.asarray(values, dtype=np.float64), min(NUM_BLOCKS, len(values)))
    return f"{values[0]:.3g} {_blocks(np.asarray([part.mean() for part in parts]))} {values[-1]:.3g}"


def _blocks(heights: "np.ndarray") -> str:
    finite = heights[np.isfinite(heights)]
    low, high = (finite.min(), finite.max()) if len(finite) else (0, 0)
    scaled = (heights - low) / (high - low if high > low else 1) * (len(BLOCKS) - 1)
    return "".join(BLOCKS[round(height)] if np.isfinite(height) else " " for height in scaled)


def png(figure: "Figure", dpi: int = FILE_DPI) -> bytes:
    """A figure as a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def histogram(groups: Mapping[str, Sequence[float]], x_label: str) -> "Figure":
    """Histogram of values, one outline per group, each of area 1 over the same bins."""
    figure, axes = labelled_axes(x_label, "density")
    all_values = np.concatenate([np.asarray(values, dtype=np.float64) for values in groups.values()] or [np.zeros(0)])
    edges = np.histogram_bin_edges(all_values, bins=30)
    for name, values in groups.items():
        heights, _ = np.histogram(values, bins=edges, density=len(values) > 0)
        axes.stairs(heights, edges, label=f"{name} (n={len(values):,})", fill=len(groups) == 1, alpha=0.8)
    return with_legend(figure, axes)


def values_at_limit(values: Sequence[float], limit: float, x_label: str) -> "Figure":
    """Histogram of values, and the limit up to which, or from which, they pass."""
    figure = histogram({"responses": values}, x_label)
    figure.axes[0].axvline(limit, color="black", linewidth=1, linestyle="--", label=f"limit {limit:g}")
    return with_legend(figure, figure.axes[0])


def dropped_at_limits(values: Sequence[float], limit: float, *, at_most: bool) -> str:
    """How many of the values fail at several limits, as one line of text: `0.35: 12 · 0.7 (the limit): 3 · 1.05: 0`."""
    found = np.asarray(values, dtype=np.float64)
    limits = [limit * factor for factor in LIMIT_FACTORS]
    dropped = [int(np.count_nonzero(found > at if at_most else found < at)) for at in limits]
    names = [f"{at:.6g}{' (the limit)' if at == limit else ''}" for at in limits]
    return " · ".join(f"{name}: {count:,}" for name, count in zip(names, dropped, strict=True))


def labelled_axes(x_label: str, y_label: str) -> "tuple[Figure, Axes]":
    """A new figure with one pair of axes, in the size and style of all our plots."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.1))  # fixed margins: a layout engine costs as much as all the drawing
    figure.subplots_adjust(left=0.12, right=0.97, top=0.92, bottom=0.15)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label, fontsize=8)
    axes.set_ylabel(y_label, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def panels(titles: Sequence[str], y_label: str, title: str) -> "tuple[Figure, list[Axes]]":
    """A new figure with a small pair of axes over an answer for each of four titles, two by two, in that style."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.2))
    figure.subplots_adjust(left=0.12, right=0.97, top=0.87, bottom=0.11, hspace=0.42, wspace=0.25)
    figure.suptitle(title, fontsize=8)
    every = list(figure.subplots(2, 2, sharex=True).flat)
    for place, (axes, name) in enumerate(zip(every, titles, strict=True)):
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        if place >= 2:
            axes.set_xlabel("position in the answer", fontsize=8)
        if place % 2 == 0:
            axes.set_ylabel(y_label, fontsize=8)
    return figure, every


def with_legend(figure: "Figure", axes: "Axes", columns: int = 1) -> "Figure":
    """The figure with a legend, if anything in it has a label. columns: of the legend."""
    if axes.get_legend_handles_labels()[0]:
        # `best` is the default; unless it is named, a busy machine, on which placing takes a second, is warned of it.
        axes.legend(loc="best", fontsize=7, frameon=False, ncols=columns)
    return figure
