"""Repetition: shares by hand, and precision and recall on both halves of the passages."""

import re
from itertools import pairwise
from types import ModuleType

import numpy as np
import passages_dev
import passages_heldout
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd_assets.rules.filters.repeats import densest, repetition
from dasd_assets.rules.filters.units import units
from dasd_assets.rules.verdict import Verdict
from dasd_resources.recipe import Repetition, load_recipe

LIMITS = load_recipe("dasd-4b").filters.repetition
SOUND_BEFORE = "\n\n".join(passages_dev.SOUND.values()) + "\n\n"
TOKEN = re.compile(r"\s?\w{1,6}|\s?[^\w\s]|\s")


def judged(text: str, limits: Repetition = LIMITS) -> Verdict:
    return repetition(text, range(len(TOKEN.findall(text))), limits)


def precision_and_recall(passages: ModuleType, before: str = "") -> tuple[float, float]:
    wrong = [name for name, text in passages.SOUND.items() if not judged(before + text).passed]
    missed = [name for name, text in passages.DEGENERATE.items() if judged(before + text).passed]
    found = len(passages.DEGENERATE) - len(missed)
    print(wrong, missed)
    return found / (found + len(wrong)), found / len(passages.DEGENERATE)


@pytest.mark.parametrize("before", ["", SOUND_BEFORE], ids=["alone", "behind 12K sound tokens"])
@pytest.mark.parametrize("passages", [passages_dev, passages_heldout], ids=["dev", "held-out"])
def test_passages(passages: ModuleType, before: str) -> None:
    assert len(passages.SOUND) == len(passages.DEGENERATE) == 30
    precision, recall = precision_and_recall(passages, before)
    assert precision >= 0.97
    assert recall >= 0.95


def test_no_piece_of_a_passage_is_in_both_halves() -> None:
    dev, heldout = (passages.SOUND | passages.DEGENERATE for passages in (passages_dev, passages_heldout))
    assert set(dev.values()).isdisjoint(heldout.values())


@pytest.mark.parametrize(
    "loop",
    [
        "The sum of the digits has to be divisible by nine, and it is. " * 130,
        " ".join(f"Wait, maybe the answer is {n}." for n in range(301, 900)),
        " ".join(f"等等，答案也许是{n}。" for n in range(301, 900)),
        "\n\n".join([*passages_dev.PROSE, passages_dev.FUNCTION] * 5),
    ],
    ids=["exact", "counter", "Chinese counter", "cycle of 700 tokens"],
)
def test_a_loop_behind_sound_text_is_found_wherever_it_stands(loop: str) -> None:
    assert judged(SOUND_BEFORE).passed
    for text in (SOUND_BEFORE + loop, loop + "\n" + SOUND_BEFORE):
        assert not judged(text).passed


def test_the_reason_says_how_much_and_of_what() -> None:
    verdict = judged("Let us see. " + "That is not possible. " * 90)
    assert (verdict.passed, verdict.kind) == (False, "repeated_ngrams")
    assert verdict.reason == (
        "0.99 of the response is n-grams said again and again, at most 0.3: '. That is not possible'; "
        "1.00 of 256 tokens are a loop, at most 0.7: '. That is not possible'; "
        "0.99 of the last 4096 tokens are a loop, at most 0.5: '. That is not possible'"
    )
    assert verdict.value == pytest.approx(0.9925 / 0.3, abs=0.01)


@pytest.mark.parametrize(
    ("unit", "kind"),
    [
        ("First we add the two numbers {}\n\nthen we stop\n\n", "repeated_paragraphs"),
        ("So the total of these is {}. ", "repeated_sentences"),
        ("and so on with {}, ", "repeated_phrases"),
    ],
)
def test_a_loop_is_named_for_what_it_says(unit: str, kind: str) -> None:
    assert judged("".join(unit.format(n * n) for n in range(40))).kind == kind


