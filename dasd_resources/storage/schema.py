"""The declared tables -> a catalog that has them: created where there is none, brought forward where it is older.

An older catalog first goes through the explicit `migrations`, then gets the tables, and the columns that may be NULL,
that it lacks. `schema_version` keeps each migration's number and, beside the last, the hash of what was declared when
the catalog was last compared: a look at that is all there is to do as long as nothing new is declared.
"""

from collections.abc import Sequence
from functools import cache

import duckdb

from dasd_resources.content_hash import content_hash
from dasd_resources.errors import UserError
from dasd_resources.storage.catalogs import Catalog
from dasd_resources.storage.connections import attach, committing
from dasd_resources.storage.data_files import CATALOG_TABLES, keep_hashes
from dasd_resources.storage.migrations import MIGRATIONS
from dasd_resources.storage.one_home import require_own
from dasd_resources.storage.tables import Column, Table, check
from dasd_resources.storage.views import views

VERSIONS = "schema_version"


class NewerCatalog(UserError, RuntimeError):
    """A catalog that a later release has written."""


class SchemaConflict(RuntimeError):
    """A declared column that no catalog gets by itself; the message says what step to add."""


@cache
def migrate(catalog: Catalog, tables: tuple[Table, ...], migrations: tuple[str, ...] = MIGRATIONS) -> None:
    """Create a catalog with these tables or bring it forward to them; looked at once in a process.

    Each step is whole or not at all. Raises NewerCatalog for a catalog that a later release has written,
    SchemaConflict for a declared column that is not as in the catalog and that no migration makes so, and PlaceTaken.
    """
    require_own(catalog)
    check({table.name: table for table in tables})
    wanted = schema_hash(tables)
    if _is_current(catalog, len(migrations), wanted):
        return
    catalog.home.mkdir(parents=True, exist_ok=True)
    with catalog.locked() as require_lock, attach(catalog) as connection:
        version = _version(connection)
        if version > len(migrations):
            raise NewerCatalog(f"{catalog} has schema version {version}; this release knows {len(migrations)}: upgrade")
        # 1. Explicit steps, for a catalog that exists: each a commit of its own, numbered.
        for number in range(version + 1, len(migrations) + 1) if version else ():
            with committing(connection, f"schema {number}", require_lock):
                connection.execute(migrations[number - 1])
                connection.execute("INSERT INTO schema_version(version) VALUES ($number)", {"number": number})
        # 2. Whatever is declared and not there; for a new catalog, that is everything.
        if _was_compared(connection, len(migrations), wanted):
            return
        keep_hashes(connection, {})  # makes their table: a connection that was there before would not see it
        with committing(connection, f"schema {len(migrations)}, tables {wanted[:16]}", require_lock):
            _add_missing(connection, tables)
            _record(connection, len(migrations), wanted)
        _note_no_rows(connection)


def schema_hash(tables: Sequence[Table]) -> str:
    """Hash of all that a catalog is made from: columns, types, partitions, views; and `_note_no_rows`."""
    columns = [
        [table.name, table.partitioned_by_batch, [[c.name, c.type, c.nullable] for c in table.columns]]
        for table in tables
    ]
    return content_hash({"tables": columns, "views": views(tables), "statistics": "of no rows"})


def _version(connection: duckdb.DuckDBPyConnection) -> int:
    """The last migration that the catalog has gone through, or was made after; 0 for a new one."""
    if VERSIONS not in _columns(connection):
        return 0
    found = connection.sql("SELECT coalesce(max(version), 0) FROM schema_version").fetchone()
    return int(found[0]) if found else 0


def _record(connection: duckdb.DuckDBPyConnection, number: int, wanted: str) -> None:
    """Note that the catalog has been compared with what is declared; releases before the sixth step kept no hash."""
    connection.execute("CREATE TABLE IF NOT EXISTS schema_version(version INTEGER NOT NULL, schema_hash VARCHAR)")
    connection.execute("ALTER TABLE schema_version ADD COLUMN IF NOT EXISTS schema_hash VARCHAR")
    values = {"number": number, "hash": wanted}
    connection.execute("INSERT INTO schema_version(version, schema_hash) VALUES ($number, $hash)", values)


