"""Verifiers: extraction of answers, equality of each kind, and that no answer is executed or raises."""

import json
from importlib.metadata import version

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd_resources.verifiers.catalogue import (
    VERIFIER_VERSION,
    VERIFIERS,
    Verifier,
    known_verifier,
    reference_fault,
    unknown_verifier,
    verifier_names,
    verify,
)
from dasd_resources.verifiers.final_answer import MAX_ANSWER_CHARS, extract_answer
from dasd_resources.verifiers.judgement import Asked, Judgement


def judged(verifier: str, answer: str, reference: str, metadata: str = "{}") -> Judgement:
    return verify(verifier, answer, Asked("q", reference, metadata))


def correct(verifier: str, answer: str, reference: str, metadata: str = "{}") -> bool:
    return judged(verifier, answer, reference, metadata).outcome == "correct"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 5.", "5"),
        ("The answer is 3.5.", "3.5"),
        ("The answer is -7", "-7"),
        ("First the answer is 4. No, the ANSWER IS 5. Done.", "5"),
        ("**Answer:** 42", "42"),
        ("**Answer**: `42`", "42"),
        ("**The answer is 42.**", "42"),
        ("Answer:\n\n$$\\frac{1}{2}$$\nas shown.", "\\frac{1}{2}"),
        ("The answer is: \\(x+1\\).", "x+1"),
        ("The answer is f(x)", "f(x)"),
        ("So \\boxed{5} it is; the answer is 6.", "5"),
        ("\\boxed{1} then \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed {7}", "7"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed{[1, 2\\}}", "[1, 2\\}"),
        ("in {x, \\boxed{5}", "5"),
        ("\\boxed{3} and \\boxed{4", "3"),
        ("\\boxed{a \\boxed{b}}", "b"),
        ("} \\boxed{5}", "5"),
        ("\\boxed{", "\\boxed{"),
        ("So \\boxed{\\text{ Paris}}.", "Paris"),
        ("The answer is $\\textbf{Paris}$.", "Paris"),
        ("\\boxed{\\text{Paris} or \\text{Rome}}", "\\text{Paris} or \\text{Rome}"),
        ("\\boxed{5\\text{ cm}}", "5\\text{ cm}"),
        ("  12.\n", "12"),
        ("So:\n<answer>\n 5 </answer>\nThe answer is 6.", "5"),
        ("<answer>4</answer> no: <answer>The answer is 5.</answer>", "5"),
        ("<answer>4</answer> \\boxed{5}", "5"),
        ("</answer>5<answer>", "</answer>5<answer>"),
        ("What is the answer:", "What is the answer:"),
        ("The answering machine: 3", "The answering machine: 3"),
        ("...", "..."),
        ("", ""),
    ],
)
def test_the_final_answer(text: str, expected: str) -> None:
    assert extract_answer(text) == expected


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("5", "5"),
        ("5.0", "5"),
        ("+5", "5"),
        ("\N{MINUS SIGN}5", "-5"),
        ("1,234,567", "1234567"),
        ("1{,}234", "1234"),
        (".5", "\\frac{1}{2}"),
        ("1/2", "\\dfrac{2}{4}"),
        ("-\\frac{1}{2}", "-0.5"),
        ("\\frac{-1}{2}", "-1/2"),
        ("1\\frac{1}{2}", "3/2"),
        ("2 1/2", "2.5"),
        ("5\\%", "0.05"),
        ("$5", "5"),
        ("\\$5.00", "5"),
        ("90^\\circ", "90"),
        ("90^{\\circ}", "90"),
        ("5 cm", "5"),
        ("5\\text{ cm}", "5\\,\\mathrm{cm}"),
        ("5 hours", "5 hour"),
        ("x = 5", "5"),
        ("1.5e3", "1500"),
        ("1.5 \\times 10^{3}", "1500"),
        ("\\left(x + 1\\right)", "(x+1)"),
        ("\\text{even}", "even"),
    ],
)
def test_equal_in_maths(answer: str, reference: str) -> None:
    assert judged("math", f"\\boxed{{{answer}}}", reference) == Judgement("correct")


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ("0.333", "1/3"),
        ("-5", "5"),
        ("1,2", "12"),
        ("5 million", "5"),
        ("5x", "5"),
        ("5 pi", "5"),
        ("5 m", "5 cm"),
        ("5 or 6", "5"),
        ("1/0", "1"),
        ("5", "x"),
        ("x", "5"),
        ("X", "x"),
        ("x\u00b2", "x2"),
        ("9" * 5000, "5"),
        ("1e999", "1"),
        ("__import__('os').getpid()", "5"),
        ("5\\%", "5"),
        ("5", "5\\%"),
    ],
)
def test_different_in_maths(answer: str, reference: str) -> None:
    assert not correct("math", f"\\boxed{{{answer}}}", reference)


def test_exact_ignores_case_whitespace_and_markup_only() -> None:
    assert correct("exact", "**Blue  Whale**", "blue whale")
    assert correct("exact", "The answer is e\u0301.", "\u00e9")
    assert not correct("exact", "blue whales", "blue whale")
    for answer, reference in (
        ("The answer is St. Louis.", "St. Louis"),
        ("**Answer:** The U.S. dollar.\nIt is.", "the U.S. dollar"),
    ):
        assert correct("exact", answer, reference)
        assert not correct("exact", answer.replace("Lou", "Pau").replace("doll", "coll"), reference)
        assert not correct("exact", f"{answer} \\boxed{{Rome}}", reference)
    assert not correct("exact", "The answer is Rome. St. Louis is wrong.", "St. Louis")
    assert not correct("exact", "5.0", "5")


