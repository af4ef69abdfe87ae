"""Every kept snapshot reads the same after merging, expiring and deleting; what is in use or young is left alone."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from uuid import uuid4

import numpy as np
import polars as pl
import pytest
from pyarrow.fs import FileSelector, FileType
from shared_stores import data_of

from dasd_resources.storage.connections import UnknownSnapshot, all_cores, attach
from dasd_resources.storage.upkeep import (
    ROWS_OF_LISTS,
    Swept,
    delete_unreferenced,
    expire_snapshots,
    flush_small_commits,
    merge_small_files,
)
from dasd_resources.storage.warehouse import Warehouse

pytestmark = pytest.mark.storage
TABLES = ("student_logprobs", "failed_requests")  # one partitioned by batch, one not
CONTENT = "SELECT count(*), sum(hash(t)) FROM {table} t"


def scored(name: str, batch: str, num_rows: int) -> pl.DataFrame:
    rows = {"response_id": [f"{name}-{i}" for i in range(num_rows)], "batch": batch, "student_fingerprint": "s"}
    rows = pl.DataFrame({**rows, "engine": "e", "dtype": "f"})
    return rows.with_columns(logprobs=pl.lit(pl.Series([[-0.5, -1.0]])).first())


def failed(name: str, batch: str, num_rows: int) -> pl.DataFrame:
    rows = pl.DataFrame({"request_id": [f"{name}-{i}" for i in range(num_rows)], "asset": "a", "batch": batch})
    return rows.with_columns(reason=pl.lit("r"), failed_at=pl.lit(datetime(2026, 1, 1, tzinfo=UTC)))


def change_at_random(warehouse: Warehouse, number: int, rng: Random) -> None:
    """One commit that appends to, replaces or thins out a batch; small ones stay in the catalog."""
    batch, num_rows = f"b{rng.randrange(3)}", rng.choice([2, 40])
    with warehouse.commit("change") as transaction:
        if rng.random() < 0.6:
            transaction.append_missing("student_logprobs", scored(f"r{number}", batch, num_rows))
            transaction.append_missing("failed_requests", failed(f"r{number}", batch, num_rows))
        elif rng.random() < 0.6:
            transaction.replace("student_logprobs", {"batch": batch}, scored(f"r{number}", batch, num_rows))
        else:
            ids = [f"r{n}-{i}" for n in range(number) for i in range(0, num_rows, 3)]
            transaction.delete_keys("student_logprobs", {"batch": batch}, "response_id", ids)
            transaction.delete_keys("failed_requests", {"batch": batch}, "request_id", ids)


def contents(warehouse: Warehouse, snapshot: int) -> list[tuple[object, ...]]:
    return [warehouse.read(CONTENT.format(table=table), at=snapshot).row(0) for table in TABLES]


def snapshots(warehouse: Warehouse) -> list[int]:
    return warehouse.read("SELECT snapshot_id FROM dasd.snapshots() ORDER BY 1")["snapshot_id"].to_list()


def data_files(warehouse: Warehouse) -> set[str]:
    found = data_of(warehouse).get_file_info(FileSelector("", recursive=True))
    return {info.path for info in found if info.type == FileType.File and info.extension == "parquet"}


def soon() -> datetime:
    """Later than everything done so far."""
    return datetime.now(UTC) + timedelta(seconds=1)


def past_grace() -> datetime:
    """Of files once named by a snapshot, whole days are deleted."""
    return datetime.now(UTC) + timedelta(days=2)


def register_checkpoint(warehouse: Warehouse, snapshot: int) -> None:
    row = {"checkpoint_id": f"c{snapshot}", "recipe": "r", "name": "s", "snapshot_id": snapshot}
    with warehouse.commit("checkpoint") as transaction:
        files = {"path": "p", "content_hash": "h", "materialized_at": datetime.now(UTC)}
        rows = pl.DataFrame([row | files])
        transaction.append_missing("checkpoints", rows)


def test_kept_snapshots_read_the_same_whatever_is_done(warehouse: Warehouse) -> None:
    rng = Random(0)
    for number in range(10):
        change_at_random(warehouse, number, rng)
    first = 3
    pinned, named = rng.sample(snapshots(warehouse)[first:-1], 2)
    register_checkpoint(warehouse, named)
    before = {snapshot: contents(warehouse, snapshot) for snapshot in snapshots(warehouse)[first:]}
    assert flush_small_commits(warehouse, "upkeep") > 0 == flush_small_commits(warehouse, "upkeep")
    merge_small_files(warehouse, "upkeep")
    assert {snapshot: contents(warehouse, snapshot) for snapshot in before} == before
    newest = snapshots(warehouse)[-1]
    num_old = len(snapshots(warehouse)) - 1
    assert expire_snapshots(warehouse, "upkeep", soon(), [pinned]) == (num_old - 2, 2)
    delete_unreferenced(warehouse, "upkeep", past_grace())
    kept = {pinned, named}
    assert {snapshot: contents(warehouse, snapshot) for snapshot in kept} == {s: before[s] for s in kept}
    assert contents(warehouse, newest) == before[max(before)]
    assert set(snapshots(warehouse)) >= {pinned, named, newest}
    change_at_random(warehouse, 99, Random(0))  # goes on as ever


def test_nothing_of_the_files_that_were_merged_stays_in_memory(tmp_path: Path) -> None:
    """There are hundreds of files for each hundredth of the report's responses, and all were kept until the end."""
    warehouse = Warehouse(home=str(tmp_path / "home"))
    for number in range(4):
        with warehouse.commit("change") as transaction:
            transaction.append_missing("student_logprobs", scored(f"r{number}", "b", 40))
    assert merge_small_files(warehouse, "upkeep") == {"student_logprobs": 4}
    for read_only in (True, False):
        with attach(warehouse.catalog, read_only=read_only) as connection:
            assert connection.sql("FROM duckdb_external_file_cache()").fetchall() == []


