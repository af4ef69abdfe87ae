"""`constraint`: each verifiable instruction followed and not, strict and loose, and metadata that cannot be checked."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.verifiers.catalogue import needs_reference, reference_fault, verify
from dasd_resources.verifiers.instructions import INSTRUCTIONS, Given, num_sentences
from dasd_resources.verifiers.judgement import Asked, Judgement

ENGLISH = "this is a plain sentence about the weather in the north of the country"


def asked(*instructions: tuple[str, dict[str, object]]) -> Asked:
    names, kwargs = [name for name, _ in instructions], [values for _, values in instructions]
    return Asked("q", "", json.dumps({"instruction_id_list": names, "kwargs": kwargs}))


def judged(answer: str, *instructions: tuple[str, dict[str, object]], verifier: str = "constraint") -> Judgement:
    return verify(verifier, answer, asked(*instructions))


@pytest.mark.parametrize(
    ("name", "kwargs", "follows", "misses"),
    [
        ("keywords:existence", {"keywords": ["tide", "moon"]}, "Moon and tides", "The moon"),
        ("keywords:existence", {"keywords": ["c++"]}, "I like C++.", "I like C."),
        ("keywords:frequency", {"keyword": "tide", "frequency": 2, "relation": "at least"}, "tide, tides", "tide"),
        ("keywords:frequency", {"keyword": "tide", "frequency": 2, "relation": "less than"}, "tide", "Tide tide"),
        ("keywords:forbidden_words", {"forbidden_words": ["cat"]}, "concatenate", "A cat."),
        ("keywords:letter_frequency", {"letter": "E", "let_frequency": 3, "let_relation": "at least"}, "eEe", "ee"),
        ("keywords:letter_frequency", {"letter": "!", "let_frequency": 1, "let_relation": "less than"}, "a", "a!"),
        ("language:response_language", {"language": "fr"}, "Il fait froid dans le nord du pays ce matin.", ENGLISH),
        (
            "language:response_language",
            {"language": "zh"},
            "\u4eca\u5929\u5317\u65b9\u7684\u5929\u6c14\u5f88\u51b7",
            ENGLISH,
        ),
        ("length_constraints:number_sentences", {"num_sentences": 2, "relation": "at least"}, "One. Two!", "Dr. No"),
        (
            "length_constraints:number_sentences",
            {"num_sentences": 2, "relation": "less than"},
            "At 3.5 m.",
            "A. Is? So",
        ),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "a\n***\nb\n***\n", "a\n\nb"),
        ("length_constraints:number_paragraphs", {"num_paragraphs": 1}, "a", "a *** *** b"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "at least"}, "one two-three", "one two"),
        ("length_constraints:number_words", {"num_words": 3, "relation": "less than"}, "one two", "one two three"),
        (
            "length_constraints:nth_paragraph_first_word",
            {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
            'First.\n\n"Then, it',
            "First.\n\nThence",
        ),
        ("detectable_content:number_placeholders", {"num_placeholders": 2}, "[name], [city]", "[name] [city\n]"),
        ("detectable_content:postscript", {"postscript_marker": "P.S."}, "Bye.\nP. S. more", "Bye. PS more"),
        ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "p.p.s. more", "P.S. more"),
        ("detectable_content:postscript", {"postscript_marker": "N.B. (x"}, "n.b. (x", "P.S."),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n  - b", "* a\n**b**"),
        ("detectable_format:constrained_response", {}, "My answer is no. Why?", "My answer is nope."),
        ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*a* and **b**", "*a* and ** **"),
        (
            "detectable_format:multiple_sections",
            {"section_spliter": "Section", "num_sections": 2},
            "Section 1\na\nSection 2\nb",
            "Section one, SECTION 2",
        ),
        ("detectable_format:json_format", {}, '```json\n{"a": 1}\n```', 'Here: {"a": 1}'),
        ("detectable_format:title", {}, "<<Tides>>\nThey", "<< >>\nThey <<\n>>"),
        ("combination:two_responses", {}, "a\n******\nb", "a\n******\na"),
        ("combination:two_responses", {}, "******a******b", "a****** ******b"),
        (
            "combination:repeat_prompt",
            {"prompt_to_repeat": "Why is it so?"},
            "why is it so? Because",
            "So why is it so?",
        ),
        ("startend:end_checker", {"end_phrase": "Any questions?"}, 'Bye. any questions?" ', "Any questions? Bye"),
        ("startend:quotation", {}, ' "quoted" ', '"'),
        (
            "change_case:capital_word_frequency",
            {"capital_frequency": 2, "capital_relation": "at least"},
            "NASA and U-TURN",
            "NASA only",
        ),
        ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH),
        ("change_case:english_lowercase", {}, ENGLISH, ENGLISH.capitalize()),
        ("change_case:english_lowercase", {}, ENGLISH, "il fait froid dans le nord du pays ce matin"),
        ("punctuation:no_comma", {}, "a; b", "a, b"),
    ],
)
def test_an_instruction(name: str, kwargs: dict[str, object], follows: str, misses: str) -> None:
    assert reference_fault("constraint", asked((name, kwargs))) is None
    assert judged(follows, (name, kwargs)) == Judgement("correct")
    assert judged(misses, (name, kwargs)).reason == f"constraint: 0 of 1 instructions followed, not {name}"


def test_each_instruction_is_tried_above() -> None:
    [mark] = test_an_instruction.pytestmark  # type: ignore[attr-defined]
    assert {row[0] for row in mark.args[1]} == set(INSTRUCTIONS)


def test_all_instructions_must_be_followed() -> None:
    both = (("punctuation:no_comma", {}), ("startend:quotation", {}))
    assert judged('"a"', *both).outcome == "correct"
    assert judged('"a, b"', *both).reason == ("constraint: 1 of 2 instructions followed, not punctuation:no_comma")
    assert judged("", ("punctuation:no_comma", {})).outcome == "incorrect"  # an empty response follows nothing


def test_loose_looks_past_a_first_and_a_last_line_and_asterisks() -> None:
    quoted: tuple[str, dict[str, object]] = ("startend:quotation", {})
    for answer in ('Sure:\n"a"', '"a"\nI hope it helps', 'Sure:\n"a"\nBye', '**"a"**'):
        assert judged(answer, quoted).outcome == "incorrect"
        assert judged(answer, quoted, verifier="constraint:loose").outcome == "correct"
    assert judged('Sure:\nso:\n"a"', quoted, verifier="constraint:loose").outcome == "incorrect"


def test_rows_as_public_sets_hold_them() -> None:
    """google/IFEval's columns, null for what does not apply; other sets hold either column as a string of JSON."""
    null = {"num_words": None, "relation": None, "keywords": None}
    row = {"key": 1, "instruction_id_list": ["punctuation:no_comma"], "kwargs": [null]}
    as_text = {name: json.dumps(value) for name, value in row.items() if name != "key"}
    for metadata in (row, as_text):
        one = Asked("q", "", json.dumps(metadata))
        assert reference_fault("constraint", one) is None
        assert verify("constraint", "none", one).outcome == "correct"
    assert not needs_reference("constraint") and not needs_reference("constraint:loose")


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({}, "metadata key instruction_id_list must be a list, found None"),
        ({"instruction_id_list": "[x"}, "metadata key instruction_id_list is not JSON: '[x'"),
        ({"instruction_id_list": []}, "instruction_id_list has 0 entries, kwargs 0: one each, at least one"),
        ({"instruction_id_list": ["a:b"]}, "unknown instruction 'a:b'; known are change_case:capital_word_frequency,"),
        ({"instruction_id_list": ["startend:quotation"], "kwargs": []}, "has 1 entries, kwargs 0"),
        ({"instruction_id_list": ["startend:quotation"], "kwargs": [1]}, "its kwargs must be an object, found 1"),
        (
            {"instruction_id_list": ["startend:quotation"], "kwargs": [{"x": 1}]},
            "startend:quotation: unknown kwargs 'x'; it takes none",
        ),
        (
            {"instruction_id_list": ["length_constraints:number_words"], "kwargs": [{"num_words": 5}]},
            "length_constraints:number_words: relation must be 'less than' or 'at least', found None",
        ),
        (
            {"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": -1}]},
            "num_bullets must be a whole number from 0 to 1000000, found -1",
        ),
        (
            {"instruction_id_list": ["detectable_format:number_bullet_lists"], "kwargs": [{"num_bullets": True}]},
            "num_bullets must be a whole number",
        ),
        (
            {"instruction_id_list": ["keywords:existence"], "kwargs": [{"keywords": "a"}]},
            "keywords must be a list of words",
        ),
        (
            {"instruction_id_list": ["language:response_language"], "kwargs": [{"language": "xx"}]},
            "must be one of ace, af, am,",
        ),
        (
            {
                "instruction_id_list": ["length_constraints:nth_paragraph_first_word"],
                "kwargs": [{"num_paragraphs": 2, "nth_paragraph": 3, "first_word": "a"}],
            },
            "nth_paragraph is 3 of 2 paragraphs, so no answer could follow",
        ),
    ],
)
def test_what_cannot_be_checked_is_refused(metadata: dict[str, object], message: str) -> None:
    assert message in (reference_fault("constraint", Asked("q", "", json.dumps(metadata))) or "")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", 0),
        ("...", 0),
        ("One", 1),
        ("One. Two? Three!", 3),
        ("Mr. A. B. Smith, e.g. him.", 1),
        ("\u597d\u3002\u597d\u3002", 2),
    ],
)
def test_sentences(text: str, number: int) -> None:
    assert num_sentences(text) == number


