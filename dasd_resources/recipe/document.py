"""A recipe written down: whole, with what each key means; in short, without what is at its default; and its schema.

Either text, read again, is the same recipe. Editors take the JSON schema from the first line of a file (`SCHEMA_HINT`),
as the YAML language server reads it.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TypeAlias

import yaml
from pydantic.fields import FieldInfo

from dasd_resources.recipe.evaluation_settings import Benchmark
from dasd_resources.recipe.parts import Part
from dasd_resources.recipe.recipe import Recipe

WIDTH = 120
COLUMNS = "#/$defs/Columns"
SCHEMA_HINT = "# yaml-language-server: $schema="
Plain: TypeAlias = "Mapping[str, Plain] | list[Plain] | str | int | float | bool | None"


def full_text(recipe: Recipe) -> str:
    """All keys with their values, each with its meaning; what a recipe leaves out of a section is its default."""
    return "\n".join([f"# The recipe {recipe.name}, with all keys and their values.", *_lines(recipe, 0)]) + "\n"


def short_text(recipe: Recipe) -> str:
    """The keys that are not at their defaults; of a benchmark, not what its layout brings either."""
    document = recipe.model_dump(mode="json", exclude_defaults=True)
    benchmarks = map(_without_layout, recipe.evaluation.benchmarks)
    document["evaluation"] = {**document["evaluation"], "benchmarks": list(benchmarks)}
    return text_of(document)


def _without_layout(benchmark: Benchmark) -> dict[str, Plain]:
    document: dict[str, Plain] = benchmark.model_dump(mode="json", exclude_defaults=True)
    if benchmark.layout is None:
        return document
    named = {"name": benchmark.name, "layout": benchmark.layout, "path": benchmark.path}
    brought = Benchmark.model_validate(named).model_dump(mode="json")
    return named | {key: value for key, value in benchmark.model_dump(mode="json").items() if value != brought[key]}


def text_of(document: Mapping[str, Plain]) -> str:
    """A document as YAML: a section a key, what it holds in one line where that has room."""
    return "".join(f"{line}\n" for key, value in document.items() for line in _written(key, value, 0))


def schema_text() -> str:
    """The JSON schema of recipes, by which an editor completes keys, shows what they mean and marks mistakes."""
    schema = _as_written(Recipe.model_json_schema())
    assert isinstance(schema, dict)
    # A layout brings it; a benchmark without either is refused when the recipe is loaded.
    schema["$defs"]["Benchmark"]["required"].remove("max_tokens")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=1) + "\n"


def _as_written(schema: object) -> object:
    """A schema in which a mapping of columns may be the name of a ready one, as in a file."""
    if isinstance(schema, list):
        return list(map(_as_written, schema))
    if not isinstance(schema, dict):
        return schema
    taken = {key: _as_written(value) for key, value in schema.items()}
    if taken.get("$ref") != COLUMNS:
        return taken
    return {**{key: value for key, value in taken.items() if key != "$ref"}, "anyOf": [{"type": "string"}, schema]}


def _lines(part: Part, depth: int) -> Iterator[str]:
    values = part.model_dump(mode="json")
    for name, field in type(part).model_fields.items():
        inner = getattr(part, name)
        if isinstance(inner, Part):
            yield from ([""] if depth == 0 else [])
            yield from _commented(f"{'  ' * depth}{name}:", field, depth)
            yield from _lines(inner, depth + 1)
        else:
            first, *rest = _written(name, values[name], depth)
            yield from _commented(first, field, depth)
            yield from rest


def _commented(line: str, field: FieldInfo, depth: int) -> Iterator[str]:
    """The line with its meaning behind it, or above it where there is no room."""
    comment = f"# {field.description}" if field.description else ""
    if len(line) + 1 + len(comment) > WIDTH:
        yield f"{'  ' * depth}{comment}"
        comment = ""
    yield f"{line} {comment}".rstrip()


def _written(key: str, value: Plain, depth: int) -> list[str]:
    """`key: value`, in one line if there is room."""
    one_line = f"{'  ' * depth}{key}: {_flow(value)}"
    if not value or (len(one_line) <= WIDTH and (depth or not isinstance(value, Mapping))):
        return [one_line]
    if isinstance(value, Mapping):
        inner = [line for name, item in value.items() for line in _written(name, item, depth + 1)]
    elif isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
        inner = [line for one in value for line in _item(one, depth + 1)]
    else:
        return [one_line]
    return [f"{'  ' * depth}{key}:", *inner]


def _item(value: Plain, depth: int) -> list[str]:
    """`- {…}`, in one line if there is room."""
    one_line = f"{'  ' * depth}- {_flow(value)}"
    if not isinstance(value, Mapping) or len(one_line) <= WIDTH:
        return [one_line]
    first, *rest = [line for name, item in value.items() for line in _written(name, item, depth + 1)]
    return [f"{'  ' * depth}- {first.lstrip()}", *rest]


def _flow(value: Plain) -> str:
    """On one line, as YAML reads it again. A float is written as such: `1e-8` would be read as text."""
    return (
        yaml.dump(value, Dumper=_Flow, default_flow_style=True, width=2**20, sort_keys=False, allow_unicode=True)
        .removesuffix("\n")
        .removesuffix("\n...")
    )


class _Flow(yaml.SafeDumper):
    """YAML without anchors: two keys with one value are two values."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Several lines as one, with `\\n` between them."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"' if "\n" in text else None)


_Flow.add_representer(str, _text)
