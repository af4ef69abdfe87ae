"""The lake's data files: which there are, whether each is there and as it was written, and what to do if one is not.

DuckLake keeps a file's size and no hash of its content. Ours stands beside its own tables in the catalog, in
`dasd_file_hashes`, and is taken right after the commit, while the file is in memory (5 to 20 ms a commit); where it has
to be fetched, or is large, the lake's lock is let go meanwhile. Files that no commit of this release has written (a
home of an earlier one, another program), or that could not be read back (a kill in between, a lost connection), get
theirs from maintenance or `dasd audit verify`: as it was first seen, which says nothing of the time before.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import duckdb

from dasd_resources.errors import UserError
from dasd_resources.storage.catalogs import Catalog
from dasd_resources.storage.connections import CONFIG, attach, load
from dasd_resources.storage.data_places import DataPlace, content_of
from dasd_resources.storage.tables import TABLES

CATALOG_TABLES = "__ducklake_metadata_dasd"  # DuckLake's name for the database its own tables are in
HASHES = "dasd_file_hashes"
NUM_NAMED = 5  # damaged files in one message
MAX_BYTES_READ = 4 << 30  # to find out which file spoiled a query: some seconds
OF_UNREADABLE_FILES = (
    duckdb.Error,
    duckdb.HTTPException,
    duckdb.IOException,
    duckdb.InvalidInputException,
    duckdb.SerializationException,
)
OTHER_CONTENT = "its content is not what was written (SHA-256)"
FROM_BACKUP = "restore it from a backup (`dasd restore`)"
DAMAGED_FILE = "`dasd repair` says what can be made again, `dasd restore` brings a backup back"


@dataclass(frozen=True)
class DataFile:
    """A file of rows, or of places of deleted rows, that some snapshot names; in the catalog's words.

    data_file: its number, or that of the file whose rows it deletes. batch: of all its rows, where the catalog tells.
    path: under the home's data folder. sha256: when it was written, or first seen; None if never. newest: whether the
    newest snapshot names it. first, end: the snapshots it is in.
    """

    number: int
    data_file: int
    table: str
    batch: str | None
    path: str
    size: int
    num_rows: int
    deletes: bool
    first: int
    end: int | None
    sha256: str | None

    @property
    def newest(self) -> bool:
        return self.end is None

    @property
    def derived(self) -> bool:
        """Whether its rows follow from others'."""
        return self.table in TABLES and TABLES[self.table].derived

    @property
    def row(self) -> str:
        """Batch and file, for a message that names the table."""
        batch = f"of batch {self.batch}, " if self.batch is not None else ""
        return f"{batch}{'delete' if self.deletes else 'data'} file {Path(self.path).name}"


@dataclass(frozen=True)
class Damage:
    """A file that is not as it was written, and how."""

    file: DataFile
    what: str

    def __str__(self) -> str:
        return f"{self.file.table} {self.file.row}: {self.what}"


class DamagedFiles(UserError):
    """Data files that are gone or damaged; the message names table and batch of each, and the way back."""

    def __init__(self, damages: Sequence[Damage]) -> None:
        self.damages = tuple(damages)
        more = [f"and {len(damages) - NUM_NAMED:,} more"] if len(damages) > NUM_NAMED else []
        super().__init__("; ".join([*map(str, damages[:NUM_NAMED]), *more, DAMAGED_FILE]))


class UnreadableCatalog(UserError):
    """The catalog is damaged, or no catalog; the message says what to do."""


def data_files(catalog: Catalog) -> list[DataFile]:
    """Every file that a snapshot names, in order of table and age."""
    with attach(catalog, read_only=True) as connection:
        return _listed(connection)


def _listed(connection: duckdb.DuckDBPyConnection) -> list[DataFile]:
    try:
        rows = connection.execute(_FILES.format(hashes=_KNOWN)).fetchall()
    except duckdb.CatalogException:  # no commit of this release yet
        rows = connection.execute(_FILES.format(hashes=_UNKNOWN)).fetchall()
    return [DataFile(*row) for row in rows]


def lost_files(catalog: Catalog) -> list[Damage]:
    """The files of the newest snapshot that are gone or of another size; cheap, as nothing is read of them."""
    with attach(catalog, read_only=True) as connection:
        sizes = dict(connection.execute(_SIZES).fetchall())
    if catalog.data.sizes(list(sizes)) == sizes:
        return []
    files = [file for file in data_files(catalog) if file.newest]
    present = catalog.data.sizes([file.path for file in files])
    found = ((file, other_size(file, present.get(file.path))) for file in files)
    return [Damage(file, what) for file, what in found if what]


def require_files(catalog: Catalog) -> None:
    """Raise DamagedFiles if a file of the newest snapshot is gone or of another size."""
    if damages := lost_files(catalog):
        raise DamagedFiles(damages)


