"""`json`: the answer's JSON is the reference JSON. `json:schema`: it satisfies the row's JSON schema.

Strict JSON: no NaN, no repeated key, at most MAX_DEPTH deep. The answer's JSON is the whole answer part, else its last
fenced block, else its box or what follows "the answer is", else the only object or array within its sentences.

A schema is the reference answer, or the metadata's `json_schema`, `schema` or `response_format` (as OpenAI's API has
it). It may be hostile, and so may the answer: nothing is fetched (`$ref` leads within the schema), patterns are matched
by an engine of linear time (Rust's, in pydantic, which has no look-around), and the work is counted.
"""

import json
import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from functools import cache, lru_cache
from typing import Annotated

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError, ValidationError
from jsonschema.validators import extend, validator_for
from pydantic import StringConstraints, TypeAdapter
from pydantic_core import SchemaError as PatternError
from referencing import Registry
from referencing.exceptions import Unresolvable

from dasd_resources.verifiers.final_answer import extract_answer
from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement
from dasd_resources.visible_text import excerpt

MAX_CHARS = 50_000
MAX_DEPTH = 100
MAX_STEPS = 20_000  # keywords of a schema that are applied to an answer: half a second
SCHEMA_KEYS = ("json_schema", "schema", "response_format")

_FENCED = re.compile(r"^[ \t]*```[^\n`]*\n(.*?)^[ \t]*```", re.DOTALL | re.MULTILINE)
_OPENING = re.compile(r"[{\[]")
_MAX_OPENINGS = 1_000  # places within sentences where a value may begin
_NOT_FOUND = object()


class NoJson(ValueError):
    """A text that is not one strict JSON value."""


class TooMuchWork(Exception):
    """An answer cannot be validated in MAX_STEPS."""


def judge_json(text: str, asked: Asked) -> Judgement:
    """Whether the answer's JSON equals the reference JSON, or with the parameter `schema` satisfies the schema."""
    if len(text) > MAX_CHARS:
        return _wrong(f"the answer part has {len(text)} characters, at most {MAX_CHARS} are read")
    exact = asked.parameter != "schema"
    found = _found(text, exact)
    if found is _NOT_FOUND:
        return _wrong(f"no JSON in {excerpt(text.strip())}")
    if exact:
        same = canonical(found) == canonical(_parsed(asked.reference_answer, exact))
        return CORRECT if same else _wrong(f"answer {excerpt(found)}, expected {excerpt(asked.reference_answer)}")
    return _satisfies(found, _schema(asked))


def check_json(asked: Asked) -> str | None:
    """Why no answer could be correct: the reference is no JSON, or the schema none that is applied here."""
    try:
        if asked.parameter != "schema":
            canonical(_parsed(asked.reference_answer, True))
        elif fault := _schema_fault(_schema(asked)):
            return f"JSON schema: {fault}"
    except NoJson as error:
        name = "reference_answer" if asked.reference_answer else "metadata"
        return f"{name}: {error}"
    return None


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
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise NoJson(f"JSON is nested more than {MAX_DEPTH} deep")
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
    return value


@cache
def _decoder(exact: bool) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=_unique, parse_float=Decimal if exact else _finite, parse_constant=_no_constant
    )


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise NoJson("a key is repeated")
    return value


def _finite(text: str) -> float:
    if abs(value := float(text)) == float("inf"):
        raise NoJson(f"{excerpt(text)} is too large")
    return value


def _no_constant(name: str) -> None:
    raise NoJson(f"{name} is not JSON")


def _schema(asked: Asked) -> object:
    """The schema of a row. Raises NoJson where it has none."""
    if asked.reference_answer.strip():
        return _parsed(asked.reference_answer, False)
    metadata = json.loads(asked.metadata)
    value = next((metadata[key] for key in SCHEMA_KEYS if metadata.get(key) is not None), None)
    if value is None:
        raise NoJson(f"no JSON schema: write it as reference_answer or as metadata key {', '.join(SCHEMA_KEYS)}")
    value = _parsed(value, False) if isinstance(value, str) else _limited(value)
    for key in ("json_schema", "schema"):  # {"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}
        inner = value.get(key) if isinstance(value, dict) else None
        value = inner if isinstance(inner, dict) else value
    return value


@lru_cache(maxsize=1_000)
def _pattern(pattern: str) -> TypeAdapter[str]:
    return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])


