"""The report's pictures: PNG images, small enough for the event log they are kept in."""

import base64
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from matplotlib.figure import Figure

from dasd_assets.records import plots
from dasd_resources.sft.checkpoint import Progress

PNG = b"\x89PNG\r\n\x1a\n"
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
    "loss": plots.loss_curve({name: progress(MANY) for name in ("t060", "t100", "mixed")}),
    "densities": plots.probability_densities({"T=0.6": [n / MANY for n in range(MANY)], "T=1": [0.5] * MANY}),
    "histogram": plots.histogram({"pool": [n / MANY for n in range(MANY)], "selected": [0.5] * MANY}, "score"),
    "sentences": plots.sentence_bars(sentences(["teacher", "student", "close", None] * 50)),
    "positions": plots.teacher_share_by_position(shares(*[n / 8 for n in range(8)])),
    "cut_off": plots.cut_off_rates(list(range(MANY)), [n % 3 == 0 for n in range(MANY)]),
    "accuracy": plots.accuracy_bars(accuracies(0.02)),
}


def decoded(figure: Figure) -> bytes:
    shown = plots.inline(figure).md_str
    assert shown is not None
    return base64.b64decode(shown.removeprefix("![plot](data:image/png;base64,").removesuffix(")"))


@pytest.mark.parametrize("name", FIGURES)
def test_inline_is_a_small_png(name: str) -> None:
    assert decoded(FIGURES[name]).startswith(PNG)
    assert len(decoded(FIGURES[name])) < 12_000


def test_a_file_is_larger_than_what_is_inline() -> None:
    file = plots.png(FIGURES["loss"])
    assert file.startswith(PNG)
    assert len(file) > 2 * len(decoded(FIGURES["loss"]))


def test_a_picture_too_rich_for_the_event_log_is_refused() -> None:
    figure = Figure(figsize=(9, 9))
    figure.add_subplot().imshow(np.random.default_rng(0).random((900, 900)), interpolation="nearest")
    with pytest.raises(ValueError, match="does not belong in the event log"):
        plots.inline(figure)


def test_pictures_differ() -> None:
    assert len({decoded(figure) for figure in FIGURES.values()}) == len(FIGURES)


def test_what_is_drawn_depends_on_the_values() -> None:
    assert decoded(plots.loss_curve({"a": progress(9)})) != decoded(plots.loss_curve({"a": progress(20)}))
    one, other = plots.cut_off_rates([1, 2], [True, False]), plots.cut_off_rates([1, 2], [False, True])
    assert decoded(one) != decoded(other)
    assert decoded(plots.accuracy_bars(accuracies(0.02))) != decoded(plots.accuracy_bars(accuracies(0.2)))


def test_a_single_question_has_no_standard_error() -> None:
    assert decoded(plots.accuracy_bars(accuracies(None))) == decoded(plots.accuracy_bars(accuracies(0.0)))


@pytest.mark.filterwarnings("error")
def test_nothing_to_draw_is_an_empty_picture() -> None:
    empty = [
        plots.loss_curve({}),
        plots.probability_densities({"T=1": [], "T=1, selected": []}),
        plots.histogram({"pool": [], "selected": []}, "score"),
        plots.sentence_bars(sentences([])),
        plots.teacher_share_by_position(shares()),
        plots.cut_off_rates([], []),
    ]
    assert all(decoded(figure).startswith(PNG) for figure in empty)


def test_cut_off_rates_stand_in_the_order_of_length() -> None:
    shuffled = plots.cut_off_rates([30, 10, 20], [True, False, True])
    assert decoded(shuffled) == decoded(plots.cut_off_rates([10, 20, 30], [False, True, True]))


def test_a_shape_and_a_course_are_text_at_a_glance() -> None:
    assert plots.shape([0.0, 0.0, 0.0, 1.0]) == f"0 █{'▁' * 22}▃ 1"
    assert plots.shape([]) == plots.course([]) == "no values"
    assert plots.course([4.0, 3.0, 2.0, 1.0]) == "4 █▆▃▁ 1"
    assert plots.course([2.0]) == "2 ▁ 2"
    assert len(plots.course(range(1000)).split()[1]) == plots.NUM_BLOCKS
