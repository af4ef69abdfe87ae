"""The pictures of the report, in its order."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from dasd_assets.evaluation.accuracy_plots import accuracy_bars
from dasd_assets.mixed_policy.rollouts import cut_off_rates
from dasd_assets.records.loss_curve import loss_curve
from dasd_assets.records.plots import TYPE_COLOURS, labelled_axes, with_legend
from dasd_assets.report.findings import ReportData
from dasd_assets.rules.scores import TYPE_NAMES
from dasd_assets.sentence_probabilities import probability_densities

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SENTENCES = pl.DataFrame(schema={"teacher_prob": pl.Float64, "student_prob": pl.Float64, "sentence_type": pl.String})


def pictures(data: ReportData) -> dict[str, "Figure"]:
    """Name -> figure, for every figure of the report."""
    rollouts = data.rollouts
    return {
        "accuracy": accuracy_bars(data.accuracies),
        "response_probabilities": probability_densities(data.response_probs),
        "sentence_probabilities": sentence_bars(SENTENCES if data.response is None else data.response.sentences),
        "teacher_sentences_by_position": teacher_share_by_position(data.shares),
        "cut_off_rate": cut_off_rates(rollouts["reference_num_tokens"].to_list(), rollouts["cut_off"].to_list()),
        "training_loss": loss_curve(data.losses),
    }


def sentence_bars(sentences: pl.DataFrame) -> "Figure":
    """Each sentence's probability under both models, coloured by its type (Figure 5); sentences count from 1.

    sentences: teacher_prob, student_prob, sentence_type, in order.
    """
    from matplotlib.ticker import MaxNLocator

    figure, axes = labelled_axes("sentence, from 1", "probability")
    position = np.arange(1, sentences.height + 1)
    colours = [TYPE_COLOURS[kind] for kind in sentences["sentence_type"]]
    axes.bar(position - 0.2, sentences["teacher_prob"].fill_null(0), 0.38, color=colours)
    axes.bar(position + 0.2, sentences["student_prob"].fill_null(0), 0.38, color=colours, alpha=0.45)
    for kind in TYPE_NAMES:
        axes.bar([1], [0], color=TYPE_COLOURS[kind], label=f"{kind} sentence")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=12, integer=True, min_n_ticks=1))
    axes.set_xlim(0.4, max(sentences.height, 1) + 0.6)
    axes.set_ylim(0, 1.2)
    axes.set_title("left bar: under the teacher, right and pale: under the student", fontsize=8)
    return with_legend(figure, axes, columns=3)


def teacher_share_by_position(shares: pl.DataFrame) -> "Figure":
    """Share of teacher sentences at each relative position, in right and wrong candidates (Figure 6).

    Of the teacher's own responses, all questions pooled, so that difficulty confounds right and wrong; those of the
    checkpoints' answers, also within questions, are in `answer_provenance`. shares: position (0 to 1), correct,
    teacher_share.
    """
    figure, axes = labelled_axes("position in the response", "share of teacher sentences")
    axes.set_title("the teacher's candidates, all questions pooled: difficulty confounds right and wrong", fontsize=8)
    for correct, label in ((True, "correct"), (False, "incorrect")):
        part = shares.filter(pl.col("correct") == correct).sort("position")
        axes.plot(part["position"], part["teacher_share"], marker="o", markersize=3, label=label)
    return with_legend(figure, axes)
