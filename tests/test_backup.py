"""A backup is consistent while writers run, complete or absent when killed; a restored home is the same home."""

import errno
import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import dagster as dg
import psutil
import pytest
from conftest import Project, new_dagster_home, prompt_rows
from shared_stores import Storage, content, overwrite
from storage_processes import NUM_ROWS, append, save

from dasd_assets.cli import main
from dasd_assets.rules.checkpoints import current_checkpoints
from dasd_assets.service.instance import open_instance
from dasd_assets.service.recovery import owner
from dasd_resources.home import SERVICE_LOCK, prepare_home
from dasd_resources.sft.checkpoint import publish, published
from dasd_resources.storage.backup import MANIFEST, BackupError, Manifest, complete_backups, read_manifest
from dasd_resources.storage.data_files import data_files
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.place import PLACE
from dasd_resources.storage.restore import restore
from dasd_resources.storage.warehouse import Warehouse

PROCESSES = Path(__file__).with_name("storage_processes.py")
COPIER = "dasd_resources.storage.sqlite_copy"


def counts(home: Path) -> list[int]:
    query = "SELECT count(*), sum(seed) FROM prefix_cuts UNION ALL SELECT count(*), count(*) FROM failed_requests"
    return [int(value) for row in Warehouse(home=str(home)).read(query).rows() for value in row]


