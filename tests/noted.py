"""A recipe and a warehouse that note what is read of them, for the guards of test_declarations.py."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from types import FunctionType

import dagster as dg
import duckdb
from pydantic import BaseModel

from dasd_resources.recipe import Model, Recipe
from dasd_resources.storage.warehouse import Warehouse


@dataclass
class Notes:
    """What each asset and its checks have read and written, while Dagster ran them."""

    leaves: dict[str, set[str]] = field(default_factory=dict)
    read: dict[str, set[str]] = field(default_factory=dict)
    written: dict[str, set[str]] = field(default_factory=dict)

    def note(self, where: dict[str, set[str]], *what: str) -> None:
        if (asset := running_asset()) is not None:
            where.setdefault(asset, set()).update(what)


def running_asset() -> str | None:
    """The asset whose function, or one of whose checks, is running."""
    try:
        context = dg.OpExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        return None
    [key] = {check.asset_key for check in context.selected_asset_check_keys} or {context.asset_key}
    return key.to_user_string()


def leaves(part: BaseModel, path: str = "") -> dict[str, object]:
    """Dotted path -> value of everything in nested sections; a model is one leaf: it counts by its fingerprint."""
    found: dict[str, object] = {}
    for name in type(part).model_fields:
        value, where = getattr(part, name), f"{path}{name}"
        found |= leaves(value, f"{where}.") if is_section(value) else {where: value}
    return found


def is_section(value: object) -> bool:
    return isinstance(value, BaseModel) and not isinstance(value, Model)


class NotedRecipe:
    """Stands for a recipe, or a section of one; its properties and methods read through it, so they are noted too.

    A record of the whole recipe (`model_dump_json`) decides nothing and is not noted.
    """

    def __init__(self, part: BaseModel, notes: Notes, path: str = "") -> None:
        self.__dict__.update(_part=part, _notes=notes, _path=path)

    def __getattr__(self, name: str) -> object:
        part, notes, path = self.__dict__["_part"], self.__dict__["_notes"], self.__dict__["_path"]
        if name not in type(part).model_fields:
            found = vars(type(part)).get(name)
            if isinstance(found, property):
                assert found.fget is not None
                return found.fget(self)
            return found.__get__(self) if isinstance(found, FunctionType) else getattr(part, name)
        value = getattr(part, name)
        if is_section(value):
            return NotedRecipe(value, notes, f"{path}{name}.")
        notes.note(notes.leaves, f"{path}{name}")
        return value

    def parts(self, *paths: str) -> dict[str, object]:
        recipe, notes = self.__dict__["_part"], self.__dict__["_notes"]
        known = leaves(recipe)
        for path in paths:
            below = [leaf for leaf in known if leaf == path or leaf.startswith(f"{path}.")]
            notes.note(notes.leaves, *(below or [path]))
        return recipe.parts(*paths)


class NotingWarehouse(Warehouse):
    """A warehouse whose queries note the tables that they name."""

    def attach_notes(self, notes: Notes) -> "NotingWarehouse":
        self.__dict__["notes"] = notes
        return self

    @contextmanager
    def reading(self, at: int | None = None) -> Iterator["NotedReading"]:  # type: ignore[override]
        with super().reading(at) as reading:
            yield NotedReading(reading, self.__dict__["notes"])

    @contextmanager
    def commit(self, origin: str) -> Iterator["NotedReading"]:  # type: ignore[override]
        with super().commit(origin) as transaction:
            yield NotedReading(transaction, self.__dict__["notes"])


class NotedReading:
    """Stands for a reading or a transaction."""

    def __init__(self, inner: object, notes: Notes) -> None:
        self._inner = inner
        self._notes = notes

    def __getattr__(self, name: str) -> object:
        method = getattr(self._inner, name)
        if name not in ("read", "stream", "create_temp_table", "append_missing", "replace", "delete_keys"):
            return method

        def noted(*args: object, **kwargs: object) -> object:
            if name in ("append_missing", "replace", "delete_keys"):
                self._notes.note(self._notes.written, str(args[0]))
            else:
                self._notes.note(self._notes.read, *tables_of(str(args[1 if name == "create_temp_table" else 0])))
            return method(*args, **kwargs)

        return noted


@cache
def parser() -> duckdb.DuckDBPyConnection:
    return duckdb.connect()


@cache
def tables_of(query: str) -> frozenset[str]:
    """The tables that a query names, as DuckDB parses it; of a COPY, those of the query in it."""
    copied = re.match(r"\s*COPY \((.*)\)\s+TO '", query, re.DOTALL)
    query = copied[1] if copied else query
    row = parser().execute("SELECT json_serialize_sql($query)", {"query": query}).fetchone()
    assert row is not None
    tree = json.loads(row[0])
    assert not tree["error"], (query, tree)
    return frozenset(_tables(tree))


def _tables(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        if node.get("type") == "BASE_TABLE":
            yield str(node["table_name"])
        for value in node.values():
            yield from _tables(value)
    elif isinstance(node, list):
        for value in node:
            yield from _tables(value)


def noted(recipe: Recipe, notes: Notes) -> Recipe:
    """The recipe, noting; typed as what it stands for."""
    return NotedRecipe(recipe, notes)  # type: ignore[return-value]
