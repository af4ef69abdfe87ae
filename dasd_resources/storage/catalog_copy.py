"""A catalog's own tables copied between PostgreSQL and a SQLite file, the form that they have in every backup.

So a backup of any home can be restored as any other, and needs none of PostgreSQL's programs. The two differ in types
alone: SQLite has numbers and texts, and PostgreSQL keeps the texts of inlined rows as bytes, as a text may hold a NUL.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import duckdb

from dasd_resources.errors import UserError
from dasd_resources.storage.catalogs import Catalog, PostgresCatalog, SqliteCatalog
from dasd_resources.storage.connections import load, loaded, quoted
from dasd_resources.storage.data_files import HASHES
from dasd_resources.storage.sqlite_copy import copy_apart

# PostgreSQL's type of a column of inlined rows, by DuckLake's; any other is a text.
INLINED = {
    "varchar": "BLOB",
    "boolean": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float64": "DOUBLE",
}


class CatalogInUse(UserError, RuntimeError):
    """A database that has tables already, where a backup was to be restored to."""


def dump(catalog: Catalog, copy: Path) -> None:
    """The catalog as of one moment, as a SQLite file; writers go on."""
    if isinstance(catalog, SqliteCatalog):
        return copy_apart(catalog.path, copy)
    assert isinstance(catalog, PostgresCatalog)
    temporary = copy.with_name(f"{copy.name}.tmp")
    temporary.unlink(missing_ok=True)
    with _both(catalog, temporary) as connection:
        connection.execute("BEGIN")  # repeatable read in PostgreSQL
        made = _columns(connection, "file")
        for table, columns in _columns(connection, "database").items():
            wanted = made.get(table) or {name: _of_sqlite(kind) for name, kind in columns.items()}
            _fill(connection, f"file.{table}", table in made, wanted, f"database.public.{table}", columns)
        connection.execute("COMMIT")
    temporary.replace(copy)


def restore_dump(dumped: Path, catalog: PostgresCatalog) -> None:
    """Bring a SQLite file to the database, whole or not at all. Raises CatalogInUse if that has tables of a home."""
    with catalog.locked(), _both(catalog, dumped) as connection:
        found = connection.sql("SELECT count(*) FROM database.public.ducklake_table").fetchone()
        if found != (0,):
            raise CatalogInUse(f"{catalog} has the tables of a home: name an empty database in DASD_CATALOG")
        connection.execute("BEGIN")
        made = _columns(connection, "database")
        for table, columns in _columns(connection, "file").items():
            kinds = _inlined_types(connection, table)  # of later columns, too
            wanted = made.get(table) or {name: kinds.get(name, kind) for name, kind in columns.items()}
            _fill(connection, f"database.public.{table}", table in made, wanted, f"file.{table}", columns)
        where = f"UPDATE database.public.ducklake_metadata SET value = '{quoted(catalog.data.root)}'"
        connection.execute(f"{where} WHERE key = 'data_path'")
        connection.execute("COMMIT")


@contextmanager
def _both(catalog: PostgresCatalog, file: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to which the `database` and the `file` are attached, each with DuckLake's tables."""
    with closing(loaded()) as connection:
        beside = SqliteCatalog(file.parent, catalog.data)
        for extension in (catalog.extension, beside.extension, *catalog.data.extensions):
            load(connection, extension)
        catalog.data.prepare(connection)
        # DuckLake makes its tables where there are none, with the types that it wants there.
        for target in (catalog.target, f"sqlite:{file}"):
            place = f"DATA_PATH '{quoted(catalog.data.root)}', OVERRIDE_DATA_PATH TRUE"
            connection.execute(f"ATTACH 'ducklake:{quoted(target)}' AS made ({place})")
            connection.execute("DETACH made")
        connection.execute(f"ATTACH '{quoted(catalog.url)}' AS database (TYPE postgres)")
        connection.execute(f"ATTACH '{quoted(file)}' AS file (TYPE sqlite)")
        yield connection


def _columns(connection: duckdb.DuckDBPyConnection, database: str) -> dict[str, dict[str, str]]:
    """Table -> column -> type, of DuckLake's tables and ours beside them."""
    query = f"""SELECT table_name, column_name, data_type FROM duckdb_columns()
        WHERE database_name = $database AND schema_name IN ('public', 'main')
            AND (starts_with(table_name, 'ducklake_') OR table_name = '{HASHES}')
        ORDER BY table_name, column_index"""
    found: dict[str, dict[str, str]] = {}
    for table, column, kind in connection.execute(query, {"database": database}).fetchall():
        found.setdefault(table, {})[column] = kind
    return found


def _of_sqlite(kind: str) -> str:
    return "BIGINT" if kind in ("BOOLEAN", "INTEGER", "BIGINT") else "VARCHAR"


def _inlined_types(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """PostgreSQL's types of the columns of a table of inlined rows, beside those that DuckLake adds.

    As they were under its schema version: a column of the same name may be of another type by now.
    """
    query = """SELECT column_name, column_type FROM file.ducklake_inlined_data_tables t
            JOIN (SELECT schema_version, min(begin_snapshot) AS begun FROM file.ducklake_schema_versions GROUP BY ALL)
                USING (schema_version)
            JOIN file.ducklake_column c ON c.table_id = t.table_id AND c.begin_snapshot <= begun
                AND (c.end_snapshot IS NULL OR c.end_snapshot > begun)
        WHERE t.table_name = $table AND parent_column IS NULL"""
    rows = connection.execute(query, {"table": table}).fetchall()
    return {name: INLINED.get(kind, "VARCHAR") for name, kind in rows}


def _fill(
    connection: duckdb.DuckDBPyConnection,
    target: str,
    is_there: bool,
    wanted: dict[str, str],
    source: str,
    present: dict[str, str],
) -> None:
    """Make the target's rows those of the source, each value in the type wanted there."""
    if is_there:
        connection.execute(f"DELETE FROM {target}")
    else:
        kinds = ", ".join(f'"{name}" {kind}' for name, kind in wanted.items())
        connection.execute(f"CREATE TABLE {target}({kinds})")
    values = ", ".join(f'{_cast(name, present[name], kind)} AS "{name}"' for name, kind in wanted.items())
    connection.execute(f"INSERT INTO {target} BY NAME SELECT {values} FROM {source}")


def _cast(name: str, old: str, new: str) -> str:
    if (old, new) == ("BLOB", "VARCHAR"):
        return f'decode("{name}")'
    return f'encode("{name}")' if (old, new) == ("VARCHAR", "BLOB") else f'"{name}"::{new}'
