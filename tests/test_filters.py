"""Filters: hand-computed shares, and every verdict with its reason."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd_assets.evaluation import judge_answer
from dasd_assets.rules.filters import (
    FILTERS,
    Response,
    correctness,
    duplicate_ngram_share,
    judge,
    length,
    repeated_phrase_share,
    repeated_unit_share,
    repeating_tail_share,
    repetition,
    required_filters,
    structure,
    truncation,
)
from dasd_assets.rules.verdict import Verdict, VerdictKind
from dasd_resources.recipe import Filters, Repetition, Thinking

LIMITS = Repetition(ngram_sizes=(20, 50), max_duplicate_share=0.3, tail_tokens=256, max_tail_share=0.5)
SETTINGS = Filters(max_student_tokens=512, repetition=LIMITS, require_correct=True, apply="before_selection")
GOOD = Response(
    text="<think>\n2 + 3 = 5.\n</think>\nThe answer is 5.",
    token_ids=list(range(30)),
    finish_reason="stop",
    tool_call=False,
    num_student_tokens=31,
    question="2 + 3 =",
    reference_answer="5",
    verifier="reasoning_gym:chain_sum",
    metadata="{}",
)


def array(ids: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(ids, dtype=np.int64)


def test_a_good_response_passes_everything_in_order() -> None:
    verdicts = judge(GOOD, SETTINGS)
    assert tuple(verdicts) == tuple(FILTERS) == ("length", "truncation", "structure", "repetition", "correctness")
    assert set(verdicts.values()) == {Verdict(True, None, None)}


def test_each_fault_is_reported_by_its_own_filter() -> None:
    bad = replace(GOOD, text="<think>\n2 + 3 = 6", token_ids=[7] * 300, finish_reason="length", num_student_tokens=513)
    assert judge(bad, SETTINGS) == {
        "length": Verdict(False, "too_long", "513 student tokens, at most 512"),
        "truncation": Verdict(False, "cut_off", "cut off: finish_reason is length"),
        "structure": Verdict(False, "no_final_answer", "no final answer"),
        "repetition": Verdict(
            False,
            "repeated_ngrams",
            "duplicate 20-grams make up 1.00, at most 0.3; duplicate 50-grams make up 1.00, at most 0.3; "
            "a loop makes up 1.00 of the last tokens, at most 0.5",
        ),
        "correctness": Verdict(False, "no_final_answer", "no final answer"),
    }


def test_correctness_drops_only_on_request() -> None:
    assert required_filters(require_correct=True) == tuple(FILTERS)
    assert required_filters(require_correct=False) == ("length", "truncation", "structure", "repetition")


def test_length_and_truncation_at_their_bounds() -> None:
    assert length(512, 512) == Verdict(True)
    assert not length(513, 512).passed
    assert truncation("stop") == Verdict(True)


@pytest.mark.parametrize(
    ("text", "kind", "reason"),
    [
        ("<think>\na\n</think>\nb", None, None),
        ("b", "no_thinking", "no thinking part"),
        ("<think>\n\n</think>\nb", "no_thinking", "no thinking part"),
        ("<think>\na\n</think>\n \n", "no_final_answer", "no final answer"),
        ("<think>\na\n</think>\nb</think>", "extra_delimiters", "2 </think> delimiters, exactly 1 expected"),
        ("<think>\na <think> b\n</think>\nc", "extra_delimiters", "2 <think> delimiters, exactly 1 expected"),
        ("", "no_thinking", "no thinking part; no final answer"),
    ],
)
def test_structure(text: str, kind: VerdictKind | None, reason: str | None) -> None:
    assert structure(text, tool_call=False) == Verdict(reason is None, kind, reason)


UNASKED = "a thinking part, where teacher.thinking is none"
BOTH, ANSWER, EMPTY = "<think>\na\n</think>\nb", "b", "<think>\n \n</think>\nb"


@pytest.mark.parametrize(
    ("thinking", "passed"),
    [("required", [True, False, False]), ("optional", [True, True, True]), ("none", [False, True, True])],
)
def test_a_thinking_part_as_the_recipe_has_it(thinking: Thinking, passed: list[bool]) -> None:
    assert [structure(text, False, thinking).passed for text in (BOTH, ANSWER, EMPTY)] == passed
    assert FILTERS["structure"].judge(replace(GOOD, text="b", thinking=thinking), SETTINGS).passed is passed[1]


@pytest.mark.parametrize(
    ("thinking", "text", "kind", "reason"),
    [
        ("none", BOTH, "unexpected_thinking", "a thinking part, where teacher.thinking is none"),
        (
            "none",
            "<think>\na",
            "unexpected_thinking",
            "a thinking part, where teacher.thinking is none; no final answer",
        ),
        ("none", " \n", "no_final_answer", "no final answer"),
        ("none", "<think>\n\n</think>\n", "no_final_answer", "no final answer"),
        ("none", "b <think> c", "extra_delimiters", "1 <think> delimiters, exactly 0 expected"),
        ("optional", "b </think> c", "extra_delimiters", "1 </think> delimiters, exactly 0 expected"),
        ("optional", f"{BOTH}</think>", "extra_delimiters", "2 </think> delimiters, exactly 1 expected"),
        ("optional", "<think>\na", "no_final_answer", "no final answer"),
        ("required", "b <think> c", "no_thinking", "no thinking part"),
    ],
)
def test_faults_of_a_response_that_need_not_think(
    thinking: Thinking, text: str, kind: VerdictKind, reason: str
) -> None:
    assert structure(text, False, thinking) == Verdict(False, kind, reason)


def test_a_tool_call_is_a_fault_of_structure() -> None:
    assert structure(GOOD.text, tool_call=True) == Verdict(False, "tool_call", "calls a tool")


def test_correctness() -> None:
    assert correctness(replace(GOOD, verifier=None, reference_answer=None)) == Verdict(
        True, "no_verifier", "no verifier"
    )
    wrong = replace(GOOD, text="<think>\n2 + 3 = 5.\n</think>\nThe answer is 6.")
    assert correctness(wrong) == Verdict(False, "wrong_answer", "reasoning_gym:chain_sum: answer '6', expected '5'")


def test_an_answer_that_is_judged_without_a_reference() -> None:
    metadata = '{"instruction_id_list": ["punctuation:no_comma"]}'
    free = replace(GOOD, verifier="constraint", reference_answer=None, metadata=metadata)
    assert correctness(free) == Verdict(True)
    question = {"verifier": "constraint", "question": "q", "reference_answer": None, "metadata": metadata}
    assert judge_answer(GOOD.text, question) == Verdict(True)
    assert judge_answer("<think>\na\n</think>\nYes, 5.", question).reason == (
        "constraint: 0 of 1 instructions followed, not punctuation:no_comma"
    )


def test_a_blank_answer_fails_and_keeps_the_kind_of_stored_rows() -> None:
    blank, missing = ("<think>\n2 + 3 = 5.\n</think>\n \n", "<think>\n2 + 3 = 5.")
    question = {"verifier": GOOD.verifier, "question": GOOD.question, "reference_answer": "5", "metadata": "{}"}
    none = Verdict(False, "no_final_answer", "no final answer")
    assert judge_answer(missing, question) == judge_answer(blank, question) == none
    assert correctness(replace(GOOD, text=missing)) == none
    empty = Verdict(False, "wrong_answer", "reasoning_gym:chain_sum: the answer is empty")
    assert correctness(replace(GOOD, text=blank)) == empty


def test_ngram_shares_by_hand() -> None:
    assert duplicate_ngram_share(array([1, 2, 1, 2, 1, 2]), 2) == pytest.approx(3 / 5)  # 12 21 12 21 12
    assert duplicate_ngram_share(array([1, 2, 3, 4, 5, 6]), 3) == 0.0
    assert duplicate_ngram_share(array([7] * 40), 20) == pytest.approx(20 / 21)
    assert duplicate_ngram_share(array([7] * 39), 20) == 0.0  # fewer than 2 n tokens
    assert duplicate_ngram_share(array([]), 1) == 0.0


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=200), st.integers(1, 60))
def test_ngram_shares_are_those_of_a_counter(ids: list[int], size: int) -> None:
    ngrams = Counter(tuple(ids[i : i + size]) for i in range(len(ids) - size + 1))
    total = sum(ngrams.values())
    expected = 1 - len(ngrams) / total if len(ids) >= 2 * size else 0.0
    assert duplicate_ngram_share(array(ids), size) == pytest.approx(expected)


def test_tail_shares_by_hand() -> None:
    assert repeating_tail_share(array([9, 8, 1, 2, 1, 2, 1, 2, 5, 6]), 100) == pytest.approx(6 / 10)
    assert repeating_tail_share(array([9, 8, 1, 2, 1, 2, 1, 2, 1, 6]), 100) == pytest.approx(7 / 10)
    assert repeating_tail_share(array([1, 2, 3, 1, 2, 3]), 100) == 0.0  # said twice only
    assert repeating_tail_share(array([4, 4, 4, 1, 2, 3, 5, 6]), 4) == 0.0  # the loop lies before the tail
    assert repeating_tail_share(array([]), 4) == 0.0


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 40))
def test_tail_shares_are_those_of_a_search(ids: list[int], tail_tokens: int) -> None:
    tail = ids[-tail_tokens:]
    size = len(tail)
    stretches = [(a, b, p) for a in range(size) for b in range(a + 1, size + 1) for p in range(1, (b - a) // 3 + 1)]
    longest = max((b - a for a, b, p in stretches if tail[a + p : b] == tail[a : b - p]), default=0)
    assert repeating_tail_share(array(ids), tail_tokens) == pytest.approx(longest / max(size, 1))


def test_unit_shares_by_hand() -> None:
    line, short = "this line has twenty-six c", "Wait."
    assert repeated_unit_share([line, line, short, short, short, ""]) == pytest.approx(26 / (52 + 15))
    assert repeated_unit_share([line, f" {line}\n", line]) == pytest.approx(2 / 3)
    assert repeated_unit_share([]) == 0.0


def test_phrase_shares_by_hand() -> None:
    assert repeated_phrase_share("I will go on. " + "and on, " * 10 + "so.") == pytest.approx(72 / 97)
    assert repeated_phrase_share("and on, " * 7) == 0.0
    assert repeated_phrase_share("-" * 50) == 0.0  # a rule, no phrase
    assert repeated_phrase_share("") == 0.0


@pytest.mark.parametrize(
    ("unit", "kind"),
    [
        ("First we add the two numbers\nthen we stop\n\n", "repeated_paragraphs"),
        ("So the total of these is 5. ", "repeated_sentences"),
        ("所以答案应该是五个苹果加上三个橘子一共是八个水果。", "repeated_sentences"),
        ("and so on, ", "repeated_phrases"),
    ],
)
def test_repeated_text_is_found_where_token_ids_are_not(unit: str, kind: str) -> None:
    verdict = repetition(unit * 12, list(range(100)), LIMITS)
    assert not verdict.passed
    assert verdict.kind == kind
    assert f"{kind.replace('_', ' ')} make up 0." in (verdict.reason or "")


def test_a_loop_alone_is_a_kind_of_its_own() -> None:
    verdict = repetition("One two.", [*range(1000), *[1, 2] * 80], LIMITS)
    assert (verdict.passed, verdict.kind) == (False, "looping_tail")
    assert verdict.reason == "a loop makes up 0.62 of the last tokens, at most 0.5"


def test_sound_text_passes() -> None:
    steps = "\n".join(f"Adding {i} to {i * i} gives {i * i + i}. The total is now {i * i + i}." for i in range(40))
    assert repetition(f"<think>\n{steps}\n</think>\nThe answer is 1560.", list(range(900)), LIMITS) == Verdict(True)
