"""`json`: the answer's JSON is the reference JSON. `json:schema`: it satisfies the row's JSON schema.

Strict JSON: no NaN, no repeated key, at most MAX_DEPTH deep. The answer's JSON is the whole answer part, else its last
fenced block, else its box or what follows "the answer is", else the only object or array within its sentences.

A schema is the reference answer, or the metadata's `json_schema`, `schema` or `response_format` (as OpenAI's API has
it); `json_schemas` applies it.
"""

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from functools import cache

from dasd_resources.json_text import MAX_DEPTH, depth, no_constant, unique
from dasd_resources.verifiers.final_answer import extract_answer
from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement
from dasd_resources.visible_text import excerpt

MAX_CHARS = 50_000
SCHEMA_KEYS = ("json_schema", "schema", "response_format")

_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_OPENING = re.compile(r"[{\[]")
_MAX_OPENINGS = 100  # places within sentences where a value may begin
_NOT_FOUND = object()


class NoJson(ValueError):
    """A text that is not one strict JSON value."""


def judge_json(text: str, asked: Asked) -> Judgement:
    """Whether the answer's JSON equals the reference JSON, or with the parameter `schema` satisfies the schema."""
    if len(text) > MAX_CHARS:
        return _wrong(f"the answer part has {len(text)} characters, at most {MAX_CHARS} are read")
    exact = asked.parameter != "schema"
    found = _found(text, exact)
    if found is _NOT_FOUND:
        return _wrong(f"no JSON in {excerpt(text.strip())}")
    try:
        expected = _parsed(asked.reference_answer, exact) if exact else _schema(asked)
    except NoJson as error:  # landing refuses such rows
        return Judgement("error", "verifier_failed", str(error))
    if exact:
        same = canonical(found) == canonical(expected)
        return CORRECT if same else _wrong(f"answer {excerpt(found)}, expected {excerpt(asked.reference_answer)}")
    from dasd_resources.verifiers.json_schemas import satisfies  # loads jsonschema: 0.1 s, which few need

    return satisfies(found, expected)


def check_json(asked: Asked) -> str | None:
    """Why no answer could be correct: the reference is no JSON, or the schema none that is applied here."""
    try:
        if asked.parameter != "schema":
            canonical(_parsed(asked.reference_answer, True))
        else:
            from dasd_resources.verifiers.json_schemas import schema_fault

            fault = schema_fault(_schema(asked))
            return fault and f"JSON schema: {fault}"
    except NoJson as error:
        name = "reference_answer" if asked.reference_answer else "metadata"
        return f"{name}: {error}"
    return None


def found_json(text: str) -> object | None:
    """The one JSON value that an answer part holds, fractions as Decimal; None if it holds none, null or several."""
    found = _found(text, True) if len(text) <= MAX_CHARS else _NOT_FOUND
    return None if found is _NOT_FOUND else found


def is_json(text: str) -> bool:
    """Whether a text is one strict JSON value and nothing else."""
    return _try(text, False) is not _NOT_FOUND


def canonical(value: object) -> tuple[object, ...]:
    """Equal for equal JSON values: 1 and 1.0 are, 1 and true are not, the order of keys is nothing."""
    if isinstance(value, dict):
        return ("object", frozenset((key, canonical(one)) for key, one in value.items()))
    if isinstance(value, list):
        return ("array", *map(canonical, value))
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return (type(value).__name__, value)
    return ("number", value)


def _wrong(reason: str) -> Judgement:
    return Judgement("incorrect", "wrong_answer", reason)


def _found(text: str, exact: bool) -> object:
    """The value that an answer part holds; _NOT_FOUND if it holds none, or several."""
    fenced = _FENCED.findall(text)
    for part in (text, *fenced[-1:]):
        value = _try(part, exact)
        if value is not _NOT_FOUND:
            return value
    if fenced:
        return _NOT_FOUND
    value = _try(extract_answer(text), exact)
    if value is not _NOT_FOUND:
        return value
    within = list(_within(text, exact))
    return within[0] if len(within) == 1 else _NOT_FOUND


def _within(text: str, exact: bool) -> Iterator[object]:
    """Objects and arrays that stand within sentences; what is none of them and looks like one counts as another."""
    decoder, at = _decoder(exact), 0
    for _ in range(_MAX_OPENINGS):
        opening = _OPENING.search(text, at)
        if opening is None:
            return
        try:
            value, at = decoder.raw_decode(text, opening.start())
            yield _limited(value)
        except (ValueError, RecursionError):
            at = opening.end()
            yield from [_NOT_FOUND] if opening[0] == "{" else []  # `[1]` may be a note, `{` is broken JSON
    yield _NOT_FOUND


def _try(text: str, exact: bool) -> object:
    try:
        return _parsed(text, exact)
    except NoJson:
        return _NOT_FOUND


def _parsed(text: str, exact: bool) -> object:
    """A text as strict JSON; exact: its numbers as decimals. Raises NoJson."""
    if len(text) > MAX_CHARS:
        raise NoJson(f"it has {len(text)} characters, at most {MAX_CHARS} are read")
    try:
        text = text.strip()
        value, end = _decoder(exact).raw_decode(text)
    except RecursionError:
        raise NoJson(f"JSON is nested more than {MAX_DEPTH} deep: {excerpt(text)}") from None
    except ValueError as error:
        raise NoJson(f"not JSON ({error}): {excerpt(text)}") from None
    if end < len(text):
        raise NoJson(f"not JSON (more follows it): {excerpt(text)}")
    return _limited(value)


def _limited(value: object) -> object:
    if depth(value) > MAX_DEPTH:
        raise NoJson(f"JSON is nested more than {MAX_DEPTH} deep")
    return value


@cache
def _decoder(exact: bool) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=unique, parse_float=_decimal if exact else _finite, parse_constant=no_constant
    )


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:  # an exponent of 19 digits
        raise NoJson(f"{excerpt(text)} is too large") from None


def _finite(text: str) -> float:
    if abs(value := float(text)) == float("inf"):
        raise NoJson(f"{excerpt(text)} is too large")
    return value


def _schema(asked: Asked) -> object:
    """The schema of a row. Raises NoJson where it has none."""
    if asked.reference_answer.strip():
        return _as_schema(_parsed(asked.reference_answer, False))
    metadata = json.loads(asked.metadata)
    value = next((metadata[key] for key in SCHEMA_KEYS if metadata.get(key) is not None), None)
    if value is None:
        raise NoJson(f"no JSON schema: write it as reference_answer or as metadata key {', '.join(SCHEMA_KEYS)}")
    value = _parsed(value, False) if isinstance(value, str) else _limited(value)
    for key in ("json_schema", "schema"):  # {"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}
        inner = value.get(key) if isinstance(value, dict) else None
        value = inner if isinstance(inner, dict) else value
    return _as_schema(value)


def _as_schema(value: object) -> object:
    if not isinstance(value, dict | bool):
        raise NoJson(f"a JSON schema is an object, found {excerpt(value)}")
    return value
