"""A home's tables, each as a lazy polars frame or as a DuckDB relation; every reading is of the newest snapshot.

Nothing is held open between readings of a frame, so none of them keeps a writer waiting or a snapshot alive. A filter
may name a column of the table, or of one that its rows refer to: `home.sentence_types(domain="math")`.
"""

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import Self

import duckdb
import polars as pl
from polars.io.plugins import register_io_source

from dasd.response import Response
from dasd_assets.audit.response import audit_response
from dasd_assets.rules.typed_ids import find_id
from dasd_resources.errors import UserError
from dasd_resources.home import home_of
from dasd_resources.spelling import meant
from dasd_resources.storage.connections import attach_to, loaded
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.place import take_password
from dasd_resources.storage.sql_sandbox import select
from dasd_resources.storage.tables import TABLES, Reference
from dasd_resources.storage.views import views

ROWS_AT_A_TIME = 20_000
Value = str | int | float | bool | datetime | None
Where = Value | Collection[str] | Collection[int] | Collection[float]


class NoHome(UserError, FileNotFoundError):
    """A folder without tables; the message says how to name another."""


class UnknownTable(UserError, AttributeError):
    """A name that no table has; the message says which there are."""


class UnknownColumn(UserError, ValueError):
    """A filter that neither the table nor any that its rows refer to has."""


def open(folder: str | Path | None = None, at: int | None = None) -> "Home":
    """The home in this folder; by default DASD_HOME, else `.dasd` here. at: as of this snapshot, not the newest.

    Raises NoHome.
    """
    take_password(os.environ)
    home = Home(home_of(os.environ) if folder is None else Path(os.path.expanduser(folder)).resolve(), at)
    if not home.lake.catalog.exists():
        raise NoHome(
            f"there is no home in {home.path}: `dasd run` makes one; name another by dasd.open(FOLDER) or by DASD_HOME"
        )
    return home


class Home:
    """A home. `home.responses()`, and so on by every name in `tables`, is a lazy polars frame of that table.

    Also a context manager: `close` ends the connection that relations use, if there is one.
    """

    def __init__(self, path: Path, at: int | None = None) -> None:
        self.path, self.at, self.lake = path, at, Lake(home=str(path))
        self._schemas: dict[str, pl.Schema] = {}

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of all tables and views."""
        return (*TABLES, *views(TABLES.values()))

    def table(self, name: str, /, **where: Where) -> pl.LazyFrame:
        """The rows of a table that have these values; nothing is read before `collect`, and then only what it needs.

        where: column = value, or several values, one of which it is to have; None: no value.
        Raises UnknownTable, UnknownColumn.
        """
        query, params = self._query(name, where)
        source = partial(self._read, query, params, self._schema(name))
        return register_io_source(source, schema=self._schema(name), explain_name=f"dasd {name}")

    def relation(self, name: str, /, **where: Where) -> duckdb.DuckDBPyRelation:
        """The same as a DuckDB relation, on a connection of this home's own."""
        query, params = self._query(name, where)
        return self._connection.sql(f"SELECT * {query}", params=params)

    def sql(self, query: str) -> pl.DataFrame:
        """The rows of one SELECT, as `dasd sql` gives them. Raises RefusedQuery, and duckdb.Error."""
        return select(self.lake.catalog, query, at=self.at)

    def response(self, response_id: str) -> Response:
        """A response of the teacher with its sentences, by its id or the first digits. Raises AuditError."""
        with self.lake.reading(at=self.at) as reading:
            record = audit_response(reading, find_id(reading, "response", response_id))
            students = reading.read(_STUDENTS).to_dicts()
        return Response.of(record, students)

    def close(self) -> None:
        """End the connection of relations; a later one makes another."""
        if "_connection" in self.__dict__:
            self.__dict__.pop("_connection").close()

    def __getattr__(self, name: str) -> Callable[..., pl.LazyFrame]:
        if name.startswith("_"):  # of Python's, or of this class's
            raise AttributeError(name)
        self._require(name)
        return partial(self.table, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self.tables})

    def __repr__(self) -> str:
        return f"dasd.open({str(self.path)!r}{'' if self.at is None else f', at={self.at}'})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        self.lake.migrate()
        connection = loaded()
        connection.execute("RESET threads")
        attach_to(connection, self.lake.catalog, self.at, read_only=True)
        return connection

    def _read(
        self,
        query: str,
        params: Mapping[str, object],
        schema: pl.Schema,
        columns: list[str] | None,
        predicate: pl.Expr | None,
        num_rows: int | None,
        rows_at_a_time: int | None,
    ) -> Iterator[pl.DataFrame]:
        """The rows of a frame, as polars asks for them; columns that it does not need are not read."""
        wanted = list(schema) if columns is None else columns
        limit = "" if num_rows is None else f" LIMIT {num_rows}"  # polars cuts first, and then filters
        yield pl.DataFrame(schema={name: schema[name] for name in wanted})
        with self.lake.reading(at=self.at) as reading, reading.all_cores():
            listed = ", ".join(f'"{name}"' for name in wanted) or "NULL"
            for rows in reading.stream(f"SELECT {listed} {query}{limit}", params, rows_at_a_time or ROWS_AT_A_TIME):
                yield rows if predicate is None else rows.filter(predicate)

    def _query(self, name: str, where: Mapping[str, Where]) -> tuple[str, dict[str, object]]:
        """`FROM … WHERE …`, and its parameters."""
        self._require(name)
        params: dict[str, object] = {}
        conditions = [self._condition(name, column, value, params) for column, value in where.items()]
        return f"FROM {name}" + (f" WHERE {' AND '.join(conditions)}" if conditions else ""), params

    def _condition(self, name: str, column: str, value: Where, params: dict[str, object]) -> str:
        route = self._route(name, column)
        number = f"value_{len(params)}"
        if value is None:
            condition = f'"{column}" IS NULL'
        elif isinstance(value, Collection) and not isinstance(value, str):
            params[number], condition = list(value), f'"{column}" IN (SELECT unnest(${number}))'
        else:
            params[number], condition = value, f'"{column}" = ${number}'
        for reference in reversed(route):
            own, others = ", ".join(reference.columns), ", ".join(reference.parent)
            condition = f"({own}) IN (SELECT ({others}) FROM {reference.table} WHERE {condition})"
        return condition

    def _route(self, name: str, column: str) -> list[Reference]:
        """The references that lead from a table to the nearest one that has the column. Raises UnknownColumn."""
        known: dict[str, list[Reference]] = {name: []}
        due = deque([name])
        while due:
            table = due.popleft()
            if column in self._schema(table):
                return known[table]
            for reference in TABLES[table].references if table in TABLES else ():
                if reference.table not in known:
                    known[reference.table] = [*known[table], reference]
                    due.append(reference.table)
        columns = list(dict.fromkeys(found for table in known for found in self._schema(table)))
        raise UnknownColumn(
            f"neither {name} nor a table that it refers to has a column {column!r}; "
            f"{name} has {', '.join(self._schema(name))}{meant(column, columns)}"
        )

    def _schema(self, name: str) -> pl.Schema:
        if name not in self._schemas:
            self._schemas[name] = self.lake.read(f"FROM {name} LIMIT 0", at=self.at).schema
        return self._schemas[name]

    def _require(self, name: str) -> None:
        if name not in self.tables:
            raise UnknownTable(
                f"there is no table {name!r}; there are {', '.join(self.tables)}{meant(name, self.tables)}"
            )


_STUDENTS = """SELECT checkpoint_id, recipe_document FROM checkpoints
    WHERE name = 'student' AND recipe_document IS NOT NULL ORDER BY materialized_at DESC"""
