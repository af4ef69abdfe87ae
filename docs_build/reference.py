"""Reference pages, made from the code as the site is built, so that none can be out of date.

`recipe_page` from the recipe's model, `commands_page` from the parser, `shipped_page` from a recipe's file. The tables
have their page in docs/ (`python -m dasd_resources.storage.tables_page`), which a test compares.
"""

import argparse
import inspect
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import yaml
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from dasd_resources.recipe import RECIPES, Recipe
from dasd_resources.recipe.parts import Part

SIGNS = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt"), MinLen: ("at least", "min_length")}
PLAIN = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}


def recipe_page() -> str:
    """Every section and key of a recipe: type and bounds, default, what the shipped `dasd-4b` says, and its meaning."""
    report = yaml.safe_load((RECIPES / "dasd-4b.yaml").read_text(encoding="utf-8"))
    return "\n".join(
        [
            "# Recipe keys",
            "",
            "Every key of a recipe, made from the code that reads it. A key without a default must be given. The",
            "column *dasd-4b* is what [the report's recipe](recipes/dasd-4b.md) says, where it says anything.",
            *_section(Recipe, "", report, {}),
        ]
    )


def _section(part: type[Part], path: str, report: object, described: dict[type[Part], str]) -> Iterator[str]:
    """A heading, the class's docstring and a table of its keys; then the same of each section in it.

    described: the sections before, each class with its path: one that comes again refers to the first.
    """
    said = report if isinstance(report, Mapping) else {}
    if path:
        yield from ("", f"{'##' if '.' not in path else '###'} {path}", "")
        if (first := described.setdefault(part, path)) != path:
            yield f"The keys are those of [{first}](#{_anchor(first)})."
            return
        yield _escaped(inspect.cleandoc(part.__doc__ or ""))
    yield from ("", "| key | type | default | dasd-4b | meaning |", "| --- | --- | --- | --- | --- |")
    for name, field in part.model_fields.items():
        shown = _shown(said[name]) if name in said and not _parts_in(field.annotation) else ""
        at = f"{path}.{name}" if path else name
        kind = _type(field).replace("section", f"[section](#{_anchor(at)})")
        cells = (f"`{name}`", kind, _default(field), shown, _cell(field.description or ""))
        yield f"| {' | '.join(cells)} |"
    for name, field in part.model_fields.items():
        for inner in _parts_in(field.annotation):
            below = said.get(name)
            below = below[0] if isinstance(below, list) and below else below
            yield from _section(inner, f"{path}.{name}" if path else name, below, described)


def _anchor(path: str) -> str:
    """Of a heading, as mkdocs makes it."""
    return path.replace(".", "")


def _parts_in(annotation: object) -> list[type[Part]]:
    """The sections that a key's type is or holds."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    return [part for one in get_args(annotation) for part in _parts_in(one)]


def _type(field: FieldInfo) -> str:
    return _cell(" ".join([_name(field.annotation), *_bounds(field.metadata)]))


def _name(annotation: object) -> str:
    origin, inside = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([_name(inside[0]), *_bounds(inside[1:])])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in inside)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_name, inside))
    if origin in (tuple, list):
        return f"list of: {_name(inside[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return f"{_name(inside[0])} → {_name(inside[1])}"
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return "section"
    return PLAIN.get(annotation, "value") if isinstance(annotation, type) else "value"


def _bounds(metadata: object) -> Iterator[str]:
    for one in metadata if isinstance(metadata, (list, tuple)) else ():
        for kind, (sign, attribute) in SIGNS.items():
            if isinstance(one, kind):
                yield f"{sign} {getattr(one, attribute)}"
        if isinstance(one, FieldInfo):
            yield from _bounds(one.metadata)


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True) if not field.is_required() else PydanticUndefined
    if default is PydanticUndefined:
        return "**required**" if field.is_required() else ""
    return "section's own" if isinstance(default, Part) else _shown(default)


def _shown(value: object) -> str:
    """A value as YAML writes it."""
    value = list(value) if isinstance(value, tuple) else value
    text = yaml.safe_dump(value, default_flow_style=True, width=2**20, sort_keys=False).removesuffix("\n...\n")
    return f"`{_cell(text.strip())}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _escaped(text: str) -> str:
    return text.replace("<", "&lt;")


def commands_page(parser: argparse.ArgumentParser) -> str:
    """Every command with its arguments, as the parser has them."""
    lines = ["# Commands", "", f"{parser.description} Made from the parser; `dasd COMMAND --help` says the same.", ""]
    return "\n".join([*lines, *_arguments(parser), *_commands(parser, "dasd", 2)])


def _commands(parser: argparse.ArgumentParser, called: str, level: int) -> Iterator[str]:
    for action in parser._actions:
        if not isinstance(action, argparse._SubParsersAction):
            continue
        helps = {choice.dest: choice.help for choice in action._choices_actions}
        for name, inner in action.choices.items():
            usage = inner.format_usage().removeprefix("usage: ")
            yield from (f"{'#' * level} {called} {name}", "", f"{_sentence(helps.get(name) or inner.description)}", "")
            yield from ("```text", *usage.strip().splitlines(), "```", "")
            yield from _arguments(inner)
            yield from _commands(inner, f"{called} {name}", level + 1)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    shown = [action for action in parser._actions if not isinstance(action, argparse._SubParsersAction)]
    shown = [action for action in shown if action.dest != "help" and action.help != argparse.SUPPRESS]
    if not shown:
        return
    yield from ("| argument | meaning |", "| --- | --- |")
    for action in shown:
        named = ", ".join(action.option_strings) or str(action.metavar or action.dest)
        value = f" {action.metavar or action.dest.upper()}" if action.option_strings and action.nargs != 0 else ""
        default = f" Default: `{action.default}`." if action.default not in (None, False, argparse.SUPPRESS) else ""
        meaning = _sentence(action.help)
        yield f"| `{named}{value}` | {_cell(meaning + default) if action.default is not None else _cell(meaning)} |"
    yield ""


def _sentence(text: str | None) -> str:
    text = (text or "").replace("%(default)s", "").strip()
    return text[:1].upper() + text[1:] + ("" if not text or text.endswith((".", "?", "!")) else ".")


def shipped_page(recipe: Path) -> str:
    """A shipped recipe's file, as it is."""
    text = recipe.read_text(encoding="utf-8")
    command = f"`dasd run --recipe {recipe.stem}` runs it. [What each key means](../recipe.md)."
    return f"# Recipe `{recipe.stem}`\n\n{command}\n\n```yaml\n{text.rstrip()}\n```\n"
