"""The lake: the tables of a home in one DuckLake catalog (with Parquet files); readers never wait, writers briefly.

A commit is a DuckDB transaction inside a lock held only around it, so no reader sees a half-written table. Every
commit makes a snapshot with its origin as message, and its rows name the Dagster run that wrote them (`run_id`);
`read(…, at=snapshot)` sees the tables exactly as they were then. Nothing here imports Dagster, which takes 0.6 s.
Which catalog, and where its files are: `place`.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from math import ceil
from pathlib import Path
from typing import Any

import duckdb
import polars as pl

from dasd_resources.storage.catalogs import Catalog
from dasd_resources.storage.connections import all_cores, attach, committing
from dasd_resources.storage.data_files import (
    first_seen,
    forget_hashes,
    hash_committed,
    keep_hashes,
    last_commit,
    naming_damage,
    read_back,
    require_files,
)
from dasd_resources.storage.place import catalog_of
from dasd_resources.storage.schema import migrate
from dasd_resources.storage.tables import TABLES, declared, owned_by

Row = Mapping[str, Any]  # a table's row: column -> value of the column's type
Params = Mapping[str, object]

log = logging.getLogger(__name__)

BYTES_PER_INSERT = 64_000_000  # DuckDB takes seven times as much for it, and is given 4 GB


class Reading:
    """Queries on one connection: all of them see the same snapshot."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection

    def read(self, query: str, params: Params | None = None) -> pl.DataFrame:
        """Rows of a query; `$name` takes the parameter of that name."""
        return _query(self._connection, query, params)

    def snapshot_id(self) -> int:
        """The id of the snapshot that these queries see, as of the last commit."""
        return int(self.read("SELECT id FROM dasd.current_snapshot()").item())  # snapshots() would list them all

    def all_cores(self) -> AbstractContextManager[None]:
        """Run the block's queries on all cores: faster over millions of rows, slower for most others."""
        return all_cores(self._connection)

    def stream(self, query: str, params: Params, num_rows: int) -> Iterator[pl.DataFrame]:
        """Rows of a query, about `num_rows` at a time, in the order DuckDB finds them; they are never all in memory."""
        for batch in self._connection.execute(query, dict(params)).to_arrow_reader(num_rows):
            yield pl.DataFrame(batch)

    def create_temp_table(self, name: str, query: str, params: Params | None = None) -> None:
        """Store a query's rows as the temporary table `name`, so that large results stay in DuckDB, out of Python."""
        self.read(f"CREATE OR REPLACE TEMP TABLE {name} AS {query}", params)


