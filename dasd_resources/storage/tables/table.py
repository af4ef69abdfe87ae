"""What is said of a table, once: columns with type, meaning and origin, key, references, and who owns a row."""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Self


class TableError(ValueError):
    """A declaration that cannot be; the message says which name is wrong and which there are."""


@dataclass(frozen=True)
class Column:
    """A column: its type as DuckDB prints it, what it means, and the columns upstream that its values come from.

    sources: `table.column`. Left out are columns that only say which rows there are (a filter's `passed` decides what
    is scored, not what the score is), and values that come from the recipe or from the code.
    computed: in SQL, of the row's other columns; it is filled in as a row is written, so that nobody has to read a list
    for its length or mean. Rows of earlier releases have NULL, and `measured` computes it.
    """

    name: str
    type: str
    meaning: str
    sources: tuple[str, ...] = ()
    nullable: bool = False
    computed: str = ""

    def of(self, *sources: str) -> Self:
        """The same column, computed from these."""
        return replace(self, sources=sources)

    def here(self, meaning: str) -> Self:
        """The same column with what it means in one table."""
        return replace(self, meaning=meaning)

    def optional(self) -> Self:
        """The same column, which may be NULL."""
        return replace(self, nullable=True)


@dataclass(frozen=True)
class Reference:
    """Columns whose values some row of another table must have; its columns have the same names unless given.

    A row whose first column is NULL refers to nothing.
    """

    columns: tuple[str, ...]
    table: str
    parent_columns: tuple[str, ...] = ()

    @property
    def parent(self) -> tuple[str, ...]:
        """The other table's columns, in the order of `columns`."""
        return self.parent_columns or self.columns


@dataclass(frozen=True, eq=False)  # compared by identity, which makes a tuple of tables a cheap key of a cache
class Table:
    """A table; all that is done with every table alike is derived from this.

    one_row_per: completes "one row per …"
    key: no two rows have the same values in these columns
    named_by: the columns by which a person names a row; the key unless given
    owner: the table whose row a row belongs to, found by that table's key, and with it its prompt batch
    partitioned_by_batch: data files hold one batch each, so that a reader touches only its own
    shown: columns of the sample rows in the web UI; nothing that is not to be seen, such as system prompts
    permanent: a row never changes under its key, and is found by ids that other tables name: an asset that looks rows
        up this way need not be made again when others come
    derived: `dasd run` makes exactly these rows again, run_id apart, from other tables, landed files and benchmarks: no
        model writes or scores them and they record no moment, so a damaged file of them may be dropped (`dasd repair`)
    in_summary: whether `dasd run` ends with its row count
    """

    name: str
    one_row_per: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    named_by: tuple[str, ...] = ()
    references: tuple[Reference, ...] = ()
    owner: str | None = None
    partitioned_by_batch: bool = False
    shown: tuple[str, ...] = ()
    permanent: bool = False
    derived: bool = False
    in_summary: bool = True
    notes: str = ""

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    @property
    def row_name(self) -> tuple[str, ...]:
        """The columns by which a row is named in a message."""
        return self.named_by or self.key

    @property
    def sample_columns(self) -> tuple[str, ...]:
        return self.shown or self.key

    def computed_from(self, names: Collection[str]) -> dict[str, str]:
        """Column -> how it is computed, of those that are and that rows with these columns lack."""
        return {
            column.name: column.computed
            for column in self.columns
            if column.computed and column.name not in names and self._named_in(column.computed) <= set(names)
        }

    def _named_in(self, expression: str) -> set[str]:
        return set(re.findall(r"\w+", expression)) & set(self.column_names)

    def has(self, *names: str) -> bool:
        """Whether it has all of these columns."""
        return set(names) <= set(self.column_names)


def check(tables: Mapping[str, Table]) -> None:
    """Raise TableError for a declaration that names a table or a column which is not declared."""
    for name, table in tables.items():
        if name != table.name:
            raise TableError(f"the entry {name!r} holds the table {table.name!r}: give both one name")
        if not table.key:
            raise TableError(f"{name} has no key: name the columns in which no two rows are alike")
        if len(set(table.column_names)) < len(table.columns):
            raise TableError(f"{name} declares a column twice: {', '.join(table.column_names)}")
        _check_columns(tables, name, table.key, f"the key of {name}")
        _check_columns(tables, name, table.named_by, f"named_by of {name}")
        _check_columns(tables, name, table.shown, f"the columns of {name} that are shown")
        _check_origins(tables, table)
        _check_batches(tables, table)


def _check_origins(tables: Mapping[str, Table], table: Table) -> None:
    """What a table says of its columns' sources and of the rows it refers to."""
    for reference in table.references:
        what = f"a reference of {table.name} to {reference.table}"
        _check_columns(tables, table.name, reference.columns, what)
        _check_columns(tables, reference.table, reference.parent, what)
        if len(reference.columns) != len(reference.parent):
            raise TableError(f"{what} pairs {reference.columns} with {reference.parent}: name as many columns of each")
    for column in table.columns:
        for source in column.sources:
            origin, _, name = source.partition(".")
            _check_columns(tables, origin, (name,), f"a source of {table.name}.{column.name}")


def _check_batches(tables: Mapping[str, Table], table: Table) -> None:
    """What a table says of its rows' batch: rows that belong to another table's must move along with that."""
    if table.partitioned_by_batch:
        _check_columns(tables, table.name, ("batch",), f"the partition of {table.name}")
    if table.owner is not None:
        _check_columns(tables, table.owner, ("batch",), f"the owner of {table.name}")
        if len(tables[table.owner].key) != 1:
            raise TableError(f"{table.owner} owns rows of {table.name}, so its key must be one column")
        _check_columns(tables, table.name, (*tables[table.owner].key, "batch"), f"the owner of {table.name}")
    elif table.has("batch"):
        for other in tables.values():
            if other is not table and other.has("batch") and len(other.key) == 1 and other.key[0] in table.key:
                raise TableError(
                    f"{table.name} has a batch and {other.key[0]} in its key, but no owner: when that row of "
                    f"{other.name} moves to another batch, its rows must too, so write owner={other.name!r}"
                )


def _check_columns(tables: Mapping[str, Table], table: str, names: Iterable[str], what: str) -> None:
    if table not in tables:
        raise TableError(f"{what} names the table {table!r}; there are {', '.join(tables)}")
    if unknown := [name for name in names if name not in tables[table].column_names]:
        known = ", ".join(tables[table].column_names)
        raise TableError(f"{what} names {', '.join(unknown)}, which {table} lacks; it has {known}")
