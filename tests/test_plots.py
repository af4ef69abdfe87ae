"""Figures in the event log: PNG images small enough for it, and one-line texts."""

import math

import numpy as np
import pytest
from drawn import PNG, decoded
from matplotlib.figure import Figure

from dasd_assets.records import plots

MANY = 2000
HISTOGRAM = plots.histogram({"pool": [n / MANY for n in range(MANY)], "selected": [0.5] * MANY}, "score")


def test_inline_is_a_small_png() -> None:
    assert decoded(HISTOGRAM).startswith(PNG)
    assert len(decoded(HISTOGRAM)) < 12_000


def test_a_file_is_larger_than_what_is_inline() -> None:
    file = plots.png(HISTOGRAM)
    assert file.startswith(PNG)
    assert len(file) > 2 * len(decoded(HISTOGRAM))


def test_a_figure_too_rich_for_the_event_log_is_refused() -> None:
    figure = Figure(figsize=(9, 9))
    figure.add_subplot().imshow(np.random.default_rng(0).random((900, 900)), interpolation="nearest")
    with pytest.raises(ValueError, match="does not belong in the event log"):
        plots.inline(figure)


@pytest.mark.filterwarnings("error")
def test_a_histogram_of_nothing_is_an_empty_figure() -> None:
    assert decoded(plots.histogram({"pool": [], "selected": []}, "score")).startswith(PNG)


def test_only_labelled_lines_need_a_legend() -> None:
    figure, axes = plots.labelled_axes("step", "loss")
    axes.plot([1, 2], [3, 4])
    assert plots.with_legend(figure, axes).axes[0].get_legend() is None
    axes.plot([1, 2], [4, 3], label="stage 1")
    assert plots.with_legend(figure, axes).axes[0].get_legend() is not None


def test_a_shape_and_a_trend_are_one_line_of_text() -> None:
    assert plots.shape([0.0, 0.0, 0.0, 1.0]) == f"0 █{'▁' * 22}▃ 1"
    assert plots.shape([]) == plots.trend([]) == "no values"
    assert plots.trend([4.0, 3.0, 2.0, 1.0]) == "4 █▆▃▁ 1"
    assert plots.trend([2.0]) == "2 ▁ 2"
    assert plots.trend([2.0, 1.0, math.nan]) == "2 █▁  nan"  # of a training by an earlier release, which had diverged
    assert plots.trend([math.inf, math.nan]) == "inf    nan"
    assert len(plots.trend(range(1000)).split()[1]) == plots.NUM_BLOCKS


def test_a_limit_is_drawn_and_what_it_drops_is_counted() -> None:
    values = [0.1, 0.2, 0.35, 0.36, 0.7, 0.71, 0.9]
    figure = plots.values_at_limit(values, 0.7, "share in a loop")
    line, axes = figure.axes[0].lines[0], figure.axes[0]
    assert list(line.get_xdata()) == [0.7, 0.7]
    assert axes.get_xlabel() == "share in a loop"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["responses (n=7)", "limit 0.7"]
    assert len(decoded(figure)) < 12_000
    assert plots.dropped_at_limits(values, 0.7, at_most=True) == (
        "0.175: 6 · 0.35: 4 · 0.525: 3 · 0.7 (the limit): 2 · 1.05: 0 · 1.4: 0"
    )
    assert plots.dropped_at_limits([0, 1, 2], 1, at_most=False) == (
        "0.25: 1 · 0.5: 1 · 0.75: 1 · 1 (the limit): 1 · 1.5: 2 · 2: 2"
    )