def test_young_snapshots_and_files_are_left_alone(warehouse: Warehouse) -> None:
    for number in range(3):
        with warehouse.commit("change") as transaction:
            transaction.replace("student_logprobs", {"batch": "b"}, scored(f"r{number}", "b", 40))
    before = snapshots(warehouse), data_files(warehouse)
    yesterday = datetime.now(UTC) - timedelta(days=1)
    assert expire_snapshots(warehouse, "upkeep", yesterday, []) == (0, 0)
    assert delete_unreferenced(warehouse, "upkeep", yesterday) == Swept()
    assert (snapshots(warehouse), data_files(warehouse)) == before


def test_expired_files_outlive_the_snapshot_by_the_grace_period(warehouse: Warehouse) -> None:
    for number in range(3):
        with warehouse.commit("change") as transaction:
            transaction.replace("student_logprobs", {"batch": "b"}, scored(f"r{number}", "b", 40))
    files = data_files(warehouse)
    assert expire_snapshots(warehouse, "upkeep", soon(), [])[0] > 0
    assert delete_unreferenced(warehouse, "upkeep", datetime.now(UTC)) == Swept()
    assert data_files(warehouse) == files
    swept = delete_unreferenced(warehouse, "upkeep", past_grace())
    assert swept.num_files == 2
    assert swept.num_bytes > 500
    assert len(data_files(warehouse)) == 1


def test_a_reader_of_an_old_snapshot_finishes_or_is_told(warehouse: Warehouse) -> None:
    for number in range(3):
        with warehouse.commit("change") as transaction:
            transaction.replace("student_logprobs", {"batch": "b"}, scored(f"r{number}", "b", 40))
    old = snapshots(warehouse)[-2]
    rows = "SELECT count(*) FROM student_logprobs WHERE response_id LIKE 'r1-%'"
    with attach(warehouse.catalog, at=old, read_only=True) as connection:
        result = connection.execute(rows)  # its files are known, and stay for the grace period
        assert delete_unreferenced(warehouse, "upkeep", datetime.now(UTC)) == Swept()
        assert result.fetchall() == [(40,)]
    with (
        pytest.raises(UnknownSnapshot, match="expired"),
        attach(warehouse.catalog, at=old, read_only=True) as connection,
        all_cores(connection),
    ):
        connection.execute("BEGIN")
        assert connection.sql(rows).fetchall() == [(40,)]
        assert expire_snapshots(warehouse, "upkeep", soon(), [])[0] > 0
        assert connection.sql(rows).fetchall() in ([(0,)], [(40,)])  # DuckLake would go on silently: 0 by two threads
        connection.execute("ROLLBACK")
    with pytest.raises(UnknownSnapshot, match="expired"):
        warehouse.read(rows, at=old)


def test_merged_files_have_short_row_groups_where_rows_are_long(warehouse: Warehouse) -> None:
    for number in range(3):
        with warehouse.commit("change") as transaction:
            transaction.append_missing("student_logprobs", scored(f"r{number}", "b", 3000), "b")
    before = snapshots(warehouse)
    assert merge_small_files(warehouse, "upkeep")["student_logprobs"] == 3
    assert len(snapshots(warehouse)) == len(before) + 1  # of the merge alone
    [file] = warehouse.read("SELECT data_file FROM ducklake_list_files('dasd', 'student_logprobs')")["data_file"]
    groups = warehouse.read(
        "SELECT DISTINCT row_group_id, row_group_num_rows FROM parquet_metadata($file)", {"file": file}
    )
    assert groups["row_group_num_rows"].sum() == 9000
    assert groups["row_group_num_rows"].max() < 2 * ROWS_OF_LISTS


