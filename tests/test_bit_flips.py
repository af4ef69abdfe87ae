"""Single flipped bits in data files: `dasd audit verify` names every one, those that no reader would notice too."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import duckdb
import polars as pl
import pytest
import reliability
from conftest import Project
from shared_stores import content, overwrite

from dasd_assets.audit.files import file_faults
from dasd_assets.audit.verify import verify
from dasd_resources.storage.backup import BackupError, back_up
from dasd_resources.storage.connections import attach
from dasd_resources.storage.data_files import DamagedFiles, DataFile, UnreadableCatalog, data_files
from dasd_resources.storage.upkeep import flush_small_commits, merge_small_files
from dasd_resources.storage.warehouse import Warehouse

SEED = 14
NUM_FLIPS, NUM_DRILLED, NUM_VERIFIED = 10, 1000, 10


def with_delete_files(project: Project) -> Warehouse:
    """The home with every table in files, and rows of one deleted: too many for that to be kept in the catalog."""
    kept = "(SELECT response_id, sentence_index FROM sentence_types ORDER BY ALL LIMIT 5)"
    flush_small_commits(project.warehouse, "flush")
    with project.warehouse.commit("a delete") as transaction:
        transaction.read(f"DELETE FROM sentence_types WHERE (response_id, sentence_index) NOT IN {kept}")
    assert any(file.deletes for file in data_files(project.warehouse.catalog))
    return project.warehouse


@contextmanager
def flipped(warehouse: Warehouse, file: DataFile, bit: int) -> Iterator[str]:
    """The file with one bit of it changed, during the block; its name."""
    whole = content(warehouse, file.path)
    overwrite(warehouse, file.path, with_flip(whole, bit))
    yield Path(file.path).name
    overwrite(warehouse, file.path, whole)


def with_flip(whole: bytes, bit: int) -> bytes:
    changed = bytearray(whole)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def flips(warehouse: Warehouse, number: int) -> Iterator[tuple[DataFile, int]]:
    """Files and bits, every file as likely as any other, whatever its size: so no table is left out."""
    rng, files = Random(SEED), data_files(warehouse.catalog)
    for _ in range(number):
        file = rng.choice(files)
        yield file, rng.randrange(8 * file.size)


def named(warehouse: Warehouse) -> list[str]:
    return [file.path for file, _ in file_faults(warehouse)]


def unnoticed(warehouse: Warehouse, table: str, folder: Path) -> tuple[DataFile, int]:
    """A flip after which the table can be read as if nothing had been, with other values in it."""
    rng, copied = Random(SEED), folder / "copied.parquet"
    [file, *_] = [file for file in data_files(warehouse.catalog) if file.table == table]
    whole = content(warehouse, file.path)
    copied.write_bytes(whole)
    before = rows_of(copied)
    while True:
        bit = rng.randrange(8 * file.size)
        copied.write_bytes(with_flip(whole, bit))
        with suppress(duckdb.Error):
            if rows_of(copied) != before:
                return file, bit


def rows_of(path: Path) -> list[tuple[int]]:
    with duckdb.connect() as connection:
        return connection.execute("SELECT sum(hash(t)) FROM read_parquet($path) t", {"path": str(path)}).fetchall()


@pytest.mark.storage
def test_single_flips_are_named(copy: Project, tmp_path: Path) -> None:
    warehouse = with_delete_files(copy)
    assert named(warehouse) == []
    for file, bit in flips(warehouse, NUM_FLIPS):
        with flipped(warehouse, file, bit):
            assert named(warehouse) == [file.path]
    file, bit = unnoticed(warehouse, "student_rollouts", tmp_path)
    with flipped(warehouse, file, bit) as name:
        [fault] = [fault for fault in verify(warehouse, sample=1) if fault.table == "student_rollouts"]
        assert name in fault.row
        assert "its content is not what was written (SHA-256); restore it from a backup" in str(fault)
        with pytest.raises(BackupError, match=f"nothing was backed up: student_rollouts data file {name}"):
            back_up(copy.home, copy.home / "dagster", tmp_path / "backups", keep=1)


@pytest.mark.storage
def test_maintenance_does_not_pass_damage_on(warehouse: Warehouse) -> None:
    """Merged with others, a damaged file's rows would be in a file with a hash of its own."""
    for number in range(2):
        cuts = pl.DataFrame({"rollout_id": [f"{number}-{i}" for i in range(50)]})
        with warehouse.commit("cuts") as transaction:
            transaction.append_missing("prefix_cuts", cuts.with_columns(seed=pl.lit(1), cut_version=pl.lit("1")))
    file = data_files(warehouse.catalog)[0]
    with flipped(warehouse, file, 800), pytest.raises(DamagedFiles, match=Path(file.path).name):
        merge_small_files(warehouse, "upkeep")
    assert len(data_files(warehouse.catalog)) == 2
    assert merge_small_files(warehouse, "upkeep") == {"prefix_cuts": 2}
    assert [file.sha256 is None for file in data_files(warehouse.catalog)] == [False]


@pytest.mark.storage
def test_files_of_another_writer_are_first_seen(warehouse: Warehouse) -> None:
    """As those of an earlier release are, whose homes have no hashes at all."""
    rows = "SELECT 'r' || i AS rollout_id, 1 AS seed, '1' AS cut_version FROM range(50) t(i)"
    warehouse.migrate()
    with attach(warehouse.catalog) as connection:
        connection.execute(f"INSERT INTO prefix_cuts BY NAME {rows}")
    assert [file.sha256 for file in data_files(warehouse.catalog)] == [None]
    said: list[str] = []
    list(verify(warehouse, say=said.append))
    assert "1 files first seen: that they were whole before is not known" in said
    with flipped(warehouse, data_files(warehouse.catalog)[0], 800):
        assert len(named(warehouse)) == 1


def test_a_damaged_catalog_is_named(tmp_path: Path) -> None:
    warehouse = Warehouse(home=str(tmp_path))
    (tmp_path / "catalog.sqlite").write_bytes(b"no database " * 1000)
    with pytest.raises(
        UnreadableCatalog, match=r"catalog.sqlite cannot be read \(.*`dasd restore` brings a backup back"
    ):
        warehouse.read("SELECT 1")


@pytest.mark.drill
def test_a_thousand_flips(copy: Project) -> None:
    warehouse = with_delete_files(copy)
    tables, silent = set[str](), list[str]()
    for file, bit in flips(warehouse, NUM_DRILLED):
        tables.add(f"{file.table}{' (deletes)' * file.deletes}")
        with flipped(warehouse, file, bit):
            if named(warehouse) != [file.path]:
                silent.append(f"{file.path} bit {bit}")
    for file, bit in flips(warehouse, NUM_VERIFIED):  # the whole audit, which must never stop at what is damaged
        with flipped(warehouse, file, bit):
            assert any(Path(file.path).name in fault.row for fault in verify(warehouse, sample=1))
    reliability.record(
        "bit flips",
        faults="single bits flipped in data and delete files, then `dasd audit verify`",
        seed=SEED,
        tried=NUM_DRILLED,
        survived=0,
        detected=NUM_DRILLED - len(silent),
        silent=len(silent),
        command="python -m pytest -m drill tests/test_bit_flips.py",
        note=f"{len(tables)} kinds of files: {', '.join(sorted(tables))}",
    )
    assert silent == []
