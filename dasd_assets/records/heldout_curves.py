"""How the held-out losses are shown, stage by stage: a table, a figure, and a file of events for TensorBoard.

losses, here: the rows of `heldout_losses` with the name of each checkpoint, in the order of training.
"""

import shutil
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import polars as pl

from dasd_assets.records.markdown import table
from dasd_assets.records.plots import TYPE_COLOURS, labelled_axes, with_legend
from dasd_assets.records.wording import with_error
from dasd_assets.rules.heldout_responses import ALL
from dasd_assets.rules.scores import TYPE_NAMES
from dasd_resources.sft.events import add, events

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVENTS = "events.out.tfevents.heldout"


def loss_table(losses: pl.DataFrame) -> dg.TableMetadataValue:
    """A row per dataset, kind of question and type of sentence; a column per checkpoint: loss, its change ± 1 s.e."""
    columns, rows = ["dataset", "question", "sentences", "num_tokens"], dict[tuple[object, ...], dict[str, object]]()
    for row in losses.to_dicts():
        key = (row["dataset"], "seen" if row["question_seen"] else "not seen", row["sentence_type"], row["num_tokens"])
        change = with_error(row["change"], row["change_standard_error"], "+.3f")
        shown = f"{row['loss']:.3f}" + ("" if row["checkpoint"] == "student" else f" ({change})")
        rows.setdefault(key, dict(zip(columns, key, strict=True)))[row["checkpoint"]] = shown
    names = losses["checkpoint"].unique(maintain_order=True).to_list()
    return table([*columns, *names], rows.values())


def loss_by_stage(losses: pl.DataFrame) -> "Figure":
    """Loss against the stage, a line per type of sentence; dotted where the questions were not trained on.

    losses: of `heldout_losses`, with the checkpoint's name. One panel per dataset.
    """
    figure, axes = labelled_axes("", "held-out loss (nats per token)")
    names = losses["checkpoint"].unique(maintain_order=True).to_list()
    datasets = losses["dataset"].unique(maintain_order=True).to_list()
    colours = {**TYPE_COLOURS, ALL: "black"}
    for number, (dataset, kind) in enumerate(product(datasets, (*TYPE_NAMES, ALL))):
        for seen in (True, False):
            part = losses.filter(dataset=dataset, sentence_type=kind, question_seen=seen)
            places = [names.index(name) + (number // 4) * (len(names) + 0.5) for name in part["checkpoint"]]
            label = kind if number < 4 and seen else None
            line = "o-" if seen else "o:"
            axes.plot(places, part["loss"], line, color=colours[kind], label=label, markersize=3)
    width = len(names) + 0.5
    axes.set_xticks([i * width + j for i in range(len(datasets)) for j in range(len(names))], names * len(datasets))
    axes.tick_params(axis="x", labelsize=6)
    for i, dataset in enumerate(datasets):
        axes.text(i * width + (len(names) - 1) / 2, axes.get_ylim()[1], dataset, ha="center", fontsize=8)
    return with_legend(figure, axes, columns=2)


def write_events(folder: Path, losses: pl.DataFrame) -> None:
    """A run of TensorBoard's for each dataset, kind of question and type of sentence, in place of all that is there.

    Its step is the stage, from 0, the undistilled student. Its curves are `heldout/loss` (nats per token) and
    `heldout/change`, so that the types of sentences lie in one chart.
    """
    shutil.rmtree(folder, ignore_errors=True)
    stage_of = {name: number for number, name in enumerate(losses["checkpoint"].unique(maintain_order=True))}
    now = time.time()
    for (dataset, seen, kind), part in losses.group_by(
        "dataset", "question_seen", "sentence_type", maintain_order=True
    ):
        path = folder / str(dataset) / ("seen" if seen else "not_seen") / str(kind)
        path.mkdir(parents=True)
        with events(path / EVENTS) as writer:
            for name, loss, change in part.select("checkpoint", "loss", "change").iter_rows():
                add(writer, stage_of[name], {"heldout/loss": loss, "heldout/change": change}, now)
