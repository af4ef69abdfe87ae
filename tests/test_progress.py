"""Progress lines: interval item passes, and the end is always logged."""

from functools import partial

import pytest

from dasd_assets.records.progress import Tally, TrainingLog, duration, logged, pause, progress_line
from dasd_assets.stage_training import samples_of_a_step
from dasd_resources.recipe import Training
from dasd_resources.sft.checkpoint import Pace, Progress


def test_a_line_says_share_rate_and_time_left() -> None:
    assert progress_line(120, 400, "responses", 5.0, 120) == "120/400 responses (30 %), 24.0/s, 12 s left"
    assert progress_line(1500, 1500, "rows", 3.0, 1500) == "1,500/1,500 rows (100 %), 500.0/s"


def test_a_line_can_be_written_at_the_very_start_and_of_nothing() -> None:
    assert progress_line(0, 0, "rows", 0.0, 0) == "0/0 rows (0 %), 0.0/s"


def test_items_pass_unchanged_and_the_end_is_logged_once() -> None:
    lines: list[str] = []
    assert list(logged(iter("abc"), 3, "letters", lines.append, interval=1000)) == ["a", "b", "c"]
    assert [line.split(" (")[0] for line in lines] == ["0/3 letters: the engine starts", "3/3 letters"]


def test_a_line_for_every_item_where_time_allows() -> None:
    lines: list[str] = []
    assert len(list(logged("abcd", 4, "letters", lines.append, interval=0))) == 4
    assert [line.split(" ")[0] for line in lines] == ["0/4", "1/4", "2/4", "3/4", "4/4"]


def test_items_are_not_taken_ahead_of_the_reader() -> None:
    taken: list[int] = []
    items = logged((taken.append(i) or i for i in range(5)), 5, "numbers", lambda line: None)
    assert next(items) == 0
    assert taken == [0]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7170, "2 h 0 min"), (12_000, "3 h 20 min"), (190_000, "2 d 4 h")],
)
def test_a_duration_is_told_in_units_that_fit_it(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


def test_pauses_grow_with_the_work() -> None:
    assert [pause(elapsed, 10.0) for elapsed in (0, 600, 1800, 3600, 1e6)] == [10, 10, 30, 60, 60]


def test_a_training_tells_step_loss_rate_and_time_left_at_a_calm_rhythm() -> None:
    """From step 100, where it went on after a kill: what was done before counts in no rate."""
    lines: list[str] = []
    seconds = iter([50.0, 55.0, 60.0, 65.0, 70.0])
    say = TrainingLog(lines.append, clock=lambda: next(seconds))
    say(Pace(100, 500, 1_000_000))
    say(Progress(150, 500, 0.75, 3e-3, 1_050_000))
    say(Pace(200, 500, 1_100_000))
    say(Pace(500, 500, 1_400_000))
    say(Progress(500, 500, 0.5, 3e-4, 1_400_000))
    assert lines == [
        "training continues after step 100: 500 steps in all",
        "step 200/500 (40 %), loss 0.750, learning rate 3.00e-03, 10,000 tokens/s, 30 s left",
        "step 500/500 (100 %), loss 0.500, learning rate 3.00e-04, 20,000 tokens/s",
    ]


def test_a_training_that_has_just_begun_tells_no_rate() -> None:
    lines: list[str] = []
    say = TrainingLog(lines.append, interval=0, clock=lambda: 1.0)
    say(Pace(0, 10, 0))
    say(Pace(0, 10, 0))
    assert lines == ["training starts: 10 steps in all", "step 0/10 (0 %)"]


def test_a_training_tells_how_many_packed_samples_a_step_holds() -> None:
    lines: list[str] = []
    packed = Training.model_validate({"packing": True, "batch_counts": "samples", "global_batch_size": 64})
    for training in (packed, packed.model_copy(update={"batch_counts": "bins"})):
        say = TrainingLog(lines.append, batch=partial(samples_of_a_step, training, 16_000))
        say(Pace(0, 100, 0))
    told = "training starts: 100 steps in all"
    assert lines == [f"{told}, each 160 samples on average (global_batch_size: 64)", told]


def test_a_tally_estimates_from_what_it_has_seen_done() -> None:
    said, times = list[str](), iter([0.0, 1.0, 30.0, 60.0, 61.0])
    tally = Tally(4, "trainings", said.append, clock=lambda: next(times))
    for is_new in (False, True, True, False):
        tally.add(is_new=is_new)
    assert said == ["2/4 trainings, about 60 s left", "3/4 trainings, about 30 s left", "4/4 trainings"]
