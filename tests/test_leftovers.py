"""Leftovers of the dead are deleted when old enough; those of the living, and what is published, never."""

import fcntl
import os
import socket
import subprocess
import time
import uuid
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from dasd_resources.sft.checkpoint import epoch_folder
from dasd_resources.storage.connections import attach
from dasd_resources.storage.leftovers import (
    pin_snapshot,
    pinned_snapshots,
    sweep_checkpoints,
    sweep_owner_locks,
    sweep_spilled,
    unfinished_beside,
)
from dasd_resources.storage.place import catalog_of
from dasd_resources.storage.upkeep import Swept

HOUR, DAY = 3600.0, 86400.0


def partial(home: Path, name: str, age: float) -> Path:
    folder = home / "checkpoints" / f"{name}.partial"
    (folder / "state").mkdir(parents=True)
    (folder / "state" / "weights.safetensors").write_bytes(b"x" * 10)
    (folder / "job.json").write_bytes(b"{}")
    grow_old(folder, age)
    return folder


def grow_old(path: Path, age: float) -> None:
    for part in [*path.rglob("*"), path]:
        os.utime(part, (time.time() - age,) * 2)


@pytest.mark.parametrize(
    ("age", "published", "deleted"), [(2 * HOUR, True, 2), (2 * HOUR, False, 0), (2 * DAY, False, 2)]
)
def test_half_made_checkpoints(tmp_path: Path, age: float, published: bool, deleted: int) -> None:
    folder = partial(tmp_path, "abc", age)
    if published:
        (tmp_path / "checkpoints" / "abc").mkdir()
    kept = epoch_folder(tmp_path / "checkpoints" / "abc", 1)
    kept.mkdir()
    grow_old(kept, 2 * DAY)
    assert sweep_checkpoints(tmp_path, HOUR, DAY) == Swept(deleted, 6 * deleted)
    assert folder.exists() == (deleted == 0)
    assert (tmp_path / "checkpoints" / "abc").exists() == published
    assert kept.exists()


def test_a_young_file_keeps_its_folder(tmp_path: Path) -> None:
    folder = partial(tmp_path, "abc", 2 * DAY)
    (folder / "progress.jsonl").write_text("")
    assert sweep_checkpoints(tmp_path, HOUR, DAY) == Swept()


def test_a_training_that_holds_its_lock_is_left_alone(tmp_path: Path) -> None:
    folder = partial(tmp_path, "abc", 2 * DAY)
    with (tmp_path / "checkpoints" / ".abc.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert sweep_checkpoints(tmp_path, HOUR, DAY) == Swept()
    assert folder.exists()
    assert sweep_checkpoints(tmp_path, HOUR, DAY).num_files == 2


def test_a_sweep_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    half = partial(tmp_path, "abc", 0).rename(tmp_path / "checkpoints" / "abc.deleting")
    assert sweep_checkpoints(tmp_path, HOUR, DAY).num_files == 2
    assert not half.exists()


def test_rows_and_pins_go_with_their_training(tmp_path: Path) -> None:
    begun, ended = (tmp_path / "checkpoints" / f"{name}.rows.parquet" for name in ("begun", "ended"))
    partial(tmp_path, "begun", 0)
    for rows, snapshot in ((begun, 7), (ended, 9)):
        rows.write_bytes(b"rows")
        pin = pin_snapshot(rows, snapshot)
        grow_old(rows, 2 * DAY)
        grow_old(pin, 2 * DAY)
    assert pinned_snapshots(tmp_path) == {7, 9}
    assert sweep_checkpoints(tmp_path, HOUR, DAY).num_files == 2
    assert pinned_snapshots(tmp_path) == {7}
    assert begun.exists()
    assert not ended.exists()


def test_what_a_writer_of_rows_left_is_no_other_writers_and_goes_with_them(tmp_path: Path) -> None:
    rows = tmp_path / "checkpoints" / "abc.rows.parquet"
    rows.parent.mkdir()
    left, others = unfinished_beside(rows), unfinished_beside(rows)
    assert left != others
    left.write_bytes(b"7")
    grow_old(left, 2 * DAY)
    assert pinned_snapshots(tmp_path) == set()
    assert sweep_checkpoints(tmp_path, HOUR, DAY) == Swept(1, 1)


def test_locks_of_the_dead_are_deleted(tmp_path: Path) -> None:
    owners = tmp_path / "dagster" / "owners"
    owners.mkdir(parents=True)
    for name in ("living", "dead", "young"):
        (owners / name).touch()
    with FileLock(owners / "living"):
        for name in ("living", "dead"):
            grow_old(owners / name, 2 * HOUR)
        assert sweep_owner_locks(tmp_path, HOUR).num_files == 1
    assert {path.name for path in owners.iterdir()} == {"living", "young"}


def test_spills_of_the_dead_are_deleted(tmp_path: Path) -> None:
    for name, age in (("old", 2 * HOUR), ("young", 0)):
        file = tmp_path / f".spill-{name}" / "duckdb_temp_storage-0.tmp"
        file.parent.mkdir()
        file.write_bytes(b"spilt")
        for path in (file, file.parent):
            grow_old(path, age)
    assert sweep_spilled(tmp_path, HOUR) == Swept(1, 5)
    assert [path.name for path in tmp_path.iterdir()] == [".spill-young"]


def spilled(home: Path, process: int, host: str = "") -> Path:
    folder = home / f".spill-{host or socket.gethostname()}-{process}-{uuid.uuid4().hex}"
    folder.mkdir()
    (folder / "duckdb_temp_storage-0.tmp").write_bytes(b"spilt")
    return folder


def test_spills_of_the_living_are_kept_however_old(tmp_path: Path) -> None:
    """A number that another process has by now is none of the living."""
    with subprocess.Popen(["sleep", "100"]) as dead:
        dead.kill()
    own, of_dead, elsewhere = spilled(tmp_path, os.getpid()), spilled(tmp_path, dead.pid), spilled(tmp_path, 1, "other")
    began = psutil.Process().create_time()
    for folder in (own, of_dead, elsewhere):
        grow_old(folder, time.time() - (began + 1))
    assert sweep_spilled(tmp_path, DAY) == Swept()
    assert sweep_spilled(tmp_path, 0) == Swept(2, 10)
    assert list(tmp_path.iterdir()) == [own]
    grow_old(own, time.time() - (began - DAY))
    assert sweep_spilled(tmp_path, HOUR) == Swept(1, 5)


def test_a_connection_spills_where_its_process_is_named(tmp_path: Path) -> None:
    with attach(catalog_of(tmp_path)) as connection:
        [(folder,)] = connection.sql("SELECT current_setting('temp_directory')").fetchall()
    assert Path(folder).parent == tmp_path
    assert Path(folder).name.startswith(f".spill-{socket.gethostname()}-{os.getpid()}-")


def test_an_empty_home_has_none(tmp_path: Path) -> None:
    assert sweep_checkpoints(tmp_path, 0, 0) + sweep_owner_locks(tmp_path, 0) == Swept()
    assert list(tmp_path.iterdir()) == []
