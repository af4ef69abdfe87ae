"""Progress lines: every item passes, and the end is always told."""

from dasd_assets.progress import logged, progress_line, seldom


def test_a_line_says_share_rate_and_time_left() -> None:
    assert progress_line(120, 400, "responses", 5.0) == "120/400 responses (30 %), 24.0/s, 12 s left"
    assert progress_line(1500, 1500, "rows", 3.0) == "1,500/1,500 rows (100 %), 500.0/s"


def test_a_line_can_be_written_at_the_very_start_and_of_nothing() -> None:
    assert progress_line(0, 0, "rows", 0.0) == "0/0 rows (0 %), 0.0/s"


def test_items_pass_unchanged_and_the_end_is_logged_once() -> None:
    lines: list[str] = []
    assert list(logged(iter("abc"), 3, "letters", lines.append, every=1000)) == ["a", "b", "c"]
    assert [line.split(" (")[0] for line in lines] == ["3/3 letters"]


def test_a_line_for_every_item_where_time_allows() -> None:
    lines: list[str] = []
    assert len(list(logged("abcd", 4, "letters", lines.append, every=0))) == 4
    assert [line.split(" ")[0] for line in lines] == ["1/4", "2/4", "3/4", "4/4"]


def test_items_are_not_taken_ahead_of_the_reader() -> None:
    taken: list[int] = []
    items = logged((taken.append(i) or i for i in range(5)), 5, "numbers", lambda line: None)
    assert next(items) == 0
    assert taken == [0]


def test_a_seldom_log_passes_the_first_message_and_drops_those_that_follow_at_once() -> None:
    said: list[str] = []
    say = seldom(said.append, every=1000)
    say("first")
    say("second")
    assert said == ["first"]


def test_a_seldom_log_passes_all_where_time_allows() -> None:
    said: list[str] = []
    say = seldom(said.append, every=0)
    say("first")
    say("second")
    assert said == ["first", "second"]