@pytest.mark.parametrize("verifier", ["math", "numeric", "exact", "json", "reasoning_gym:gcd", "multiple_choice"])
def test_answer_tags(verifier: str) -> None:
    right, wrong = ("B", "C") if verifier == "multiple_choice" else ("7", "8")
    assert correct(verifier, f"It may be {wrong}, but\n<answer>{right}</answer>", right)
    assert not correct(verifier, f"It may be {right}, but\n<answer>{wrong}</answer>", right)


@pytest.mark.parametrize(
    "answer", ["B", "(B)", "b", "B. mitochondria", "Option B", "\\boxed{\\text{(B)}}", "**B**", "B)"]
)
def test_a_choice_in_any_wording(answer: str) -> None:
    assert correct("multiple_choice", answer, "B")
    assert correct("multiple_choice", f"The answer is {answer}", "(B)") or "boxed" in answer


@pytest.mark.parametrize("answer", ["C", "B and C", "Bob", "a bird", "", "42"])
def test_no_such_choice(answer: str) -> None:
    assert not correct("multiple_choice", answer, "B")


def test_a_failure_names_answer_and_reference() -> None:
    assert judged("math", "The answer is 4.", "5").reason == "math: answer '4', expected '5'"
    assert judged("math", " ", "5") == Judgement("incorrect", "wrong_answer", "math: the answer is empty")
    long = judged("exact", "x" * (MAX_ANSWER_CHARS + 1), "5")
    assert long.reason == "exact: the answer has 10001 characters, at most 10000 are compared"


def test_reasoning_gym_needs_a_score_of_exactly_one() -> None:
    name, metadata = "reasoning_gym:chain_sum", json.dumps({"num_terms": 2})
    assert correct(name, "The answer is 1,005.0.", "1005", metadata)
    assert not correct(name, "The answer is 1005 apples.", "1005", metadata)  # scored 0.36: holds the answer
    assert not correct(name, "The answer is NaN.", "1005", metadata)


def test_names() -> None:
    assert all(map(known_verifier, verifier_names()))
    for name in ("", "python", "reasoning_gym", "reasoning_gym:", "reasoning_gym:coin_flip", "exact:gcd", "Math"):
        assert not known_verifier(name)
    with pytest.raises(
        ValueError,
        match="unknown verifier 'reasoning_gym:puzzle25'; known are code, constraint, constr",
    ):
        judged("reasoning_gym:puzzle25", "5", "5")
    assert unknown_verifier("reasoning_gym:figlet_font") == (
        "unknown verifier 'reasoning_gym:figlet_font': figlet_font takes any answer with ten right letters in place: "
        "use `exact`"
    )


def test_verdicts_name_the_library_that_gave_them() -> None:
    assert VERIFIER_VERSION.endswith(f", math-verify {version('math-verify')}"), "raise it with the library"


def test_a_reference_its_verifier_refuses() -> None:
    assert reference_fault("math", Asked("q", "x^2", "{}")) is None
    assert reference_fault("multiple_choice", Asked("q", "all", "{}")) == (
        "reference_answer 'all' fails its own verifier multiple_choice, so no answer could be correct; "
        "correct it, or name another verifier"
    )
    assert "10001 characters" in (reference_fault("exact", Asked("q", "x" * 10_001, "{}")) or "")


def test_a_verifier_may_check_its_reference_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(asked: Asked) -> str | None:
        return None if asked.reference_answer == f"tests of {asked.parameter}" else "no tests"

    def judge_never(answer: str, asked: Asked) -> Judgement:
        return Judgement("incorrect", "wrong_answer", "no")

    never = Verifier(judge_never, frozenset({"py"}), check_reference=fault)
    monkeypatch.setitem(VERIFIERS, "never", never)
    assert reference_fault("never:py", Asked("q", "tests of py", "{}")) is None
    assert reference_fault("never:py", Asked("q", "5", "{}")) == "no tests"


commands = ("\\boxed{", "\\frac", "\\text{", "{1}", "{0}", "**", "answer is", "answer:", "x =", "(b)")
numbers = ("9" * 300, "NaN", "sNaN", "Infinity", "\u0663", "1e999999999")
fragments = st.sampled_from((*"}{/1e,. \n$%B-_\0\ud800", *commands, *numbers))
model_output = st.lists(fragments, max_size=20).map("".join) | st.text(max_size=40)


@pytest.mark.sandbox
@settings(deadline=None, max_examples=150)
@given(model_output, st.sampled_from(["5", "1/3", "B", "x^2"]))
def test_no_answer_raises(answer: str, reference: str) -> None:
    for verifier in verifier_names():
        found = judged(verifier, answer, reference)
        assert (found.outcome == "correct") == (found.reason is None)


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**6), st.integers(1, 1000))
def test_equal_fractions_are_equal_however_written(numerator: int, denominator: int, factor: int) -> None:
    scaled = f"\\frac{{{numerator * factor}}}{{{denominator * factor}}}"
    assert correct("math", f"\\boxed{{{scaled}}}", f"{numerator}/{denominator}")
    assert not correct("math", f"\\boxed{{{scaled}}}", f"{numerator + 1}/{denominator}")


def test_hostile_answers_are_read_in_one_pass() -> None:
    for text in (
        "\\boxed{" * 60_000,
        "\\boxed{" * 20_000 + "\n",
        "answer " * 60_000,
        "answer" + " " * 400_000 + "x",
        "^" * 9_000,
        "\\text{" * 1_600,
    ):
        assert correct("math", text, "5") is False