def test_cases_with_results_of_their_own_are_work_and_a_counter_is_none() -> None:
    cases = " ".join(f"For n = {n}, the remainder is {n * n % 11}, so it does not work." for n in range(3, 45))
    assert judged(cases).passed
    assert not judged(" ".join(f"For n = {n}, let me see, it does not work." for n in range(3, 45))).passed


def test_a_list_of_the_same_short_items_never_ends() -> None:
    items = ["Be patient.", "Stay calm.", "Ask for help.", "Write it down."]
    assert not judged("\n".join(f"{n}. {items[n * n % 7 % 4]}" for n in range(150))).passed
    assert judged("\n".join(f"{n}. {items[n * n % 7 % 4]}" for n in range(15))).passed


def test_the_limits_decide() -> None:
    text = passages_dev.PROSE[0] + " " + "So the sum is even, as it was before. " * 5 + passages_dev.PROSE[1]
    share = judged(text).value
    assert share is not None and 0.3 < share < 1
    assert judged(text, LIMITS.model_copy(update={"max_loop_share": 0.2})).kind == "repeated_sentences"
    assert judged(text, LIMITS.model_copy(update={"window_tokens": 50})).kind == "repeated_sentences"
    assert judged(text, LIMITS.model_copy(update={"max_tail_share": 0.1})).kind == "looping_tail"


def test_an_empty_text_and_a_blank_one_pass() -> None:
    assert judged("") == judged(" ") == Verdict(True, value=0.0)


# --- units


def texts_of(text: str) -> list[str]:
    bounds = units(text).bounds.tolist()
    return [text[start:stop] for start, stop in pairwise(bounds)]


def test_units_by_hand() -> None:
    assert texts_of("Wait, 12 or\n  3.5?") == ["Wait", ", ", "12 ", "or", "\n", "  ", "3", ".", "5", "?"]
    assert texts_of("答案是31。") == ["答", "案", "是", "31", "。"]
    assert texts_of("a" * 40) == ["a" * 16, "a" * 16, "a" * 8]
    found = units(r"\frac{ab}{第三}")
    assert found.is_word.tolist() == [False, False, False, True, False, False, True, False, False]
    assert found.is_number.tolist() == [False] * 7 + [True, False]


def test_numbers_and_single_letters_are_masked() -> None:
    one, other = (units(text) for text in ("so x is 12, 第三十一", "so y is 7, 第九"))
    assert one.masked.tolist() == other.masked.tolist()
    assert one.exact.tolist() != other.exact.tolist()


words = st.lists(st.sampled_from(["a", "bb", "ccc", "7", "12", ".", ",", "\n", "  ", "答", "𝛑", "\ud800"]), max_size=60)


@settings(deadline=None)
@given(words.map(" ".join) | st.text(max_size=60))
def test_units_are_alike_exactly_where_their_text_is(text: str) -> None:
    found, parts = units(text), texts_of(text)
    first = int(found.bounds[0])
    assert text[first:] == "".join(parts)
    # What follows a unit belongs to its width, not to it: a single blank.
    shown = [part[:-1] if len(part) > 1 and part[-1].isspace() and not part.isspace() else part for part in parts]
    alike = {}
    for part, value in zip(shown, found.exact.tolist(), strict=True):
        if not part.isspace():
            assert alike.setdefault(part, value) == value
    assert len(set(alike.values())) == len(alike)


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=60), st.floats(0.05, 1))
def test_no_window_is_denser_than_the_densest(flags: list[bool], size: float) -> None:
    found = units("word " * len(flags))
    share, start, stop = densest(np.array(flags), found, size)
    length = max(stop - start, 1)
    assert share * length == pytest.approx(sum(flags[start:stop]), abs=1)
    width = max(round(size * len(flags)), 1)
    assert all(sum(flags[at : at + width]) / width <= share + 1.01 / width for at in range(len(flags) - width + 1))