@contextmanager
def naming_damage(catalog: Catalog) -> Iterator[None]:
    """Turn an error of the block's queries into DamagedFiles, if damaged files are there to explain it."""
    try:
        yield
    except (duckdb.Error, OSError) as error:
        # Where rows are streamed, Arrow turns DuckDB's error into an OSError without a number.
        of_a_file = type(error) in OF_UNREADABLE_FILES or (isinstance(error, OSError) and error.errno is None)
        if of_a_file and (damages := _explanation(catalog)):
            raise DamagedFiles(damages) from error
        raise


def _explanation(catalog: Catalog) -> list[Damage]:
    """The damaged files that an error may be of. Raises UnreadableCatalog if the catalog does not even list them."""
    try:
        return lost_files(catalog) or _changed_files(catalog)
    except duckdb.Error as error:
        why = str(error).splitlines()[0]
        raise UnreadableCatalog(f"{catalog} cannot be read ({why}); {catalog.advice}") from error


def _changed_files(catalog: Catalog) -> list[Damage]:
    """The files of the newest snapshot with another content than was written, as far as a few seconds tell."""
    files = [file for file in data_files(catalog) if file.newest]
    if sum(file.size for file in files) > MAX_BYTES_READ:
        return []
    return list(damaged(catalog, files))


def damaged(catalog: Catalog, files: Iterable[DataFile]) -> Iterator[Damage]:
    """Those of the files that are not what was written; all of them are read."""
    return (Damage(file, what) for file in files if (what := changed(catalog, file)))


def require_content(catalog: Catalog, files: Sequence[DataFile]) -> None:
    """Raise DamagedFiles if one of these files is not what was written; all of them are read."""
    if damages := list(damaged(catalog, files)):
        raise DamagedFiles(damages)


def missing_or_cut(catalog: Catalog, file: DataFile) -> str | None:
    """How a file differs from what the catalog says of it, without reading it; None if it does not."""
    return other_size(file, catalog.data.sizes([file.path]).get(file.path))


def other_size(file: DataFile, size: int | None) -> str | None:
    """The same of a file that has this size, or none where it is gone."""
    if size is None:
        return "it is gone"
    return f"it has {size:,} bytes, not {file.size:,}" if size != file.size else None


def changed(catalog: Catalog, file: DataFile) -> str | None:
    """How a file differs from what was written: by its hash, or, where none is known, by what can be read of it."""
    if what := missing_or_cut(catalog, file):
        return what
    try:
        if file.sha256 is None:
            return _unreadable(catalog.data, file.path)
        return None if content_of(catalog.data, file.path) == file.sha256 else OTHER_CONTENT
    except OSError as error:
        return f"it cannot be read ({error.strerror or error})"


def _unreadable(place: DataPlace, path: str) -> str | None:
    """Why not every page of a file can be decoded; None if it can."""
    try:
        _decode(place, path)
    except (duckdb.Error, RuntimeError):  # of the file, or of a connection that a file before it has spoiled
        _decoder.cache_clear()
        try:
            _decode(place, path)
        except (duckdb.Error, RuntimeError) as error:
            return f"it cannot be read ({str(error).splitlines()[0]})"
    return None


def _decode(place: DataPlace, path: str) -> None:
    query = "SELECT bit_xor(hash(t)) FROM read_parquet($path) t"
    _decoder(place).execute(query, {"path": place.location(path)}).fetchall()


@lru_cache(maxsize=1)
def _decoder(place: DataPlace) -> duckdb.DuckDBPyConnection:
    """A connection apart from the lake's; opening one for each file would take 20 ms."""
    connection = duckdb.connect(config=CONFIG)
    for extension in place.extensions:
        load(connection, extension)
    place.prepare(connection)
    return connection


def last_commit(connection: duckdb.DuckDBPyConnection) -> int | None:
    """The snapshot of the last commit on this connection that changed anything; None if none did."""
    [(found,)] = connection.execute("FROM dasd.last_committed_snapshot()").fetchall()
    return None if found is None else int(found)


def hash_committed(connection: duckdb.DuckDBPyConnection, catalog: Catalog, before: int | None) -> dict[int, str]:
    """Keep the hashes of the files of the commit that was just made on this connection, under the lake's lock.

    before: its `last_commit` until then, which is still the last one if nothing was changed.

    Returns number -> path of those that would take too long for that: `read_back` without the lock hashes them.
    """
    written = connection.execute(_COMMITTED, {"before": before}).fetchall()
    paths = {number: path for number, path, _ in written}
    if not catalog.data.read_at_once(sum(size for _, _, size in written)):
        return paths
    if paths:
        keep_hashes(connection, read_back(catalog.data, paths))
    return {}


def read_back(place: DataPlace, paths: Mapping[int, str]) -> dict[int, str]:
    """Number -> hash of files that were just written; not of those that were merged and deleted since."""
    found = {}
    for number, path in paths.items():
        with suppress(FileNotFoundError):
            found[number] = content_of(place, path)
    return found


def first_seen(catalog: Catalog) -> dict[int, str]:
    """Number -> hash of every file that has none yet and can be read; takes a while, and no lock."""
    found = {}
    for file in data_files(catalog):
        if file.sha256 is None and changed(catalog, file) is None:
            with suppress(OSError):  # deleted a moment ago
                found[file.number] = content_of(catalog.data, file.path)
    return found