def _matches(pattern: str, text: str) -> bool:
    try:
        _pattern(pattern).validate_python(text)
    except ValueError:
        return False
    return True


def _schema_fault(schema: object) -> str | None:
    """Why a schema cannot be applied."""
    try:
        _dialect(schema).check_schema(schema)
        for keyword, value in _keywords(schema):
            if keyword == "patternProperties":
                return "patternProperties is not applied here; list the properties, or use propertyNames"
            if keyword in ("$ref", "$dynamicRef") and isinstance(value, str) and not value.startswith("#"):
                return f"{keyword} {excerpt(value)} leads out of it, and nothing is fetched"
            if keyword == "pattern" and isinstance(value, str):
                _pattern(value)
        for probe in (None, 1, "", [], {}, [{}], {"a": [{}]}):
            if (judged := _satisfies(probe, schema)).outcome == "error":
                return judged.reason
    except PatternError as error:
        return f"a pattern cannot be matched in linear time: {excerpt(str(error).splitlines()[1].strip())}"
    except SchemaError as error:
        return f"not a schema: {excerpt(error.message)}"
    return None


def _dialect(schema: object) -> type[Draft202012Validator]:
    return validator_for(schema, default=Draft202012Validator)  # type: ignore[no-any-return]


def _without_dialect(schema: object) -> object:
    """A schema without `$schema`, at which the library would go on with an uncounted validator."""
    if isinstance(schema, dict):
        return {
            key: _without_dialect(value)
            for key, value in schema.items()
            if key != "$schema" or not isinstance(value, str)
        }
    return [_without_dialect(one) for one in schema] if isinstance(schema, list) else schema


def _keywords(schema: object) -> Iterator[tuple[str, object]]:
    level = [schema]
    while level:
        one = level.pop()
        if isinstance(one, dict):
            yield from one.items()
            level.extend(one.values())
        elif isinstance(one, list):
            level.extend(one)


def _satisfies(value: object, schema: object) -> Judgement:
    """Whether a value satisfies a schema; `error` if the schema cannot be applied, `unverifiable` if not in bounds."""
    try:
        validator = _counted(_dialect(schema))(_without_dialect(schema), registry=Registry())
        error = next(validator.iter_errors(value), None)
    except TooMuchWork:
        return Judgement("unverifiable", "wrong_answer", f"validating it takes more than {MAX_STEPS} steps")
    except Unresolvable as unresolved:
        return Judgement("error", "wrong_answer", f"$ref {excerpt(unresolved.ref)} leads nowhere")
    except (RecursionError, ValueError, OverflowError, ArithmeticError, PatternError) as fault:
        return Judgement("error", "wrong_answer", f"cannot be applied ({type(fault).__name__}): {excerpt(str(fault))}")
    if error is None:
        return CORRECT
    return _wrong(f"{error.json_path}: {excerpt(error.message, 200)}")


Keyword = Callable[[Draft202012Validator, object, object, object], Iterator[ValidationError] | None]


def _counted(dialect: type[Draft202012Validator]) -> type[Draft202012Validator]:
    """The dialect's validator, but it counts the keywords it applies, and patterns and uniqueness take linear time."""
    left = [MAX_STEPS]

    def counting(keyword: Keyword) -> Keyword:
        def applied(
            validator: Draft202012Validator, value: object, instance: object, schema: object
        ) -> Iterator[ValidationError] | None:
            left[0] -= 1
            if left[0] < 0:
                raise TooMuchWork
            return keyword(validator, value, instance, schema)

        return applied

    keywords: dict[str, Keyword] = {**dialect.VALIDATORS, "pattern": _matching, "uniqueItems": _distinct}
    counted: type[Draft202012Validator] = extend(
        dialect, {name: counting(keyword) for name, keyword in keywords.items()}
    )
    return counted


def _matching(
    validator: Draft202012Validator, pattern: object, instance: object, schema: object
) -> Iterator[ValidationError]:
    if isinstance(instance, str) and not _matches(str(pattern), instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


def _distinct(
    validator: Draft202012Validator, unique: object, instance: object, schema: object
) -> Iterator[ValidationError]:
    if unique and isinstance(instance, list) and len(set(map(canonical, instance))) < len(instance):
        yield ValidationError(f"{instance!r} has an item twice")