class Transaction(Reading):
    """Writes of one commit: the next snapshot has all of them or none. Rows get its Dagster run as `run_id`."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, run_id: str | None) -> None:
        super().__init__(connection)
        self._run_id = run_id

    def append_missing(self, table: str, rows: pl.DataFrame, batch: str | None = None) -> int:
        """Insert the rows whose key the table lacks (DuckLake has no unique keys); returns how many were new.

        batch: of all these rows; only that batch's files are searched for keys. If the row that owns one of them (its
        prompt, say) has moved to another batch since the work began, the row is written to that batch.
        """
        if rows.is_empty():
            return 0
        declaration = declared(table)
        parts = [(batch, rows)]
        if batch is not None and declaration.owner is not None:
            [column] = declared(declaration.owner).key
            parts = self._by_owner(rows, batch, declaration.owner, column)
        return sum(self._append(table, declaration.key, some, name) for name, part in parts for some in _slices(part))

    def _by_owner(
        self, rows: pl.DataFrame, batch: str, table: str, column: str
    ) -> list[tuple[str | None, pl.DataFrame]]:
        """The rows by the batch that their owner is in now; `batch` for those whose owner no longer exists."""
        # 1. The common case: all owners are in the batch, which its own files show.
        query = f"SELECT {column}, min(batch) AS now FROM {table} WHERE {column} IN (SELECT unnest($ids::VARCHAR[]))"
        ids = rows[column].unique().to_list()
        here = self.read(f"{query} AND batch = $batch GROUP BY ALL", {"ids": ids, "batch": batch})
        if here.height == len(ids):
            return [(batch, rows)]
        # 2. Otherwise look in all batches for the owners that are not.
        away = self.read(f"{query} GROUP BY ALL", {"ids": list(set(ids) - set(here[column]))})
        moved = rows.join(away, on=column, how="left").with_columns(batch=pl.col("now").fill_null(batch)).drop("now")
        return [(part["batch"][0], part) for part in moved.partition_by("batch")]

    def _append(self, table: str, key: Sequence[str], rows: pl.DataFrame, batch: str | None) -> int:
        # DuckLake has no unique keys, so rows whose key is there are left out. It is safe because the lock is held.
        # Keys alone are looked up: an anti-join in the insert would keep all rows in memory, with their lists.
        # Files whose rows all lie before or after the incoming ones are not read: many, where rows come in order.
        keys = ", ".join(key)
        numbered = rows.select(key).with_row_index("number")  # noqa: F841  (DuckDB finds it by its name)
        scope = "TRUE" if batch is None else "batch = $batch"
        query = f"""SELECT number FROM numbered SEMI JOIN (SELECT {keys} FROM {table}
            WHERE {scope} AND {key[0]} BETWEEN $first AND $last) AS present USING ({keys})"""
        params = {
            "first": rows[key[0]].min(),
            "last": rows[key[0]].max(),
            **({} if batch is None else {"batch": batch}),
        }
        present = pl.DataFrame(self._connection.sql(query, params=params))["number"]
        is_new = pl.struct(key).is_first_distinct() & ~pl.row_index().is_in(present.implode())
        new = rows.select(is_new).to_series()
        return self._insert(table, rows if new.all() else rows.filter(new))  # all would be copied

    def replace(self, table: str, where: Params, rows: pl.DataFrame | Iterable[pl.DataFrame]) -> None:
        """Delete the rows equal to `where` in every column it names, then insert `rows`, which may come in parts."""
        self._connection.execute(f"DELETE FROM {table} WHERE {_equal(where)}", dict(where))
        for part in [rows] if isinstance(rows, pl.DataFrame) else rows:
            if not part.is_empty():
                self._insert(table, part)

    def delete_keys(self, table: str, where: Params, column: str, keys: Sequence[str]) -> None:
        """Delete the rows equal to `where` in every column it names, and whose `column` is one of `keys`."""
        if keys:
            query = f"DELETE FROM {table} WHERE {_equal(where)} AND {column} IN (SELECT unnest($keys::VARCHAR[]))"
            self._connection.execute(query, {**where, "keys": list(keys)})

    def move_to_batch(self, table: str, keys: Sequence[str], batch: str) -> None:
        """Move the rows of these keys to `batch`, together with the rows of other tables that they own."""
        [key] = declared(table).key
        self._move(table, key, keys, batch)

    def _move(self, table: str, column: str, values: Sequence[str], batch: str) -> None:
        """Move the rows whose `column` is one of `values`, first those of other tables that they own."""
        # Owned rows first: once the owner is in `batch`, the condition below no longer finds it.
        where = f"{column} IN (SELECT unnest($values::VARCHAR[])) AND batch <> $batch"
        params = {"values": list(values), "batch": batch}
        if owned := owned_by(table):
            [key] = declared(table).key
            found = values if key == column else self.read(f"SELECT {key} FROM {table} WHERE {where}", params)[key]
            for part in owned:
                self._move(part.name, key, list(found), batch)
        self._connection.execute(f"UPDATE {table} SET batch = $batch WHERE {where}", params)

    def _insert(self, table: str, incoming: pl.DataFrame) -> int:
        """Insert rows, with `run_id` if the table has it and they do not, and what is computed; returns how many."""
        if declared(table).has("run_id") and "run_id" not in incoming.columns:
            incoming = incoming.with_columns(run_id=pl.lit(self._run_id, dtype=pl.String))
        computed = declared(table).computed_from(incoming.columns)
        values = ", ".join(["*", *(f"{expression} AS {name}" for name, expression in computed.items())])
        # DuckDB finds `incoming` by its name. One that is registered stays in memory until the transaction has ended.
        query = f"INSERT INTO {table} BY NAME SELECT {values} FROM incoming"
        inserted = self._connection.execute(query).fetchone()
        assert inserted is not None
        return int(inserted[0])


def _slices(rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The rows in order, about BYTES_PER_INSERT at a time."""
    num_inserts = max(ceil(rows.estimated_size() / BYTES_PER_INSERT), 1)
    return rows.iter_slices(ceil(rows.height / num_inserts))


def _equal(where: Params) -> str:
    """The condition that every named column equals its parameter, NULL equal to NULL; of all rows where none is."""
    return " AND ".join(f"{column} IS NOT DISTINCT FROM ${column}" for column in where) or "TRUE"


