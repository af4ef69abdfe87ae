import pytest
from conftest import change

from dasd_assets.commands.check.batch_sizes import (
    MOST_RESPONSES,
    batch_sizes,
    imported_batch_sizes,
    questions_per_batch,
)
from dasd_assets.commands.check.landed import Prompts
from dasd_assets.commands.check.landed_responses import Found
from dasd_assets.commands.check.outcome import CheckWarning
from dasd_resources.landing.response_files import LandedResponse
from dasd_resources.recipe import Recipe, load_recipe


def landed(*per_file: int) -> Prompts:
    files = {f"{index}.jsonl": number for index, number in enumerate(per_file)}
    return Prompts(sum(per_file), None, frozenset(), per_file=files)


def split(number: int | None) -> Recipe:
    return change(load_recipe("demo"), "landing.questions_per_batch", number)


def test_a_large_file_is_as_many_batches_as_it_is_split_into() -> None:
    assert list(questions_per_batch(split(None), [7, 3])) == [7, 3]
    assert list(questions_per_batch(split(3), [7, 3])) == [3, 3, 1, 3]


def test_batches_of_a_good_size_are_counted() -> None:
    assert batch_sizes(split(None), landed(800, 700)) == "2 of 4,200 to 4,800 responses (6 of each question)"
    assert batch_sizes(split(None), landed()) == "none has landed"


def test_a_batch_too_large_is_split_as_the_message_says() -> None:
    with pytest.raises(CheckWarning, match=r"1 of 630,000 to 630,000 .*: beyond 64,000 .*_per_batch: 10666$"):
        batch_sizes(split(None), landed(105_000))
    assert batch_sizes(split(MOST_RESPONSES // 6), landed(105_000)).startswith("10 of 54,036 to 63,996 responses")


def test_fewer_long_responses_are_too_many() -> None:
    report = load_recipe("dasd-4b")
    assert batch_sizes(report, landed(105_000)).startswith("525 of 3,200 to 3,200 responses")
    with pytest.raises(CheckWarning, match=r"beyond 3,906 as long as these may be, .*_per_batch: 244$"):
        batch_sizes(change(report, "landing.questions_per_batch", 300), landed(105_000))


def test_many_batches_too_small_are_named() -> None:
    assert batch_sizes(split(None), landed(*[10] * 20))
    with pytest.raises(CheckWarning, match=r"21 of 60 to 60 responses .*: 21 have fewer than 1,000, .* larger files"):
        batch_sizes(split(None), landed(*[10] * 21))


def test_landed_responses_go_with_their_question_whatever_file_and_line_they_stand_in() -> None:
    found = Found(rows_per_batch=2)
    rows = [("a", 2, "q1"), ("a", 2, "q1"), ("a", 22, "q2"), ("a", 42, "q3"), ("b", 1, "q1"), ("b", 2, "q4")]
    for file, line, question in rows:
        found.add(LandedResponse("", question, f"{file} {line}", None, file, line, 0, "text", None, None, "stop"))
    assert found.per_batch == {("a", 0): 4, ("a", 1): 1, ("b", 0): 1}
    assert imported_batch_sizes(found) == "3 of 1 to 4 responses"
    assert imported_batch_sizes(Found()) == "none has landed"
    found.per_batch["a", 0] = 630_000
    with pytest.raises(CheckWarning, match=r"beyond 64,000 .* before a whole batch is scored; .*_per_batch: 1$"):
        imported_batch_sizes(found)
