"""What `dasd check` says of a teacher's first answers."""

import pytest

from dasd_assets.commands.check.begun_answers import Begun, thinking_found
from dasd_resources.recipe import Thinking

THINKS, ANSWERS, GOES_ON = Begun(True, False), Begun(False, True), Begun(False, False)


@pytest.mark.parametrize(
    ("begun", "thinking", "status", "message"),
    [
        ([THINKS] * 3, "required", "ok", "3 of 3 answers have a thinking part"),
        ([ANSWERS, GOES_ON], "none", "ok", "none of 2 answers has a thinking part"),
        ([ANSWERS, THINKS], "optional", "ok", "1 of 2 answers has a thinking part"),
        (
            [ANSWERS] * 3,
            "required",
            "failed",
            "none of 3 answers has a thinking part, but teacher.thinking is required: every response would be dropped; "
            "write teacher.thinking: none if the teacher is not to think, optional to keep both kinds",
        ),
        (
            [THINKS] * 3,
            "none",
            "failed",
            "3 of 3 answers have a thinking part, but teacher.thinking is none: every response would be dropped; "
            "write teacher.thinking: required if the teacher is to think, optional to keep both kinds",
        ),
        (
            [ANSWERS, GOES_ON],
            "required",
            "warning",
            "none of 2 answers has a thinking part in its first 32 tokens, and responses without one are dropped "
            "(teacher.thinking: required); write teacher.thinking: none if the teacher is not to think, optional to "
            "keep both kinds",
        ),
        (
            [THINKS, ANSWERS],
            "none",
            "warning",
            "1 of 2 answers has a thinking part in its first 32 tokens, and responses with one are dropped "
            "(teacher.thinking: none); write teacher.thinking: required if the teacher is to think, optional to keep "
            "both kinds",
        ),
    ],
)
def test_what_is_found_and_what_to_write(begun: list[Begun], thinking: Thinking, status: str, message: str) -> None:
    assert thinking_found(begun, thinking) == (status, message)