def prepared(home: Path) -> Path:
    (home / "dagster").mkdir(parents=True)
    (home / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    append(home, 0)
    return home


@pytest.fixture
def home(storage: Storage, tmp_path: Path) -> Path:
    return prepared(storage.begin(tmp_path / "home"))


@pytest.mark.storage
def test_a_restored_home_runs_on_with_nothing_to_do(copy: Project, tmp_path: Path) -> None:
    (copy.home / "benchmarks").mkdir()
    (copy.home / "benchmarks" / "sums.jsonl").touch()
    (copy.home / "experiments").mkdir()
    (copy.home / "experiments" / "mine.yaml").touch()
    (copy.home / "checkpoints" / "abc-epoch-1").mkdir()
    (copy.home / "checkpoints" / "abc-epoch-1" / "dasd.json").touch()
    folder, manifest = save(copy.home, tmp_path / "backups")
    assert manifest.missing == []
    expected = {"catalog.sqlite", "dagster/dagster.yaml", "prompts/a.jsonl", "benchmarks/sums.jsonl"}
    expected |= {"experiments/mine.yaml", "checkpoints/abc-epoch-1/dasd.json"}
    assert expected <= set(manifest.entries)
    there = Project(tmp_path / "elsewhere" / "home", copy.recipe)
    assert restore(folder, there.home) == (manifest, None)
    copy.home.rename(tmp_path / "gone")
    assert there.run() == 0
    for path in current_checkpoints(there.warehouse, there.recipe).drop_nulls("dataset")["path"]:
        assert there.warehouse.folder(path).parent == there.home / "checkpoints"
        assert there.warehouse.folder(path).is_dir()
    there.land("c.jsonl", prompt_rows(15, 18))
    assert there.make_batches() > 5


def test_a_backup_in_the_middle_of_a_run_restores_to_a_home_that_finishes_it(project: Project, tmp_path: Path) -> None:
    """Made while a step holds answers that are not committed, and Dagster's history says that it runs."""
    project.land("a.jsonl", prompt_rows(0, 6))
    project.materialize("teacher_model,held_out_questions,prompts,teacher_generations_t060")

    def save_at_the_fourth(request_id: str) -> bool:
        if len(project.fake.generated) == num_before + 4:
            save(project.home, tmp_path / "backups")
        return False

    num_before, project.fake.fails = len(project.fake.generated), save_at_the_fourth
    project.materialize("teacher_generations_t100")
    there = Project(tmp_path / "there", project.recipe)
    restore(tmp_path / "backups", there.home)
    assert there.count("responses") == project.count("responses") / 2 == 12
    there.materialize("teacher_generations_t100")
    query = "SELECT * EXCLUDE run_id FROM responses ORDER BY response_id"
    assert there.read(query).equals(project.read(query))
    assert len(there.fake.generated) == 12


@pytest.mark.storage
def test_a_later_backup_shares_what_has_not_changed(home: Path, tmp_path: Path) -> None:
    first, manifest = save(home, tmp_path / "backups")
    append(home, 1)
    second, later = save(home, tmp_path / "backups")
    data = [name for name in manifest.entries if name.startswith("data/")]
    assert data
    assert all(os.path.samefile(first / name, second / name) for name in data)
    assert len(later.entries) > len(manifest.entries)
    third, _ = save(home, tmp_path / "backups")
    assert complete_backups(tmp_path / "backups") == [second, third]


def test_where_no_file_can_be_linked_a_later_backup_has_copies(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, link: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    first, manifest = save(home, tmp_path / "backups")
    second, later = save(home, tmp_path / "backups")
    assert later.entries == manifest.entries
    data = [name for name in manifest.entries if name.startswith("data/")]
    assert data
    assert not any(os.path.samefile(first / name, second / name) for name in data)


def test_what_else_lies_beside_backups_is_no_backup(home: Path, tmp_path: Path) -> None:
    target = tmp_path / "backups"
    others = [target / name for name in ("1-release", "release", ".2024-private")]
    for folder in others:
        folder.mkdir(parents=True)
        (folder / MANIFEST).write_text('{"form": "messages", "configs": [], "files": {}}')
    (target / ".20240101T000000.000000Z").mkdir()  # of a killed one
    for _ in range(2):
        last, manifest = save(home, target, keep=1)
    assert restore(target, tmp_path / "new") == (manifest, None)
    assert {*target.iterdir()} == {last, target / ".lock", *others}


def test_the_backup_just_made_stays_and_is_the_newest_when_the_clock_was_set_back(home: Path, tmp_path: Path) -> None:
    for year in (2998, 2999):
        folder, _ = save(home, tmp_path / "backups")
        later = folder.rename(folder.with_name(f"{year}0101T000000.000000Z"))
    append(home, 1)
    last, manifest = save(home, tmp_path / "backups", keep=2)
    assert complete_backups(tmp_path / "backups") == [later, last]
    assert restore(tmp_path / "backups", tmp_path / "new") == (manifest, None)
    last, _ = save(home, tmp_path / "backups", keep=1)
    assert complete_backups(tmp_path / "backups") == [last]


@pytest.mark.parametrize("link", [True, False])
def test_a_checkpoint_trained_anew_is_saved_anew(home: Path, tmp_path: Path, link: bool) -> None:
    """Under the same id, with weights of the same size; also over what a killed backup left."""
    (home / "checkpoints").mkdir()
    trained(home, b"first weights")
    folder, _ = save(home, tmp_path / "backups", link=link)
    folder.rename(tmp_path / "backups" / ".partial")
    for weights in (b"other weights", b"third weights", b"third weights"):
        trained(home, weights)
        folder, _ = save(home, tmp_path / "backups", link=link)
        restore(folder, tmp_path / folder.name)
        found = published(tmp_path / folder.name / "checkpoints" / "abc", "abc")
        assert found is not None
        assert (found.path / "model.safetensors").read_bytes() == weights
    [before, last] = [path / "checkpoints/abc/model.safetensors" for path in complete_backups(tmp_path / "backups")]
    assert os.path.samefile(before, last)


def trained(home: Path, weights: bytes) -> None:
    shutil.rmtree(home / "checkpoints" / "abc", ignore_errors=True)
    (new := home / "training").mkdir()
    (new / "model.safetensors").write_bytes(weights)
    counts = dict.fromkeys(("seconds", "num_steps", "num_samples", "num_bins"), 1)
    publish(new, home / "checkpoints" / "abc", {"checkpoint_id": "abc", **counts}, [])


@pytest.mark.parametrize("link", [True, False])
def test_files_are_the_homes_own_only_if_asked(home: Path, tmp_path: Path, link: bool) -> None:
    folder, manifest = save(home, tmp_path / "backups", link=link)
    (name, *_) = [name for name in manifest.entries if name.endswith(".parquet")]
    assert os.path.samefile(home / name, folder / name) == link


@pytest.mark.storage
def test_writers_go_on_beside_it(home: Path, tmp_path: Path) -> None:
    """Every backup holds whole commits, at most as many as there were when it ended."""
    writer = child("append_for_a_while", home)
    number = 0
    while writer.poll() is None:
        folder, _ = save(home, tmp_path / "backups")
        restore(folder, tmp_path / f"restored{number}")
        cuts, seeds, failures, _ = counts(tmp_path / f"restored{number}")
        assert cuts == seeds == failures
        assert cuts % NUM_ROWS == 0
        number += 1
    assert writer.returncode == 0
    assert number > 1
    assert counts(home) == [NUM_ROWS * 21] * 4


def child(function: str, *folders: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, PROCESSES, function, *folders], stdout=subprocess.PIPE)


@pytest.mark.storage
def test_killed_anywhere_it_is_complete_or_absent(home: Path, tmp_path: Path) -> None:
    for number in range(1, 8):
        append(home, number)
    target = tmp_path / "backups"
    for number, delay in enumerate((0.0, 0.1, 0.3)):
        with child("back_up_for_ever", home, target) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
        for folder in complete_backups(target):
            assert set(read_manifest(folder).entries) == files(folder) - {MANIFEST}
        folder, _ = save(home, target)
        restore(folder, tmp_path / f"restored{number}")
        assert counts(tmp_path / f"restored{number}") == [NUM_ROWS * 8] * 4
        assert {path.name for path in target.glob(".*")} <= {".lock"}


def copier_of(process: "subprocess.Popen[bytes]") -> psutil.Process | None:
    for each in psutil.Process(process.pid).children():
        with suppress(psutil.NoSuchProcess):
            if COPIER in each.cmdline():
                return each
    return None


def test_killed_while_its_child_copies_the_catalog(home: Path, tmp_path: Path) -> None:
    """The child lives on: the next backup waits for it, and is not written into."""
    target = tmp_path / "backups"
    with child("back_up_for_ever", home, target) as process:
        while not (copier := copier_of(process)):
            assert process.poll() is None
        copier.suspend()
        process.send_signal(signal.SIGKILL)
    with ThreadPoolExecutor() as pool:
        backup = pool.submit(save, home, target)
        with pytest.raises(TimeoutError):
            backup.result(timeout=1)
        copier.resume()
        folder, manifest = backup.result(timeout=60)
    assert not copier.is_running() or copier.status() == psutil.STATUS_ZOMBIE
    assert set(manifest.entries) == files(folder) - {MANIFEST}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.storage
def test_a_killed_backups_files_are_used_again_and_its_others_deleted(home: Path, tmp_path: Path) -> None:
    folder, manifest = save(home, tmp_path / "backups")
    partial = folder.rename(tmp_path / "backups" / ".partial")
    (partial / "data" / "stray.parquet.tmp").write_bytes(b"half")
    name = next(name for name in manifest.entries if name.endswith(".parquet"))
    inode = (partial / name).stat().st_ino
    folder, again = save(home, tmp_path / "backups")
    assert again.entries == manifest.entries
    assert (folder / name).stat().st_ino == inode
    assert files(folder) == {*manifest.entries, MANIFEST}


@pytest.mark.storage
def test_a_damaged_backup_is_refused_and_leaves_the_home_alone(home: Path, tmp_path: Path) -> None:
    folder, manifest = save(home, tmp_path / "backups")
    name = next(name for name in manifest.entries if name.endswith(".parquet"))
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(BackupError, match="is damaged"):
        restore(folder, home, replace=True)
    (folder / name).unlink()
    with pytest.raises(BackupError, match="is missing"):
        restore(folder, home, replace=True)
    assert counts(home) == [NUM_ROWS] * 4


def test_a_backup_that_names_files_outside_is_refused(home: Path, tmp_path: Path) -> None:
    folder, manifest = save(home, tmp_path / "backups")
    outside = {"../../evil": manifest.entries["catalog.sqlite"], **manifest.entries}
    Manifest(str(home), manifest.created_at, manifest.snapshot_id, outside).write(folder)
    with pytest.raises(BackupError, match="outside"):
        restore(folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_the_log_of_a_run_that_is_deleted_meanwhile_is_left_out(home: Path, tmp_path: Path) -> None:
    (log := home / "dagster" / "run.db").symlink_to("deleted")  # listed, and not there when it is to be copied
    _, manifest = save(home, tmp_path / "backups")
    assert "dagster/run.db" not in manifest.entries
    log.unlink()
    log.write_text("no database")
    with pytest.raises(sqlite3.Error):
        save(home, tmp_path / "backups")


def test_a_home_that_is_there_is_moved_aside_only_if_asked(home: Path, tmp_path: Path) -> None:
    save(home, tmp_path / "backups")
    append(home, 1)
    with pytest.raises(BackupError, match="is not empty"):
        restore(tmp_path / "backups", home)
    _, kept = restore(tmp_path / "backups", home, replace=True)
    assert kept is not None
    assert counts(home) == [NUM_ROWS] * 4
    assert counts(kept) == [2 * NUM_ROWS] * 4


def test_a_home_with_its_data_in_an_object_store_is_not_replaced(home: Path, tmp_path: Path) -> None:
    """The one moved aside would name files that the restored one's maintenance takes for nobody's."""
    save(home, tmp_path / "backups")
    (home / PLACE).write_text('{"data": "s3://lake/prefix"}')
    with pytest.raises(BackupError, match="set DASD_HOME to a new folder and DASD_DATA to an empty prefix"):
        restore(tmp_path / "backups", home, replace=True)
    (home / PLACE).unlink()
    assert counts(home) == [NUM_ROWS] * 4


@pytest.mark.storage
def test_a_missing_or_damaged_data_file_stops_the_backup(home: Path, tmp_path: Path) -> None:
    lake = Lake(home=str(home))
    file = data_files(lake.catalog)[0].path
    overwrite(lake, file, content(lake, file)[:-1])
    with pytest.raises(BackupError, match=f"{Path(file).name}: it has [0-9,]+ bytes, not [0-9,]+; `dasd repair` says"):
        save(home, tmp_path / "backups")
    assert complete_backups(tmp_path / "backups") == []


def test_a_backup_of_nothing_or_into_the_home_is_refused(home: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="give a folder elsewhere"):
        save(home, home / "backups")
    with pytest.raises(BackupError, match="has no catalog"):
        save(tmp_path / "nowhere", tmp_path / "backups")
    with pytest.raises(BackupError, match="no complete backup"):
        restore(tmp_path, tmp_path / "new")


@pytest.mark.parametrize("in_database", [False, True])
def test_a_history_elsewhere_that_goes_on_after_the_backup_is_refused(
    home: Path,
    tmp_path: Path,
    in_database: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Else what was made since would count as made, though the restored tables lack it."""
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(new_dagster_home(), elsewhere)
    with open_instance(elsewhere) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("prompts"))
        save(home, tmp_path / "backups")
        monkeypatch.setenv("DASD_HOME", str(tmp_path / "new"))
        if in_database:  # as far as the settings tell: they name the place
            settings = prepare_home(tmp_path / "new", None) / "dagster.yaml"
            settings.write_text(f"{settings.read_text()}\nstorage: {{sqlite: {{base_dir: {elsewhere}}}}}\n")
        else:
            monkeypatch.setenv("DAGSTER_HOME", str(elsewhere))
        instance.report_runless_asset_event(dg.AssetMaterialization("responses"))
    assert main(["restore", str(tmp_path / "backups")]) == 1
    assert "it says that responses was made since" in capsys.readouterr().err
    save(home, tmp_path / "backups")
    assert main(["restore", str(tmp_path / "backups")]) == 0
    assert counts(tmp_path / "new") == [NUM_ROWS] * 4


@pytest.mark.storage
def test_the_commands(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    monkeypatch.setenv("DASD_HOME", str(home))
    assert main(["backup", str(tmp_path / "backups"), "--keep", "1"]) == 0
    assert f"snapshot {Warehouse(home=str(home)).snapshot_id()}" in capsys.readouterr().out
    assert main(["restore", str(tmp_path / "backups")]) == 1
    assert "is not empty" in capsys.readouterr().err
    replace = ["restore", str(tmp_path / "backups"), "--replace"]
    with (home / SERVICE_LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as a service holds it
        assert main(replace) == 1
    assert "has a service already" in capsys.readouterr().err
    with owner(home):
        assert main(replace) == 1
    assert "a run is at work" in capsys.readouterr().err
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / SERVICE_LOCK).touch()  # as an earlier `restore --replace` leaves it
    monkeypatch.setenv("DASD_HOME", str(tmp_path / "new"))
    assert main(["restore", str(tmp_path / "backups")]) == 0
    assert counts(tmp_path / "new") == [NUM_ROWS] * 4
