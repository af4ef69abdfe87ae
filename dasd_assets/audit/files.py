"""Whether every data file that the catalog names is there, and is what was written."""

from collections.abc import Iterator
from dataclasses import dataclass

from dasd_resources.storage.data_files import FROM_BACKUP, DataFile, damaged, way_back
from dasd_resources.storage.lake import Lake, Reading
from dasd_resources.storage.repair import files_not_dropped

AGAIN = "restore a backup of before (`dasd restore`)"  # a row that is there is not made again
REMEDIES = {  # of a wrong row, where there is one short of AGAIN
    "student_logprobs": f"if no sentence was made of it, `dasd rescore BATCH` and `dasd run`, else {AGAIN}"
}


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


def file_faults(lake: Lake) -> Iterator[tuple[DataFile, Fault]]:
    """Every file that is not as it was written, kept snapshots' included, with the fault that names it.

    Not those that `dasd repair` has dropped: the checkpoints that miss them are named themselves.
    """
    for damage in damaged(lake.catalog, files_not_dropped(lake)):
        yield damage.file, Fault(damage.file.table, damage.file.row, damage.what, _remedy(damage.file))


def _remedy(file: DataFile) -> str:
    if not file.newest:
        return f"only snapshots {file.first} to {file.end} have it: {FROM_BACKUP}"
    return f"{way_back(file)}; its rows cannot be read until then"
