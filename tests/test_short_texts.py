"""Which short texts the repetition filter is spared: never one in which it finds anything."""

import passages_dev
import passages_heldout
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd_assets.rules.filters.loops import MIN_MASKED_CHARS
from dasd_assets.rules.filters.repeats import repetition
from dasd_assets.rules.filters.short_texts import may_repeat
from dasd_resources.recipe import load_recipe

LIMITS = load_recipe("dasd-4b").filters.repetition
SOUND = "<think>\nThe totals in turn: 13, 9, 17, 16.\n</think>\nThe answer is 16."
SAID_AGAIN = "The sum of all the digits is nine. "
REPEATING = {
    "sentence": SAID_AGAIN * 4,
    "word": "so " * 30,
    "phrase among others": " ".join(f"it is not the word {chr(97 + n)}{chr(98 + n)}," for n in range(25)),
    "syllable": "哈" * 40,
    "one long run": "a" * 400,
    "pattern": "1 + 2 = 3 ; " * 40,
    "lines": "\n".join("one line" for _ in range(20)),
    "masked numbers": " ".join(f"Maybe the answer is now {n}." for n in range(40)),
}


def value(text: str) -> float | None:
    return repetition(text, range(len(text) // 3), LIMITS).value


@pytest.mark.parametrize("text", REPEATING.values(), ids=REPEATING)
def test_a_text_in_which_something_is_said_again_is_looked_at(text: str) -> None:
    assert value(text)
    assert may_repeat([SOUND, text, SOUND]) == [False, True, False]


def test_what_another_text_says_is_not_said_again() -> None:
    assert may_repeat([SOUND] * 600) == [False] * 600
    assert may_repeat([]) == []
    assert may_repeat(["", SAID_AGAIN, "\\", SAID_AGAIN]) == [False] * 4


def test_a_long_text_is_looked_at_whatever_it_says() -> None:
    words = " ".join(f"{chr(97 + n // 26)}{chr(97 + n % 26)}x" for n in range(400))
    assert may_repeat([words[: MIN_MASKED_CHARS - 1], words[:MIN_MASKED_CHARS]]) == [False, True]


def test_pieces_of_passages_are_spared_only_where_there_is_no_repetition() -> None:
    every = [*passages_dev.DEGENERATE.values(), *passages_dev.SOUND.values(), *passages_heldout.DEGENERATE.values()]
    pieces = [text[at : at + size] for text in every for size in (60, 200, 700) for at in (0, len(text) // 2)]
    spared = [text for text, may in zip(pieces, may_repeat(pieces), strict=True) if not may]
    assert len(pieces) // 5 < len(spared) < len(pieces)
    assert not any(map(value, spared))


@given(st.lists(st.tuples(st.text("a1b \n.哈\\\u2028-", max_size=12), st.integers(1, 40)), max_size=12))
@settings(max_examples=150, deadline=None)
def test_what_is_spared_has_no_repetition(parts: list[tuple[str, int]]) -> None:
    texts = [part * times for part, times in parts]
    assert [may or not value(text) for text, may in zip(texts, may_repeat(texts), strict=True)] == [True] * len(texts)
