"""A training's curves as figures: each checkpoint's asset draws its own, the report draws the losses together."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from dasd_assets.records.plots import labelled_axes, with_legend
from dasd_resources.sft.checkpoint import Progress, seconds_trained

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CURVES = {
    "grad_norm": "gradient norm before clipping",
    "learning_rate": "learning rate",
    "tokens_per_second": "tokens/s",
    "padding_share": "padding, share of positions",
}


def loss_curve(losses: Mapping[str, Sequence[Progress]]) -> "Figure":
    """Training loss against the step, one line per checkpoint."""
    figure, axes = labelled_axes("step", "loss (nats per token)")
    for name, points in losses.items():
        axes.plot([p.step for p in points], [p.loss for p in points], label=name, linewidth=1.2)
    return with_legend(figure, axes)


def training_curves(points: Sequence[Progress]) -> "Figure":
    """What else was measured at the points of the loss curve, one panel each; empty where it was not measured."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 3.6))
    figure.subplots_adjust(left=0.12, right=0.97, top=0.93, bottom=0.11, hspace=0.5, wspace=0.35)
    for axes, (curve, label) in zip(figure.subplots(2, 2).flat, CURVES.items(), strict=True):
        measured = [(p.step, getattr(p, curve)) for p in points if getattr(p, curve) is not None]
        axes.plot([step for step, _ in measured], [value for _, value in measured], linewidth=1)
        axes.set_title(label, fontsize=8)
        axes.set_xlabel("step", fontsize=7)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def throughput(points: Sequence[Progress]) -> dict[str, float]:
    """`tokens_per_second` and `padding_share` of a whole training, weighted by tokens; empty if not measured.

    They are of the steps alone: not of loading the model, nor of what a killed process did after its last save.
    """
    tokens = [b - a for a, b in pairwise([0, *(point.tokens for point in points)])]
    positions = [n / (1 - p.padding_share) for n, p in zip(tokens, points, strict=True) if p.padding_share is not None]
    if not all(point.tokens_per_second for point in points) or len(positions) < len(points):
        return {}
    return {
        "tokens_per_second": sum(tokens) / seconds_trained(points),
        "padding_share": 1 - sum(tokens) / sum(positions),
    }
