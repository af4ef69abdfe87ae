"""Training loss as a figure: each checkpoint's asset draws its own, the report draws them together."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dasd_assets.records.plots import labelled_axes, with_legend
from dasd_resources.sft.checkpoint import Progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def loss_curve(losses: Mapping[str, Sequence[Progress]]) -> "Figure":
    """Training loss against the step, one line per checkpoint."""
    figure, axes = labelled_axes("step", "loss (nats per token)")
    for name, points in losses.items():
        axes.plot([p.step for p in points], [p.loss for p in points], label=name, linewidth=1.2)
    return with_legend(figure, axes)
