"""The figures of an experiment: the report's, for its arms, and what it found at a glance."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from dasd_assets.mixed_policy.rollouts import cut_off_rates, rates_by_length
from dasd_assets.records.plots import labelled_axes, with_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROW_HEIGHT, STROKE_WIDTH, CHARACTER_WIDTH = 0.17, 0.5, 0.062  # inches; the last two, in a legend
NUM_COLOURS = 10  # of lines, after which they come again
MOST_INSIDE = 4  # entries of a legend that hide none of the lines


def forest(compared: pl.DataFrame, baseline: str) -> "Figure":
    """Each difference with its interval, over what could have been seen: arms less the baseline, then other pairs.

    compared: arm, baseline, benchmark, temperature, difference, low, high, minimum_detectable_effect.
    """
    pair = pl.when(pl.col("baseline") == baseline).then("arm").otherwise(pl.format("{}\nless {}", "arm", "baseline"))
    compared = compared.with_columns(pair=pair)
    names = compared["pair"].unique(maintain_order=True).to_list()
    others = "" if (compared["baseline"] == baseline).all() else ", or the arm that is named"
    figure, axes = labelled_axes(f"accuracy less {baseline}{others}, points of %", "")
    settings = compared.select("benchmark", "temperature").unique(maintain_order=True).rows()
    for number, (benchmark, temperature) in enumerate(settings):
        part = compared.filter((pl.col("benchmark") == benchmark) & (pl.col("temperature") == temperature))
        places = np.asarray([names.index(name) for name in part["pair"]]) + (number + 0.5) / len(settings) - 0.5
        shift, low, high, seen = (
            100 * part[name].cast(pl.Float64).to_numpy()
            for name in ("difference", "low", "high", "minimum_detectable_effect")
        )
        axes.barh(places, 2 * seen, 0.7 / len(settings), left=-seen, color="#ececec")
        spread = np.nan_to_num(np.stack([shift - low, high - shift]))
        label = f"{benchmark}, T={temperature:g}"
        axes.errorbar(shift, places, xerr=spread, fmt="o", markersize=3, capsize=2, linewidth=1.2, label=label)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    figure.set_figheight(max(2.2, 1 + ROW_HEIGHT * len(names) * (1 + len(settings))))
    figure.subplots_adjust(left=0.3, bottom=0.45 / figure.get_figheight())
    grey = "grey: true differences that would often be missed"
    if len(settings) > 1:
        axes.set_title(grey, fontsize=7)
        return with_legend(figure, axes)
    axes.set_title(f"{label}; {grey}", fontsize=7)
    return figure


def loss_against_accuracy(cells: pl.DataFrame) -> "Figure":
    """Training loss of the last stage against accuracy, a point per seed (what Figure 3 asks: is a low loss better?).

    cells: arm, loss (nats per token, a mean over the stage's steps: that of a single one is noise), accuracy.
    """
    figure, axes = labelled_axes("training loss, mean over the last stage (nats per token)", "accuracy")
    for arm in cells["arm"].unique(maintain_order=True):
        part = cells.filter(pl.col("arm") == arm)
        axes.plot(part["loss"], part["accuracy"], "o", markersize=4, alpha=0.8, label=arm)
    return told_apart(figure)


def loss_over_steps(curves: Mapping[str, Sequence[tuple[int, float]]]) -> "Figure":
    """Training loss of each arm over the steps of all its stages (Figure 3). curves: of `loss_curves`."""
    figure, axes = labelled_axes("step, of all stages", "training loss (nats per token)")
    for name, points in curves.items():
        axes.plot([step for step, _ in points], [loss for _, loss in points], linewidth=1, label=name)
    return told_apart(figure)


def cut_off_by_length(answers: pl.DataFrame) -> "Figure":
    """Share of each arm's answers cut off at the benchmark's limit, by how long all arms' answers to a question are.

    answers: arm, benchmark, temperature, question_id, num_tokens, cut_off.
    """
    figure, axes = labelled_axes("tokens of an answer to the question, mean over all arms", "share of answers cut off")
    question = ["benchmark", "temperature", "question_id"]
    given = answers.drop_nulls(["num_tokens", "cut_off"])  # not the requests that failed
    measured = given.with_columns(length=pl.col("num_tokens").mean().over(question))
    for arm in given["arm"].unique(maintain_order=True):
        part = measured.filter(pl.col("arm") == arm)
        centres, rates = rates_by_length(part["length"].to_list(), part["cut_off"].to_list())
        axes.plot(centres, rates, marker="o", markersize=3, linewidth=1.2, label=f"{arm} (n={part.height:,})")
    axes.set_ylim(bottom=0)
    return told_apart(figure)


def rolled_out(rollouts: pl.DataFrame) -> dict[str, "Figure"]:
    """Figure 7 of the rollouts that a mixed-policy stage began with, if there are any: no arm and no seed has its own.

    rollouts: reference_num_tokens, cut_off.
    """
    if rollouts.is_empty():
        return {}
    lengths, cut_off = rollouts["reference_num_tokens"].to_list(), rollouts["cut_off"].to_list()
    return {"rollouts_cut_off": cut_off_rates(lengths, cut_off)}


def told_apart(figure: "Figure") -> "Figure":
    """The figure of many arms with its legend beside the axes, and another stroke where colours come again."""
    from matplotlib.artist import getp

    [axes] = figure.axes
    handles, labels = axes.get_legend_handles_labels()
    for handle in handles[NUM_COLOURS:]:
        again = {"marker": "s"} if getp(handle, "linestyle") == "None" else {"linestyle": "--"}
        handle.set(**again)
    if len(handles) <= MOST_INSIDE:
        return with_legend(figure, axes)
    width = figure.get_figwidth() + STROKE_WIDTH + CHARACTER_WIDTH * max(map(len, labels))
    right = figure.get_figwidth() * figure.subplotpars.right / width
    figure.subplots_adjust(left=figure.subplotpars.left * figure.get_figwidth() / width, right=right)
    figure.set_figwidth(width)
    axes.legend(handles, labels, loc="upper left", bbox_to_anchor=(1.02, 1.04), fontsize=7, frameon=False)
    return figure