def keep_hashes(connection: duckdb.DuckDBPyConnection, hashes: Mapping[int, str]) -> None:
    """Store hashes by the number of the file, in one transaction, under the lake's lock; a known one stays."""
    numbered = {"numbers": list(hashes), "hashes": list(hashes.values())}
    connection.execute("BEGIN")
    connection.execute(f"CREATE TABLE IF NOT EXISTS {CATALOG_TABLES}.{HASHES}(file_id BIGINT, sha256 VARCHAR)")
    connection.execute(_INSERT, numbered)
    connection.execute("COMMIT")


def forget_hashes(connection: duckdb.DuckDBPyConnection) -> None:
    """Delete the hashes of files that the catalog no longer names, under the lake's lock."""
    connection.execute(_FORGET)


def way_back(file: DataFile) -> str:
    """What to do about a damaged file, in a phrase."""
    return "`dasd repair` has its rows made again" if file.derived else FROM_BACKUP


def _tables(parts: str) -> str:
    """A query over DuckLake's tables, each named as `m.…`."""
    return parts.replace("m.", f"{CATALOG_TABLES}.")


_PLACED = _tables("""tables AS (SELECT table_id, arg_max(table_name, begin_snapshot) AS table_name,
            arg_max(path, begin_snapshot) AS path, any_value(schema_id) AS schema_id
        FROM m.ducklake_table GROUP BY table_id),
    files AS (SELECT data_file_id AS number, data_file_id, table_id, path, path_is_relative, file_size_bytes AS size,
            record_count AS num_rows, FALSE AS deletes, begin_snapshot AS first, end_snapshot AS "end"
        FROM m.ducklake_data_file
        UNION ALL SELECT d.delete_file_id, d.data_file_id, d.table_id, d.path, d.path_is_relative, d.file_size_bytes,
            d.delete_count, TRUE, d.begin_snapshot, coalesce(d.end_snapshot, f.end_snapshot)
        FROM m.ducklake_delete_file d JOIN m.ducklake_data_file f USING (data_file_id)),
    placed AS (SELECT t.table_name,
            f.* REPLACE (CASE WHEN f.path_is_relative THEN s.path || t.path || f.path ELSE f.path END AS path)
        FROM files f JOIN tables t USING (table_id) JOIN m.ducklake_schema s USING (schema_id))""")
_SIZES = f"""WITH {_PLACED} SELECT path, size FROM placed WHERE "end" IS NULL"""
# The batch of a file: its partition's, or the one value of the column in all its rows.
_FILES = f"""WITH {_PLACED},
    batches AS (SELECT data_file_id, partition_value AS batch FROM m.ducklake_file_partition_value
        WHERE partition_key_index = 0
        UNION SELECT s.data_file_id, s.min_value FROM m.ducklake_file_column_stats s
        JOIN m.ducklake_column c USING (table_id, column_id)
        WHERE c.column_name = 'batch' AND s.min_value = s.max_value),
    hashes AS ({{hashes}})
    SELECT p.number, p.data_file_id, p.table_name, any_value(b.batch), p.path, p.size, p.num_rows, p.deletes, p.first,
        p."end", any_value(h.sha256)
    FROM placed p LEFT JOIN batches b USING (data_file_id) LEFT JOIN hashes h ON h.file_id = p.number
    GROUP BY ALL ORDER BY p.table_name, p.number""".replace("m.ducklake", f"{CATALOG_TABLES}.ducklake")
_KNOWN = f"FROM {CATALOG_TABLES}.{HASHES}"
_UNKNOWN = "SELECT NULL::BIGINT AS file_id, NULL::VARCHAR AS sha256 WHERE FALSE"
# File numbers grow with every snapshot: those since the one before are this commit's, merged files included. A commit
# of nothing has made no snapshot, and has none.
_COMMITTED = f"""WITH {_PLACED},
    before AS (SELECT max(next_file_id) AS first_number FROM {CATALOG_TABLES}.ducklake_snapshot
        WHERE snapshot_id < (FROM dasd.last_committed_snapshot()))
    SELECT number, path, size FROM placed, before WHERE number >= first_number
        AND (FROM dasd.last_committed_snapshot()) IS DISTINCT FROM $before"""
_INSERT = f"""INSERT INTO {CATALOG_TABLES}.{HASHES} FROM (SELECT unnest($numbers::BIGINT[]) AS file_id,
        unnest($hashes::VARCHAR[]) AS sha256) ANTI JOIN {CATALOG_TABLES}.{HASHES} USING (file_id)"""
_FORGET = f"""DELETE FROM {CATALOG_TABLES}.{HASHES} WHERE file_id NOT IN (
    SELECT data_file_id FROM {CATALOG_TABLES}.ducklake_data_file
    UNION ALL SELECT delete_file_id FROM {CATALOG_TABLES}.ducklake_delete_file)"""
