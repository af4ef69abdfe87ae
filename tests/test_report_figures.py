"""The report's figures: each a small PNG that shows its own values, and an empty one where there are none."""

from collections.abc import Sequence
from dataclasses import replace

import polars as pl
import pytest
from drawn import PNG, decoded

from dasd_assets.evaluation.accuracy_plots import accuracy_bars
from dasd_assets.mixed_policy.rollouts import cut_off_rates
from dasd_assets.records.loss_curve import loss_curve, throughput, training_curves
from dasd_assets.records.plots import png
from dasd_assets.report.figures import sentence_bars, teacher_share_by_position
from dasd_assets.sentence_probabilities import probability_densities
from dasd_resources.sft.checkpoint import Progress

MANY = 2000


def progress(num_points: int) -> list[Progress]:
    return [Progress(step, num_points, 1 / step, 1e-3, step) for step in range(1, num_points + 1)]


def shares(*positions: float) -> pl.DataFrame:
    rows = [(position, correct, 0.25) for position in positions for correct in (True, False)]
    return pl.DataFrame(rows, schema=["position", "correct", "teacher_share"], orient="row")


def accuracies(standard_error: float | None) -> pl.DataFrame:
    rows = [(name, "math", t, 0.5, standard_error) for name in ("teacher", "student", "t060") for t in (0.6, 1.0)]
    columns = {"checkpoint": pl.String, "benchmark": pl.String, "temperature": pl.Float64, "accuracy": pl.Float64}
    return pl.DataFrame(rows, schema={**columns, "standard_error": pl.Float64}, orient="row")


def sentences(types: Sequence[str | None]) -> pl.DataFrame:
    probs = [None if kind is None else 0.5 for kind in types]
    return pl.DataFrame(
        {"teacher_prob": probs, "student_prob": probs, "sentence_type": types},
        schema={"teacher_prob": pl.Float64, "student_prob": pl.Float64, "sentence_type": pl.String},
    )


FIGURES = {
    "loss": loss_curve({name: progress(MANY) for name in ("t060", "t100", "mixed")}),
    "training": training_curves([replace(p, grad_norm=1 / p.step, padding_share=0.1) for p in progress(MANY)]),
    "densities": probability_densities({"T=0.6": [n / MANY for n in range(MANY)], "T=1": [0.5] * MANY}),
    "sentences": sentence_bars(sentences(["teacher", "student", "close", None] * 50)),
    "positions": teacher_share_by_position(shares(*[n / 8 for n in range(8)])),
    "cut_off": cut_off_rates(list(range(MANY)), [n % 3 == 0 for n in range(MANY)]),
    "accuracy": accuracy_bars(accuracies(0.02)),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_a_small_png(name: str) -> None:
    assert decoded(FIGURES[name]).startswith(PNG)
    assert len(decoded(FIGURES[name])) < 12_000


def test_a_file_is_larger_than_what_is_inline() -> None:
    assert len(png(FIGURES["loss"])) > 2 * len(decoded(FIGURES["loss"]))


def test_figures_differ() -> None:
    assert len({decoded(figure) for figure in FIGURES.values()}) == len(FIGURES)


def test_what_is_drawn_depends_on_the_values() -> None:
    assert decoded(loss_curve({"a": progress(9)})) != decoded(loss_curve({"a": progress(20)}))
    assert decoded(cut_off_rates([1, 2], [True, False])) != decoded(cut_off_rates([1, 2], [False, True]))
    assert decoded(accuracy_bars(accuracies(0.02))) != decoded(accuracy_bars(accuracies(0.2)))


def test_a_single_question_has_no_error_bar_rather_than_one_of_nothing() -> None:
    assert decoded(accuracy_bars(accuracies(None))) != decoded(accuracy_bars(accuracies(0.0)))


def test_a_bar_stands_over_the_name_of_its_checkpoint() -> None:
    asked = pl.col("temperature").eq(1.0) | pl.col("checkpoint").ne("student")
    [axes] = accuracy_bars(accuracies(0.02).filter(asked)).axes  # the student lacks the first of two groups
    assert [label.get_text() for label in axes.get_xticklabels()] == ["teacher", "student", "t060"]
    assert list(axes.get_xticks()) == pytest.approx([0.2, 1.2, 2.2])
    assert sorted(bar.get_x() + bar.get_width() / 2 for bar in axes.patches) == pytest.approx([0, 0.4, 1.4, 2, 2.4])


@pytest.mark.filterwarnings("error")
def test_nothing_to_draw_is_an_empty_figure() -> None:
    empty = [
        loss_curve({}),
        probability_densities({"T=1": [], "T=1, selected": []}),
        sentence_bars(sentences([])),
        teacher_share_by_position(shares()),
        cut_off_rates([], []),
        accuracy_bars(accuracies(None).clear()),
    ]
    assert all(decoded(figure).startswith(PNG) for figure in empty)


def test_cut_off_rates_stand_in_the_order_of_length() -> None:
    shuffled = cut_off_rates([30, 10, 20], [True, False, True])
    assert decoded(shuffled) == decoded(cut_off_rates([10, 20, 30], [False, True, True]))


def test_throughput_is_weighted_by_tokens() -> None:
    points = [
        Progress(1, 2, 0.5, 0.1, 100, padding_share=0.5, tokens_per_second=100),
        Progress(2, 2, 0.5, 0.1, 400, padding_share=0.0, tokens_per_second=300),
    ]
    assert throughput(points) == pytest.approx({"tokens_per_second": 200, "padding_share": 0.2})
    assert throughput([replace(points[0], tokens_per_second=None), points[1]]) == {}
