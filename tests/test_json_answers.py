"""`json`: which JSON an answer holds, equality, schemas, and that no answer and no schema takes long or reaches out."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dasd_resources.verifiers.catalogue import reference_fault, verify
from dasd_resources.verifiers.json_answers import MAX_CHARS
from dasd_resources.verifiers.judgement import Asked, Judgement

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "minLength": 1}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def equal(answer: str, reference: str) -> bool:
    return verify("json", answer, Asked("q", reference, "{}")).outcome == "correct"


def against(answer: object, schema: object) -> Judgement:
    return verify("json:schema", json.dumps(answer), Asked("q", json.dumps(schema), "{}"))


def fault(schema: object) -> str:
    reference = "" if schema is None else json.dumps(schema)
    return reference_fault("json:schema", Asked("q", reference, "{}")) or ""


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ('{"b": 2, "a": 1}', '{"a": 1, "b": 2}'),
        ('{"a": [1.0, 10e-1, 100e-2]}', '{"a": [1, 1, 1]}'),
        ("0.10", "0.1"),
        ('```json\n{"a": 1}\n```', '{"a": 1}'),
        ('Here it is:\n\n```\n{"a": 1}\n```\n\nHope this helps!', '{"a": 1}'),
        ('First:\n```json\n{"a": 0}\n```\nFinally:\n```json\n{"a": 1}\n```', '{"a": 1}'),
        ('The result is {"a": 1}.', '{"a": 1}'),
        ("The list [1, 2] it is.", "[1, 2]"),
        ("\\boxed{[1, 2]}", "[1, 2]"),
        ("The answer is 5.", "5"),
        ("null", "null"),
        ('"\\u00e9"', '"\u00e9"'),
    ],
)
def test_equal(answer: str, reference: str) -> None:
    assert equal(answer, reference)


@pytest.mark.parametrize(
    ("answer", "reference"),
    [
        ('{"a": 1}', '{"a": true}'),
        ('{"a": 1}', '{"a": "1"}'),
        ('{"a": 1, "b": null}', '{"a": 1}'),
        ("[1, 2]", "[2, 1]"),
        ("0.1000000000000000055511151231257827", "0.1"),
        ('{"a": 0, "a": 1}', '{"a": 1}'),
        ('{"a": NaN}', '{"a": 1}'),
        ("NaN", "1"),
        ("{'a': 1}", '{"a": 1}'),
        ('{"a": 1,}', '{"a": 1}'),
        ('{"a": 1} or {"a": 2}', '{"a": 1}'),
        ('{"a": 1} {broken', '{"a": 1}'),
        ('```json\n{"a": 2}\n```\n{"a": 1}', '{"a": 1}'),
        ("", "1"),
        ("[" * 40_000, "[]"),
        ("[" * 101 + "]" * 101, "[]"),
        ("9" * 5_000, "9"),
        ('{"a": ' * 900, "{}"),
        (" " * (MAX_CHARS + 1) + "1", "1"),
        ("[1e999999999]", "[1]"),
        ("[1e" + "9" * 30 + "]", "[1]"),
    ],
)
def test_not_equal(answer: str, reference: str) -> None:
    assert not equal(answer, reference)


def test_references_must_be_strict_json() -> None:
    assert reference_fault("json", Asked("q", '{"a": [1]}', "{}")) is None
    assert "duplicate key 'a'" in (reference_fault("json", Asked("q", '{"a": 1, "a": 1}', "{}")) or "")
    assert "NaN is not JSON" in (reference_fault("json", Asked("q", "NaN", "{}")) or "")


def test_a_schema_is_satisfied_or_the_reason_says_where_not() -> None:
    assert against({"name": "Ada", "age": 36}, PERSON) == Judgement("correct")
    assert against({"name": "Ada", "age": 36.0}, PERSON).outcome == "correct"
    assert against({"name": "Ada"}, PERSON).reason == "json:schema: $: \"'age' is a required property\""
    assert against({"name": "", "age": 1}, PERSON).outcome == "incorrect"
    assert against({"name": "Ada", "age": 1, "x": 1}, PERSON).outcome == "incorrect"
    assert against([1, 1.0], {"uniqueItems": True}).outcome == "incorrect"
    assert against([1, True], {"uniqueItems": True}).outcome == "correct"


@pytest.mark.parametrize(
    "metadata",
    [
        {"json_schema": PERSON},
        {"schema": json.dumps(PERSON)},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON}}},
    ],
)
def test_a_schema_in_the_metadata(metadata: dict[str, object]) -> None:
    asked = Asked("q", "", json.dumps(metadata))
    assert reference_fault("json:schema", asked) is None
    assert verify("json:schema", '{"name": "Ada", "age": 36}', asked).outcome == "correct"
    assert verify("json:schema", '{"name": "Ada"}', asked).outcome == "incorrect"


def test_schemas_that_are_not_applied() -> None:
    assert "no JSON schema" in fault(None)
    assert "not a schema" in fault({"type": "objekt"})
    assert "a JSON schema is an object, found 5" in fault(5)
    assert "leads out of it, and nothing is fetched" in fault({"$ref": "http://localhost:1/x.json"})
    assert "leads out of it" in fault({"properties": {"a": {"$ref": "file:///etc/passwd"}}})
    assert "leads nowhere" in fault({"$ref": "#/$defs/none"})
    assert "cannot be applied (RecursionError)" in fault({"$ref": "#"})
    assert "cannot be matched in linear time" in fault({"pattern": "(?=a)b"})
    assert "cannot be matched in linear time" in fault({"pattern": "((a{100}){100}){100}"})
    assert "patternProperties is not applied" in fault({"patternProperties": {"^(a+)+$": {}}})
    assert fault({"$schema": "http://json-schema.org/draft-07/schema#", "items": [{"type": "null"}]}) == ""


def test_a_pattern_that_would_blow_up_is_matched_in_one_pass() -> None:
    schema = {"type": "string", "pattern": "^(a+)+$"}
    assert fault(schema) == ""
    assert against("a" * 40_000 + "!", schema).outcome == "incorrect"
    assert against("a" * 40_000, schema).outcome == "correct"


@pytest.mark.parametrize("dialect", [{}, {"$schema": "https://json-schema.org/draft/2020-12/schema"}])
def test_a_schema_that_branches_at_each_level_is_given_up(dialect: dict[str, str]) -> None:
    node = {"anyOf": [{"properties": {"a": {"$ref": "#"}}, "required": [name]} for name in ("x", "y")]}
    nested: dict[str, object] = {}
    for _ in range(40):
        nested = {"a": nested}
    assert fault(dialect | node) == ""
    assert against(nested, dialect | node).outcome == "unverifiable"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=10,
)


@given(values)
def test_a_value_equals_itself_however_it_is_laid_out(value: object) -> None:
    assert equal(json.dumps(value, indent=2, sort_keys=True), json.dumps(value))


@given(
    st.lists(st.sampled_from(('{"a":', "[", "]", "}", "1", ",", "```", "\n", "NaN", "1e5", '"', "\ud800")), max_size=30)
)
def test_no_answer_raises(parts: list[str]) -> None:
    for verifier, reference in (("json", "[1]"), ("json:schema", json.dumps(PERSON))):
        assert verify(verifier, "".join(parts), Asked("q", reference, "{}")).outcome != "error"
