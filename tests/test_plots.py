"""The report's pictures: PNG images, small enough for the event log they are kept in."""

import base64
from collections.abc import Sequence

import polars as pl
import pytest

from dasd_assets import plots
from dasd_resources.checkpoint import Progress

PNG = b"\x89PNG\r\n\x1a\n"
MANY = 2000


def progress(num_points: int) -> list[Progress]:
    return [Progress(step, num_points, 1 / step, 1e-3, step) for step in range(1, num_points + 1)]


def shares(*positions: float) -> pl.DataFrame:
    rows = [(position, correct, 0.25) for position in positions for correct in (True, False)]
    return pl.DataFrame(rows, schema=["position", "correct", "teacher_share"], orient="row")


def accuracies(standard_error: float | None) -> pl.DataFrame:
    rows = [(stage, "math", t, 0.5, standard_error) for stage in ("teacher", "student", "stage1") for t in (0.6, 1.0)]
    columns = {"stage": pl.String, "benchmark": pl.String, "temperature": pl.Float64, "accuracy": pl.Float64}
    return pl.DataFrame(rows, schema={**columns, "standard_error": pl.Float64}, orient="row")


def sentences(types: Sequence[str | None]) -> pl.DataFrame:
    probs = [None if kind is None else 0.5 for kind in types]
    return pl.DataFrame(
        {"teacher_prob": probs, "student_prob": probs, "sentence_type": types},
        schema={"teacher_prob": pl.Float64, "student_prob": pl.Float64, "sentence_type": pl.String},
    )


PICTURES = {
    "loss": plots.loss_curve({f"stage{n}": progress(MANY) for n in (1, 2, 3)}),
    "densities": plots.probability_densities({"T=0.6": [n / MANY for n in range(MANY)], "T=1": [0.5] * MANY}),
    "sentences": plots.sentence_bars(sentences(["teacher", "student", "close", None] * 50)),
    "positions": plots.teacher_share_by_position(shares(*[n / 8 for n in range(8)])),
    "cut_off": plots.cut_off_rates(list(range(MANY)), [n % 3 == 0 for n in range(MANY)]),
    "accuracy": plots.accuracy_bars(accuracies(0.02)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_a_small_png(name: str) -> None:
    assert PICTURES[name].startswith(PNG)
    assert len(PICTURES[name]) < 50_000


def test_pictures_differ() -> None:
    assert len(set(PICTURES.values())) == len(PICTURES)


def test_what_is_drawn_depends_on_the_values() -> None:
    assert plots.loss_curve({"a": progress(9)}) != plots.loss_curve({"a": progress(20)})
    assert plots.cut_off_rates([1, 2], [True, False]) != plots.cut_off_rates([1, 2], [False, True])
    assert plots.accuracy_bars(accuracies(0.02)) != plots.accuracy_bars(accuracies(0.2))


def test_a_single_question_has_no_standard_error() -> None:
    assert plots.accuracy_bars(accuracies(None)) == plots.accuracy_bars(accuracies(0.0))


@pytest.mark.filterwarnings("error")
def test_nothing_to_draw_is_an_empty_picture() -> None:
    empty = [
        plots.loss_curve({}),
        plots.probability_densities({"T=1": [], "T=1, selected": []}),
        plots.sentence_bars(sentences([])),
        plots.teacher_share_by_position(shares()),
        plots.cut_off_rates([], []),
    ]
    assert all(png.startswith(PNG) for png in empty)


def test_cut_off_rates_stand_in_the_order_of_length() -> None:
    shuffled = plots.cut_off_rates([30, 10, 20], [True, False, True])
    assert shuffled == plots.cut_off_rates([10, 20, 30], [False, True, True])


def test_inline_is_the_picture_itself() -> None:
    shown = plots.inline(PNG + b"rest").md_str
    assert shown is not None
    assert base64.b64decode(shown.removeprefix("![plot](data:image/png;base64,").removesuffix(")")) == PNG + b"rest"
