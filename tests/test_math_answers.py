"""`math`: pairs that are the same and pairs that are not, and what happens where they cannot be compared."""

import json
import os
import resource
from pathlib import Path

import psutil
import pytest

from dasd_resources.verifiers.catalogue import reference_fault, verify
from dasd_resources.verifiers.judgement import Asked, Judgement
from dasd_resources.verifiers.math_answers import COMPARISON, MEMORY_BYTES
from dasd_resources.verifiers.verdict_cache import VERDICTS

PAIRS = json.loads((Path(__file__).parent / "data" / "verifiers" / "math_pairs.json").read_text())
LIMITS = (resource.RLIMIT_AS, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE)


def judged(answer: str, reference: str, question: str = "q", verifier: str = "math") -> Judgement:
    return verify(verifier, answer, Asked(question, reference, "{}"))


@pytest.mark.parametrize(("kind", "expected"), [("same", "correct"), ("different", "incorrect")])
def test_pairs(kind: str, expected: str) -> None:
    wrong = [(pair, found) for pair in PAIRS[kind] if (found := judged(pair[1], pair[0])).outcome != expected]
    assert wrong == []


def test_every_reference_of_the_pairs_passes_as_an_answer() -> None:
    for reference, _ in [*PAIRS["same"], *PAIRS["different"]]:
        fault = reference_fault("math", Asked("q", reference, "{}"))
        assert fault is None, (reference, fault)


@pytest.mark.parametrize("reference", ["\\boxed{13}", "She sold 13.\n#### 13", "The answer is 13.", "$13$", "13.0"])
def test_a_reference_is_read_as_an_answer_is(reference: str) -> None:
    for name in ("math", "numeric"):
        asked = Asked("q", reference, "{}")
        assert reference_fault(name, asked) is None
        assert verify(name, "So it is \\boxed{13}.", asked).outcome == "correct"
        assert verify(name, "So it is \\boxed{14}.", asked).outcome == "incorrect"


@pytest.mark.parametrize("reference", ["\\boxed{}", "$$", "..."])
def test_a_reference_that_says_nothing_is_refused_with_a_remedy(reference: str) -> None:
    if fault := reference_fault("numeric", Asked("q", reference, "{}")):
        assert "correct it, or name another verifier" in fault
    assert fault is not None


@pytest.mark.parametrize("verifier", ["math", "numeric", "numeric:abs=0.4"])
def test_a_percent_sign_may_be_left_out_where_percent_are_asked_for(verifier: str) -> None:
    for question in ("What percent of 80 is 4?", "As a percentage, how much is it?"):
        for reference in ("5", "5\\%"):
            assert judged("\\boxed{5\\%}", reference, question, verifier).outcome == "correct"
            assert judged("\\boxed{5}", reference, question, verifier).outcome == "correct"
            assert judged("\\boxed{6\\%}", reference, question, verifier).outcome == "incorrect"
        assert judged("\\boxed{0.05}", "5", question, verifier).outcome == "incorrect"
    for question in (
        "After a discount of 20%, what does it cost?",
        "A discount of 20 percent is given on 6. What is paid?",
    ):
        assert judged("\\boxed{5\\%}", "5", question, verifier).outcome == "incorrect"


@pytest.mark.parametrize(
    ("reference", "same", "different"),
    [
        (
            "12 N",
            ["12 N", "12", "\\boxed{12\\text{ N}}", "The force is 12.0 N.", "12 newtons"],
            ["12 J", "13 N", "12 kN"],
        ),
        ("12", ["12 N", "\\boxed{12\\,\\mathrm{N}}", "12 kJ/mol"], ["12 X", "12N", "2 A + 12", "12 M"]),
        ("500 nm", ["500 nm", "500"], ["500 mm"]),
    ],
)
def test_a_unit_of_a_number(reference: str, same: list[str], different: list[str]) -> None:
    assert reference_fault("numeric", Asked("q", reference, "{}")) is None
    assert [one for one in same if judged(one, reference, verifier="numeric").outcome != "correct"] == []
    assert [one for one in different if judged(one, reference, verifier="numeric").outcome != "incorrect"] == []


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        ("x = 7", "correct"),
        ("v = 5 m/s = 7 km/h", "correct"),
        ("f(2, a) = x_{1,2} = 7,000 \\text{ m} = 7 \\text{ km}", "correct"),
        ("3! + 1 = 7", "correct"),
        ("x := 7", "correct"),
        ("x = 5 \\text{ or } x = 7", "incorrect"),
        ("x=5, x=7", "incorrect"),
        ("x = 5; y = 7", "incorrect"),
        ("x >= 7", "incorrect"),
        ("x < = 7", "incorrect"),
        ("x != 7", "incorrect"),
        ("x \\not= 7", "incorrect"),
    ],
)
def test_what_an_equality_says_is_a_number_and_what_else_has_its_sign_is_none(answer: str, outcome: str) -> None:
    for said in (f"\\boxed{{{answer}}}", f"The answer is ${answer}$."):
        assert judged(said, "7", verifier="numeric").outcome == outcome, said


@pytest.mark.parametrize("verifier", ["math", "numeric"])
def test_a_sentence_that_says_two_values_or_bounds_states_no_number(verifier: str) -> None:
    for said in ("The solution satisfies x >= 7.", "So we get that x = 5 or x = 7.", "So we get x=5, x=7."):
        assert judged(said, "7", verifier=verifier).outcome == "incorrect", said
    for said in ("So we get n = 3, x = 7.", "Then x = 14/2, so x = 7.", "So we get x = 14/2, x = 7."):
        assert judged(said, "7", verifier=verifier).outcome == "correct", said


def test_sentences_are_not_comparable_but_by_their_words() -> None:
    reference = "\\text{The midpoints form a regular hexagon}"
    assert judged("the midpoints form a regular hexagon", reference).outcome == "correct"
    found = judged("\\boxed{\\text{Their shape is a hexagon}}", reference)
    assert (found.outcome, found.kind) == ("unverifiable", "not_comparable")


@pytest.mark.parametrize(
    ("reply", "outcome", "kind"),
    [
        ("timed_out", "unverifiable", "verifier_timed_out"),
        ("out_of_memory", "unverifiable", "verifier_out_of_memory"),
        ("math-verify raised TypeError", "error", "verifier_failed"),
    ],
)
def test_what_math_verify_cannot_compare_is_no_wrong_answer(reply: str, outcome: str, kind: str) -> None:
    answer = f"a + {len(reply)}b^{{b}}"
    VERDICTS.found([COMPARISON, "a", answer], lambda: reply)
    found = judged(f"\\boxed{{{answer}}}", "a")
    assert (found.outcome, found.kind) == (outcome, kind)
    assert found.reason and answer[:10] in found.reason


def test_a_child_has_limits_and_cannot_write() -> None:
    """What `math_worker` sets before its first comparison, asked of the system."""
    assert judged("\\boxed{a+b}", "b+a").outcome == "correct"
    everyone = psutil.process_iter(["ppid", "cmdline"])  # a process that has just ended has no command line
    mine = [one for one in everyone if one.info["ppid"] == os.getpid()]
    children = [one for one in mine if "math_worker.py" in " ".join(one.info["cmdline"] or [])]
    limits = [resource.prlimit(child.pid, limit) for child in children for limit in LIMITS]
    assert children and limits == [(MEMORY_BYTES,) * 2, (0, 0), (0, 0)] * len(children)
    assert all(0 < resource.prlimit(child.pid, resource.RLIMIT_CPU)[0] < 600 for child in children)
