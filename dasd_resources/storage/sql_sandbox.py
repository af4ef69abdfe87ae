"""`dasd sql`: a user's SELECT over the warehouse's tables at one snapshot, and nothing else.

Three locks, because each has a hole. The catalog is attached read-only (yet DuckLake's functions delete files).
DuckDB's external access is off but for the data folder (yet `sqlite_scan` opens any file, and COPY may write to that
folder). So only SELECT is accepted, and of table functions only those listed here, as DuckDB's own parser sees them.
"""

import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain, count
from pathlib import Path

import duckdb
import polars as pl

from dasd_resources.errors import UserError
from dasd_resources.storage.catalogs import Catalog
from dasd_resources.storage.connections import attach_to, check_snapshot, loaded, quoted
from dasd_resources.storage.data_files import CATALOG_TABLES, naming_damage

TABLE_FUNCTIONS = frozenset(
    {
        "duckdb_columns",
        "duckdb_tables",
        "generate_series",
        "generate_subscripts",
        "json_each",
        "json_tree",
        "pragma_table_info",
        "range",
        "repeat",
        "snapshots",
        "table_changes",
        "table_deletions",
        "table_insertions",
        "unnest",
    }
)
OWN_TYPES = re.compile(r"\b(INTERVAL|UNION|BIT|VARIANT|GEOMETRY)\b")
EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?", re.IGNORECASE)


class RefusedQuery(UserError, ValueError):
    """A query that may do more than read the warehouse's tables; the message says what is accepted."""


def select(catalog: Catalog, query: str, at: int | None = None) -> pl.DataFrame:
    """All rows of a query on the newest snapshot, or on snapshot `at`. Raises what `selecting` does."""
    with selecting(catalog, query, at) as found:
        return pl.DataFrame(found)


@contextmanager
def selecting(catalog: Catalog, query: str, at: int | None = None) -> Iterator[duckdb.DuckDBPyRelation]:
    """The rows of such a query, to be read in the block; what was read is known to be whole where the block ends.

    Raises RefusedQuery, UnknownSnapshot, DamagedFiles, and duckdb.Error for what is wrong with the query itself; where
    its rows are read part by part, Arrow makes an OSError of that, which may say "Interrupted!" alone: another thread
    met the error.
    """
    check_select(query, (CATALOG_TABLES,) if catalog.shared else ())
    with (
        naming_damage(catalog),
        tempfile.TemporaryDirectory(prefix="dasd-sql-") as spill,
        closing(loaded()) as connection,
    ):
        connection.execute("RESET threads")
        attach_to(connection, catalog, at, read_only=True)
        _lock(connection, catalog.data.root, Path(spill))
        yield _shown(connection.sql(query))
        check_snapshot(connection, catalog, at)


def _shown(found: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """The same rows with distinct column names (`id`, `id_1`); types that polars lacks are cast to text."""
    needs_text = [OWN_TYPES.search(str(kind)) is not None for kind in found.types]
    if len(set(found.columns)) == len(found.columns) and not any(needs_text):
        return found
    names: list[str] = []
    for name in found.columns:
        new = next(other for other in chain([name], (f"{name}_{n}" for n in count(1))) if other not in names)
        names.append(new)
    places = [f"#{index + 1}::VARCHAR" if as_text else f"#{index + 1}" for index, as_text in enumerate(needs_text)]
    quoted_names = [f'"{name.replace(chr(34), chr(34) * 2)}"' for name in names]
    return found.project(", ".join(f"{place} AS {name}" for place, name in zip(places, quoted_names, strict=True)))


def check_select(query: str, hidden: Sequence[str] = ()) -> None:
    """Raise RefusedQuery unless the query is one SELECT (or an EXPLAIN of one) of tables and permitted functions.

    hidden: databases none of whose tables may be read.
    """
    statements = duckdb.extract_statements(query)
    if len(statements) != 1:
        raise RefusedQuery(f"{len(statements)} statements: give exactly one SELECT")
    text = statements[0].query
    if statements[0].type == duckdb.StatementType.EXPLAIN:
        text = EXPLAIN.sub("", text, count=1)
    tree = _syntax_tree(text)
    if named := {name.lower() for name in _databases(tree)} & {name.lower() for name in hidden}:
        raise RefusedQuery(f"tables of {', '.join(named)} are not permitted: others share that database")
    if refused := sorted(set(_table_functions(tree)) - TABLE_FUNCTIONS):
        raise RefusedQuery(
            f"table functions {', '.join(refused)} are not permitted; these are: {', '.join(sorted(TABLE_FUNCTIONS))}"
        )


def _syntax_tree(text: str) -> object:
    row = duckdb.connect().execute("SELECT json_serialize_sql($text)", {"text": text}).fetchone()
    assert row is not None
    tree = json.loads(row[0])
    if tree["error"]:
        raise RefusedQuery("only SELECT is permitted (also SHOW TABLES, DESCRIBE, SUMMARIZE and EXPLAIN SELECT)")
    return tree


def _table_functions(node: object) -> Iterator[str]:
    """The names of all table functions in a statement, subqueries included, whatever catalog or schema they name."""
    if isinstance(node, dict):
        if node.get("type") == "TABLE_FUNCTION":
            yield str(node["function"].get("function_name", node["function"].get("type"))).lower()
        yield from (name for value in node.values() for name in _table_functions(value))
    elif isinstance(node, list):
        yield from (name for value in node for name in _table_functions(value))


def _databases(node: object) -> Iterator[str]:
    """Whatever stands before a table's name in a statement: a database, a schema, or both."""
    if isinstance(node, dict):
        yield from (str(node[part]) for part in ("catalog_name", "schema_name") if node.get(part))
        yield from (name for value in node.values() for name in _databases(value))
    elif isinstance(node, list):
        yield from (name for value in node for name in _databases(value))


def _lock(connection: duckdb.DuckDBPyConnection, data: str, spill: Path) -> None:
    """Disable access to files, extensions, Python variables and settings, for good."""
    for setting in (
        f"allowed_directories = ['{quoted(data)}']",
        f"temp_directory = '{quoted(spill)}'",
        "python_enable_replacements = false",
        "autoload_known_extensions = false",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