def test_row_groups_are_shorter_where_rows_are_longer(warehouse: Warehouse) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        logprobs = pl.Series([-rng.random(60_000, np.float32) for _ in range(40)], dtype=pl.List(pl.Float32))
        with warehouse.commit("change") as transaction:
            rows = scored(f"r{number}", "b", 40).with_columns(logprobs=logprobs)
            transaction.append_missing("student_logprobs", rows, "b")
    merge_small_files(warehouse, "upkeep")
    [file] = warehouse.read("SELECT data_file FROM ducklake_list_files('dasd', 'student_logprobs')")["data_file"]
    query = "SELECT DISTINCT row_group_id, row_group_num_rows FROM parquet_metadata($file)"
    groups = warehouse.read(query, {"file": file})["row_group_num_rows"]
    assert groups.sum() == 160
    assert groups.max() <= 120  # of 240 KB


def test_a_snapshot_is_as_old_as_its_successor(warehouse: Warehouse) -> None:
    """The newest may have been read until a moment ago, whenever it was made."""
    warehouse.migrate()
    time.sleep(0.5)
    before = datetime.now(UTC)
    with warehouse.commit("change") as transaction:
        transaction.append_missing("student_logprobs", scored("r", "b", 40))
    newest = snapshots(warehouse)[-1]
    expire_snapshots(warehouse, "upkeep", before, [])
    assert snapshots(warehouse) == [newest - 1, newest]


def test_only_old_orphans_are_deleted(tmp_path: Path) -> None:
    """An object's age cannot be feigned: test_shared_storage.py."""
    warehouse = Warehouse(home=str(tmp_path))
    with warehouse.commit("change") as transaction:
        transaction.append_missing("student_logprobs", scored("r", "b", 40))
    (used,) = (tmp_path / "data").rglob("*.parquet")
    young, *old = (used.with_name(f"ducklake-{uuid4()}{of}.parquet") for of in ("", "", "-delete"))
    theirs = used.with_name("theirs.parquet")
    for orphan in (young, *old, theirs):
        orphan.write_bytes(b"x" * 100)
    for path in (*old, used, theirs):
        os.utime(path, (time.time() - 7200,) * 2)
    swept = delete_unreferenced(warehouse, "upkeep", datetime.now(UTC) - timedelta(hours=1))
    assert swept == Swept(2, 200, num_foreign=1)
    assert set((tmp_path / "data").rglob("*.parquet")) == {used, young, theirs}


def test_a_moved_home_loses_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    with warehouse.commit("change") as transaction:
        transaction.append_missing("student_logprobs", scored("r", "b", 40))
    moved = Path(warehouse.home).rename(tmp_path.parent / f"{tmp_path.name}-moved")
    there = Warehouse(home=str(moved))
    assert delete_unreferenced(there, "upkeep", past_grace()) == Swept()
    assert there.read("SELECT count(*) FROM student_logprobs").item() == 40


def test_writers_go_on_beside_it(warehouse: Warehouse) -> None:
    """Another process appends while this one merges, expires and deletes, without any grace."""
    code = "import sys, test_upkeep; test_upkeep.append_for_a_while(sys.argv[1])"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    warehouse.migrate()
    writer = subprocess.Popen([sys.executable, "-c", code, warehouse.home], env={**os.environ, "PYTHONPATH": path})
    rounds = 0
    while writer.poll() is None:
        merge_small_files(warehouse, "upkeep")
        expire_snapshots(warehouse, "upkeep", soon(), [])
        delete_unreferenced(warehouse, "upkeep", past_grace())
        rounds += 1
    assert writer.returncode == 0
    assert rounds > 0
    assert warehouse.read("SELECT count(*), count(DISTINCT response_id) FROM student_logprobs").row(0) == (400, 400)


def append_for_a_while(home: str) -> None:
    for number in range(10):
        with Warehouse(home=home).commit("append") as transaction:
            transaction.append_missing("student_logprobs", scored(f"r{number}", f"b{number % 2}", 40))


def test_killed_anywhere_it_loses_nothing(warehouse: Warehouse) -> None:
    rng = Random(7)
    for number in range(10):
        change_at_random(warehouse, number, rng)
    named = snapshots(warehouse)[5]
    register_checkpoint(warehouse, named)
    before = contents(warehouse, named), contents(warehouse, snapshots(warehouse)[-1])
    code = "import sys, test_upkeep; test_upkeep.upkeep_for_ever(sys.argv[1])"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", code, warehouse.home]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.2)
        process.kill()
    upkeep_once(warehouse)
    assert (contents(warehouse, named), contents(warehouse, snapshots(warehouse)[-1])) == before
    with attach(warehouse.catalog, read_only=True) as connection:
        query = "SELECT count(*) FROM __ducklake_metadata_dasd.ducklake_files_scheduled_for_deletion"
        assert connection.sql(query).fetchall() == [(0,)]


def upkeep_once(warehouse: Warehouse) -> None:
    flush_small_commits(warehouse, "upkeep")
    merge_small_files(warehouse, "upkeep")
    expire_snapshots(warehouse, "upkeep", soon(), [])
    delete_unreferenced(warehouse, "upkeep", past_grace())


def upkeep_for_ever(home: str) -> None:
    warehouse = Warehouse(home=home)
    warehouse.read("SELECT 1")
    print("started", flush=True)
    while True:
        upkeep_once(warehouse)
