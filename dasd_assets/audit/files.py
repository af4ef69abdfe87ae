"""Whether every data file that the catalog names is there and can be read, column by column, to its last row."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from dasd_resources.storage.connections import attach
from dasd_resources.storage.lake import Lake, Reading

REMEDY = "restore it from a backup (`dasd restore`)"
AGAIN = "delete the row and materialize its asset again (`dasd run --select ASSET`), or restore a backup"


@dataclass(frozen=True)
class Fault:
    """A row, file or folder that does not agree with what made it, and what to do about it."""

    table: str
    row: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.table} {self.row}: {self.what}; {self.remedy}"


def tables(reading: Reading) -> list[str]:
    """The tables of the catalog, views left out."""
    query = "SELECT table_name FROM duckdb_tables() WHERE database_name = 'dasd' ORDER BY table_name"
    return reading.read(query)["table_name"].to_list()


def file_faults(lake: Lake, names: list[str]) -> Iterator[Fault]:
    """One fault for each file that is missing, of another size, or unreadable."""
    for name in names:
        with attach(lake.catalog, read_only=True) as connection:
            files = connection.execute(_FILES.format(table=name)).fetchall()
        for path, size in files:
            if fault := _fault(Path(path), size):
                yield Fault(name, Path(path).name, fault, f"{REMEDY}; its rows cannot be read until then")


def _fault(path: Path, size: int) -> str | None:
    if not path.is_file():
        return "the data file is gone"
    if path.stat().st_size != size:
        return f"the data file has {path.stat().st_size} bytes, not {size}"
    try:  # a hash of every row, so that every page is decoded; in a connection of its own, which an error may spoil
        with duckdb.connect() as connection:
            connection.execute("SELECT bit_xor(hash(t)) FROM read_parquet($path) t", {"path": str(path)}).fetchall()
    except duckdb.Error as error:
        return f"the data file is damaged ({str(error).splitlines()[0]})"
    return None


_FILES = """SELECT data_file, data_file_size_bytes FROM ducklake_list_files('dasd', '{table}')
    UNION ALL SELECT delete_file, delete_file_size_bytes FROM ducklake_list_files('dasd', '{table}')
    WHERE delete_file IS NOT NULL"""