def _is_current(catalog: Catalog, number: int, wanted: str) -> bool:
    """Looked up as readers read: a look at a catalog that is up to date waits for no writer, and stays attached.

    A connection that saw an earlier version is closed: kept, it has been seen to miss the tables made since.
    """
    if not catalog.exists():
        return False
    try:
        with attach(catalog, read_only=True) as connection:
            if not _was_compared(connection, number, wanted):
                raise LookupError("another version")
    except (duckdb.Error, LookupError):  # the former: somebody is making it. Look again under the lock
        return False
    return True


def _was_compared(connection: duckdb.DuckDBPyConnection, number: int, wanted: str) -> bool:
    """Whether the catalog is of this version, and was compared with what is declared; false without such columns."""
    query = """SELECT max(version) = $number AND bool_or(version = $number AND schema_hash = $hash)
        FROM schema_version"""
    try:
        return connection.execute(query, {"number": number, "hash": wanted}).fetchall() == [(True,)]
    except (duckdb.BinderException, duckdb.CatalogException):
        return False


def _add_missing(connection: duckdb.DuckDBPyConnection, tables: Sequence[Table]) -> None:
    """Create the tables and add the columns that the catalog lacks, and make its views the declared ones."""
    present = _columns(connection)
    for table in tables:
        if table.name not in present:
            _create(connection, table)
            continue
        for column in table.columns:
            _compare(connection, table.name, column, present[table.name])
    for name, query in views(tables).items():
        connection.execute(f"CREATE OR REPLACE VIEW {name} AS {query}")


def _columns(connection: duckdb.DuckDBPyConnection) -> dict[str, dict[str, tuple[str, bool]]]:
    """Table -> column -> type and whether it may be NULL, as the catalog has them."""
    query = """SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns()
        WHERE database_name = 'dasd'"""
    found: dict[str, dict[str, tuple[str, bool]]] = {}
    for table, column, kind, nullable in connection.sql(query).fetchall():
        found.setdefault(table, {})[column] = (kind, nullable)
    return found


def _create(connection: duckdb.DuckDBPyConnection, table: Table) -> None:
    columns = ", ".join(f"{c.name} {c.type}{'' if c.nullable else ' NOT NULL'}" for c in table.columns)
    connection.execute(f"CREATE TABLE {table.name}({columns})")
    if table.partitioned_by_batch:
        connection.execute(f"ALTER TABLE {table.name} SET PARTITIONED BY (batch)")


def _note_no_rows(connection: duckdb.DuckDBPyConnection) -> None:
    """Give the tables that nothing was ever written to the statistics of no rows, under the lake's lock.

    DuckLake itself writes a table's statistics with its first rows, and until then looks for them twice per column in
    every query: 20 to 60 ms of an empty table, 4 ms with them. It brings these up to date as it does its own.
    """
    new = f"end_snapshot IS NULL AND table_id NOT IN (SELECT table_id FROM {CATALOG_TABLES}.ducklake_table_stats)"
    columns, tables = f"{CATALOG_TABLES}.ducklake_column", f"{CATALOG_TABLES}.ducklake_table"
    connection.execute("BEGIN")
    connection.execute(
        f"""INSERT INTO {CATALOG_TABLES}.ducklake_table_column_stats BY NAME
            SELECT table_id, column_id, false AS contains_null FROM {columns} ANTI JOIN (
                SELECT table_id, parent_column AS column_id FROM {columns}) AS of_lists USING (table_id, column_id)
            WHERE {new}"""
    )
    connection.execute(
        f"""INSERT INTO {CATALOG_TABLES}.ducklake_table_stats BY NAME
            SELECT table_id, 0 AS record_count, 0 AS next_row_id, 0 AS file_size_bytes FROM {tables} WHERE {new}"""
    )
    connection.execute("COMMIT")


def _compare(
    connection: duckdb.DuckDBPyConnection, table: str, column: Column, present: dict[str, tuple[str, bool]]
) -> None:
    """Add the column where it is missing and may be; a column that is there must be as declared."""
    wanted = (column.type, column.nullable)
    if column.name not in present and column.nullable:
        connection.execute(f"ALTER TABLE {table} ADD COLUMN {column.name} {column.type}")
    elif present.get(column.name) != wanted:
        found = f"has it as {_described(*present[column.name])}" if column.name in present else "lacks it"
        raise SchemaConflict(
            f"{table}.{column.name} is declared as {_described(*wanted)}, the catalog {found}: add a step to "
            "MIGRATIONS in dasd_resources/storage/migrations.py that makes it so (or declare a new column nullable)"
        )


def _described(kind: str, nullable: bool) -> str:
    return kind if nullable else f"{kind} NOT NULL"