class Lake:
    """The tables under `home`; a connection is taken for a read or a commit, and idle ones are kept (`connections`)."""

    home: str

    def __init__(self, home: str) -> None:
        self.home = home

    @property
    def catalog(self) -> Catalog:
        return catalog_of(Path(self.home))

    def stored_path(self, folder: Path) -> str:
        """A model's folder as the tables name it: relative to the home if it lies there, as that may be moved."""
        home = Path(self.home)
        return str(folder.relative_to(home) if folder.is_relative_to(home) else folder)

    def folder(self, stored_path: str) -> Path:
        """Where a model's folder is now, of which the tables have this path."""
        return Path(self.home) / stored_path

    def require(self) -> None:
        """Raise FileNotFoundError, saying what to do, if there is no catalog: a read must not create one."""
        if not self.catalog.exists():
            raise FileNotFoundError(
                f"{self.catalog} does not exist: run `dasd run` first, or set DASD_HOME; if it was there before, "
                "restore a backup (`dasd restore`)"
            )

    def read(self, query: str, params: Params | None = None, at: int | None = None) -> pl.DataFrame:
        """Rows of a query on the newest snapshot, or on snapshot `at`; `$name` takes the parameter of that name."""
        with self.reading(at) as reading:  # planned and run in one transaction: each asks the catalog what is newest
            return reading.read(query, params)

    @contextmanager
    def reading(self, at: int | None = None) -> Iterator[Reading]:
        """Several queries on one snapshot: the newest, or `at`."""
        self.migrate()
        with naming_damage(self.catalog), attach(self.catalog, at=at, read_only=True) as connection:
            connection.execute("BEGIN")
            yield Reading(connection)
            connection.execute("ROLLBACK")  # drops temporary tables

    def read_latest(self, query: str, params: Params | None = None) -> tuple[pl.DataFrame, int]:
        """Rows of a query and the id of the snapshot they were read from."""
        with self.reading() as reading:
            return reading.read(query, params), reading.snapshot_id()

    def snapshot_id(self) -> int:
        """The newest snapshot's id."""
        with self.reading() as reading:
            return reading.snapshot_id()

    @contextmanager
    def commit(self, origin: str) -> Iterator[Transaction]:
        """A transaction recorded as one snapshot whose commit message is `origin`; rolled back if the block raises.

        What fails after the commit is logged: whoever made it must not take it for undone and write its rows again.
        """
        self.migrate()
        catalog, committed = self.catalog, False
        try:
            with naming_damage(catalog):
                with catalog.locked() as require_lock, attach(catalog) as connection:
                    before = last_commit(connection)
                    with committing(connection, origin, require_lock):
                        yield Transaction(connection, _run_id(origin))
                    committed = True
                    paths = hash_committed(connection, catalog, before)
                if paths:  # attached anew: a connection that nobody has used for minutes may be cut
                    hashes = read_back(catalog.data, paths)
                    with catalog.locked(), attach(catalog) as connection:
                        keep_hashes(connection, hashes)
        except Exception as error:
            if not committed:
                raise
            log.warning("committed, but files of it have no hash until the next maintenance: %s", error, exc_info=True)

    def require_files(self) -> None:
        """Raise DamagedFiles if a data file of the newest snapshot is gone or cut; cheap, as none is read."""
        self.migrate()
        require_files(self.catalog)

    def hash_files(self) -> int:
        """Keep the hash of every data file that has none, as it is now; returns how many were first seen."""
        self.migrate()
        found = first_seen(self.catalog)  # before the lock is taken: it reads whole files
        with self.catalog.locked(), attach(self.catalog) as connection:
            keep_hashes(connection, found)
            forget_hashes(connection)
        return len(found)

    def migrate(self) -> None:
        """Create the catalog or bring it to this version's schema; cheap when there is nothing to do."""
        with naming_damage(self.catalog):
            migrate(self.catalog, tuple(TABLES.values()))


def _query(connection: duckdb.DuckDBPyConnection, query: str, params: Params | None) -> pl.DataFrame:
    """Rows of a query. Parameters that it does not name are left out, because DuckDB refuses them."""
    named = set(re.findall(r"\$(\w+)", query))
    rows = connection.sql(query, params={name: value for name, value in (params or {}).items() if name in named})
    return pl.DataFrame(rows)  # Arrow's C stream: no slower than .pl(), and pyarrow is not imported; None: a COPY


def _run_id(origin: str) -> str | None:
    """The Dagster run that an asset's commit message names (`provenance.origin`); None in any other message."""
    try:
        return str(json.loads(origin)["run_id"])
    except (ValueError, TypeError, KeyError):
        return None
