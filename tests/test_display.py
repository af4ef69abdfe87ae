"""What a run shows: a bar on a terminal; elsewhere lines, and one of its own where nothing else says anything."""

import io
import os
import pty
import time
from collections.abc import Iterator

import pytest

from dasd_assets.commands.display import display, shown
from dasd_assets.records.progress import logged


def test_without_a_terminal_a_silence_ends_in_a_line() -> None:
    stream = io.StringIO()
    with display(stream, silent_seconds=0.05) as made:
        made.begin("student_logprobs")
        made.say("begun")
        for _ in logged(range(3), 400, "responses", lambda line: None):
            pass
        time.sleep(0.3)
        made.begin(None)
    lines = stream.getvalue().splitlines()
    assert "begun" in lines
    assert any("student_logprobs: under way for " in line and " s, 3/400 responses " in line for line in lines)
    assert "\x1b" not in stream.getvalue()


def test_while_lines_come_none_is_added() -> None:
    stream = io.StringIO()
    with display(stream, silent_seconds=5.0) as made:
        made.begin("prompts")
        made.say("one")
    assert stream.getvalue() == "one\n"


def test_a_display_is_known_while_it_is_there() -> None:
    assert shown() is None
    with display(io.StringIO()) as made:
        assert shown() is made
    assert shown() is None


@pytest.fixture
def terminal() -> Iterator[tuple[int, io.TextIOWrapper]]:
    reader, writer = pty.openpty()
    with os.fdopen(writer, "w") as stream:
        yield reader, stream
    os.close(reader)


def test_a_terminal_has_a_bar_with_rate_and_time_left(terminal: tuple[int, io.TextIOWrapper]) -> None:
    reader, stream = terminal
    with display(stream) as made:
        made.begin("teacher_generations_t060")
        for number in logged(range(3), 4, "responses", lambda line: None):
            time.sleep(0.06 * (number > 0))
        made.say("[a line]")
        time.sleep(0.25)
    text = os.read(reader, 100_000).decode()
    assert "teacher_generations_t060" in text
    assert "[a line]" in text
    assert "3/4" in text
    assert "responses" in text
    assert " left" in text
