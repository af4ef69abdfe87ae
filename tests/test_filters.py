"""The catalogue of filters, and the verdicts on form: each with its reason."""

from dataclasses import replace

import pytest

from dasd_assets.rules.filters.catalogue import FILTERS, Response, correctness, judge, required_filters
from dasd_assets.rules.filters.form import length, structure, truncation
from dasd_assets.rules.verdict import Verdict, VerdictKind, judge_answer
from dasd_resources.recipe import Filters, Repetition, Thinking

LIMITS = Repetition(ngram_sizes=(20, 50), max_duplicate_share=0.3, tail_tokens=256, max_tail_share=0.5)
SETTINGS = Filters(max_student_tokens=512, repetition=LIMITS, require_correct=True, apply="before_selection")
REPORTED = ("length", "truncation", "structure", "repetition")
OTHERS = ("correctness", "refusal", "language", "box", "relevance", "work")
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


def test_a_good_response_passes_everything_in_order() -> None:
    verdicts = judge(GOOD, SETTINGS)
    assert tuple(verdicts) == tuple(FILTERS) == (*REPORTED, *OTHERS)
    values = {"length": 31, "repetition": 0.0, "language": 0.0, "work": 0}
    assert verdicts == {name: Verdict(True, value=values.get(name)) for name in FILTERS}


def test_each_fault_is_reported_by_its_own_filter() -> None:
    text = "<think>\n" + "2 + 3 = 6. " * 99
    bad = replace(GOOD, text=text, token_ids=[7] * 300, finish_reason="length", num_student_tokens=513)
    failed = {name: verdict for name, verdict in judge(bad, SETTINGS).items() if not verdict.passed}
    assert failed == {
        "length": Verdict(False, "too_long", "513 student tokens, at most 512", 513),
        "truncation": Verdict(False, "cut_off", "cut off: finish_reason is length"),
        "structure": Verdict(False, "no_final_answer", "no final answer"),
        "repetition": Verdict(
            False,
            "repeated_sentences",
            "1.00 of 256 tokens are a loop, at most 0.7: '2 + 3 = 6.'; "
            "1.00 of the last 256 tokens are a loop, at most 0.5: '2 + 3 = 6.'",
            2.0,
        ),
        "correctness": Verdict(False, "no_final_answer", "no final answer"),
        "work": Verdict(False, "wrong_step", "does not hold: 2 + 3 = 6; 2 + 3 = 6; 2 + 3 = 6", 99),
    }


def test_what_the_report_does_not_list_drops_only_on_request() -> None:
    assert required_filters(require_correct=False) == REPORTED
    assert required_filters(require_correct=True) == (*REPORTED, "correctness")
    assert required_filters(False, ["box", "refusal"]) == (*REPORTED, "refusal", "box")


def test_a_value_passes_exactly_on_its_side_of_the_limit() -> None:
    refuses = replace(GOOD, text="<think>\nNo.\n</think>\nI must decline. " + "It is so. " * 80)
    texts = [
        GOOD.text,
        refuses.text,
        refuses.text[:60],
        "<think>\n" + "首先我们计算。" * 9 + "\n</think>\n5",
        "2 + 3 = 6. " * 99,
    ]
    question = r"Which pears, plums and quinces were there? Put it in \boxed{}."
    judged = [judge(replace(GOOD, text=text, question=question), SETTINGS) for text in texts]
    seen = set()
    for name, entry in FILTERS.items():
        values = [verdicts[name] for verdicts in judged if verdicts[name].value is not None]
        assert (entry.measure is not None) == bool(values), name
        for verdict in values if entry.measure else []:
            limit, at_most = entry.measure.limit(SETTINGS), entry.measure.at_most
            assert verdict.passed == (verdict.value <= limit if at_most else verdict.value >= limit), name
            seen.add((name, verdict.passed))
    assert {name for name, passed in seen if not passed} == {"repetition", "refusal", "language", "box", "relevance"}


def test_length_and_truncation_at_their_bounds() -> None:
    assert length(512, 512) == Verdict(True, value=512)
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
    reason = "calls a tool: 'in a message header'"
    assert structure(GOOD.text, tool_call=True) == Verdict(False, "tool_call", reason)
    reason = "calls a tool: '<function=add>{\"a\": 2}</function>'"
    assert structure(GOOD.text + '<function=add>{"a": 2}</function>', False) == Verdict(False, "tool_call", reason)


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
