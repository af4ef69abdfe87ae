"""JSON schemas applied to answers, where both may be hostile.

Nothing is fetched: a `$ref` leads within its schema. Patterns are matched in linear time, by Rust's engine in pydantic,
which has no look-around. The keywords that are applied are counted, as a schema that branches at each level of an
answer would go on for ever.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated

from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from jsonschema.exceptions import SchemaError, ValidationError  # type: ignore[import-untyped]
from jsonschema.validators import extend, validator_for  # type: ignore[import-untyped]
from pydantic import StringConstraints, TypeAdapter
from pydantic_core import SchemaError as PatternError
from referencing import Registry
from referencing.exceptions import Unresolvable

from dasd_resources.verifiers.json_answers import canonical
from dasd_resources.verifiers.judgement import CORRECT, Judgement
from dasd_resources.visible_text import excerpt

MAX_STEPS = 20_000  # keywords of a schema that are applied to an answer: half a second
PROBES: tuple[object, ...] = (None, 1, "", [], {}, [{}], {"a": [{}]})  # a schema that cannot be applied fails on one


class TooMuchWork(Exception):
    """An answer cannot be validated in MAX_STEPS."""


def schema_fault(schema: object) -> str | None:
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
        for probe in PROBES:
            if (judged := satisfies(probe, schema)).outcome == "error":
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


def satisfies(value: object, schema: object) -> Judgement:
    """Whether a value satisfies a schema; `error` if the schema cannot be applied, `unverifiable` if not in bounds."""
    try:
        validator = _counted(_dialect(schema))(_without_dialect(schema), registry=Registry())
        error = next(validator.iter_errors(value), None)
    except TooMuchWork:
        return Judgement("unverifiable", "verifier_timed_out", f"validating it takes more than {MAX_STEPS} steps")
    except Unresolvable as unresolved:
        return Judgement("error", "verifier_failed", f"$ref {excerpt(unresolved.ref)} leads nowhere")
    except (RecursionError, ValueError, OverflowError, ArithmeticError, PatternError) as fault:
        return Judgement(
            "error", "verifier_failed", f"cannot be applied ({type(fault).__name__}): {excerpt(str(fault))}"
        )
    if error is None:
        return CORRECT
    return Judgement("incorrect", "wrong_answer", f"{error.json_path}: {excerpt(error.message, 200)}")


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


@lru_cache(maxsize=1_000)
def _pattern(pattern: str) -> TypeAdapter[str]:
    return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])


def _matches(pattern: str, text: str) -> bool:
    try:
        _pattern(pattern).validate_python(text)
    except ValueError:
        return False
    return True