ARGUMENTS: dict[str, object] = {"count": 2, "relation": "at least", "text": "a", "texts": ["a"], "language": "en"}


@given(st.text(max_size=60) | st.sampled_from(("[" * 5_000, "<<" * 5_000, "." * 5_000 + "x", "\n" * 5_000, "\ud800")))
def test_no_answer_raises_or_takes_long(text: str) -> None:
    for instruction in INSTRUCTIONS.values():
        if "language" not in instruction.arguments.values():
            values = {name: ARGUMENTS[kind] for name, kind in instruction.arguments.items()}
            assert instruction.follows(text, Given(values)) in (True, False)


def test_the_page_lists_every_instruction_with_its_arguments() -> None:
    page = (Path(__file__).parents[1] / "docs" / "verifiers.md").read_text("utf-8")
    for name, instruction in INSTRUCTIONS.items():
        arguments = ", ".join(f"`{argument}`" for argument in instruction.arguments) or "none"
        assert f"| `{name}` | {arguments} |" in page


def test_rows_land_without_a_reference_answer(tmp_path: Path) -> None:
    follow = {"instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"keywords": None}]}
    rows = [
        {"question": "a", "verifier": "constraint", "metadata": follow},
        {"question": "b", "verifier": "constraint:loose", **follow},
        {"question": "c", "verifier": "json:schema", "json_schema": {"type": "object"}},
        {"question": "d", "verifier": "json", "json_schema": {"type": "object"}},
        {"question": "e", "verifier": "constraint"},
        {"question": "f", "verifier": "json:schema"},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    landed = list(read_prompts(tmp_path / "a.jsonl"))
    assert [record.reference_answer for record in landed if isinstance(record, Prompt)] == [None] * 3
    assert [record.kind for record in landed if isinstance(record, RejectedPrompt)] == [
        "missing_reference",
        "invalid_reference",
        "invalid_reference",
    ]
