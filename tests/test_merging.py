"""What is known of a question by several lines: the first that says something wins, and a refusal has its reason."""

import json
from itertools import permutations

import pytest

from dasd_assets.rules.merging import Known, merge
from dasd_resources.verifiers.catalogue import VERIFIERS, Verifier
from dasd_resources.verifiers.exact import judge_exact
from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement

BARE = Known("general", None, None, "{}")
MATHS = Known("math", "5", "math", '{"level":2}')


def known(
    domain: str = "general", reference: str | None = None, verifier: str | None = None, **metadata: object
) -> Known:
    return Known(domain, reference, verifier, json.dumps(metadata, separators=(",", ":"), sort_keys=True))


def test_one_line_stays_as_it_is() -> None:
    for line in (BARE, MATHS):
        assert merge("2 + 3?", [line])[0] == line


def test_a_later_line_brings_what_the_first_does_not_say() -> None:
    found, (own, other) = merge("2 + 3?", [known(source="a"), MATHS])
    assert found == known("math", "5", "math", level=2, source="a")
    assert (own.brought, own.kind) == (("metadata",), None)
    assert (other.brought, other.kind) == (("domain", "reference_answer", "verifier", "metadata"), None)


def test_what_differs_is_refused_with_kind_and_both_values() -> None:
    found, (_, other) = merge("2 + 3?", [MATHS, known("sums", "6", "exact")])
    assert found == MATHS
    assert other.brought == ()
    assert other.kind == "conflicting_domain"
    assert other.reason == (
        "domain 'sums' is not the 'math' of before; reference_answer '6' is not the '5' of before; "
        "verifier 'exact' is not the 'math' of before"
    )


def test_a_reference_that_differs_in_white_space_alone_is_no_conflict() -> None:
    _, (_, other) = merge("2 + 3?", [known("math", "x + 1"), known("math", " x  + 1")])
    assert (other.brought, other.kind) == ((), None)


def test_a_verifier_comes_only_with_a_reference_that_it_accepts() -> None:
    found, (_, other) = merge("Which?", [known(reference="because"), known(reference="B", verifier="multiple_choice")])
    assert (found.reference_answer, found.verifier) == ("because", None)
    assert other.kind == "conflicting_reference"
    assert other.reason is not None and "fails its own verifier multiple_choice" in other.reason


def test_a_verifier_that_refuses_the_reference_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    found, (_, other) = merge("Which?", [known(reference="because"), known(reference=" because", verifier="exact")])
    assert (found.verifier, other.kind) == ("exact", None)
    monkeypatch.setitem(VERIFIERS, "never", Verifier(lambda answer, asked: judge_exact("wrong", asked)))
    found, (_, other) = merge("Which?", [known(reference="because"), known(verifier="never")])
    assert (found.verifier, other.kind) == (None, "conflicting_verifier")
    assert other.reason is not None and "fails its own verifier never" in other.reason


def test_one_sources_verifier_judges_by_another_ones_reference() -> None:
    found, (_, reference, verifier) = merge("2 + 3?", [BARE, known(reference="5"), known("math", "5.0", "math")])
    assert (found.domain, found.reference_answer, found.verifier) == ("math", "5", "math")
    assert reference.brought == ("reference_answer",)
    assert (verifier.brought, verifier.kind) == (("domain", "verifier"), "conflicting_reference")


def test_metadata_that_differs_under_one_key_is_the_first_lines() -> None:
    found, (_, other) = merge("2 + 3?", [known(id=1), known(id=2, level=3)])
    assert json.loads(found.metadata) == {"id": 1, "level": 3}
    assert other == type(other)(("metadata",), None, None)


def test_metadata_that_the_verifier_cannot_judge_with_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def judge(answer: str, asked: Asked) -> Judgement:
        right = answer == asked.reference_answer and "trap" not in asked.metadata
        return CORRECT if right else judge_exact("wrong", asked)

    monkeypatch.setitem(VERIFIERS, "picky", Verifier(judge))
    found, (_, other) = merge("2 + 3?", [known(reference="5", verifier="picky"), known("math", trap=1)])
    assert found == known("math", "5", "picky")
    assert (other.brought, other.kind) == (("domain",), "conflicting_metadata")


def test_without_conflicts_the_order_does_not_matter() -> None:
    lines = [known(a=1), known("math", b=2), known(reference="5", c=3), known("math", "5", "math")]
    assert {merge("2 + 3?", order)[0] for order in permutations(lines)} == {known("math", "5", "math", a=1, b=2, c=3)}


def test_what_adds_to_another_line() -> None:
    assert not BARE.adds_to(MATHS)
    assert not MATHS.adds_to(MATHS)
    assert not known(level=7).adds_to(MATHS)  # a row number, say
    for more in (known("sums"), known(reference="6"), known("math", "5", "exact"), known(note="x")):
        assert more.adds_to(MATHS)
