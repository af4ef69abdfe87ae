"""Lost data files are named wherever somebody looks, and made again exactly where that can be; the others stay."""

import json
import re
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from conftest import Project
from shared_stores import Storage, content, data_of, overwrite
from test_attempts import some_job

from dasd_assets.audit.files import file_faults
from dasd_assets.audit.outdated import explained
from dasd_assets.audit.verify import verify
from dasd_assets.cli import main
from dasd_assets.records.dagster_internals import MAX_RETRIES_TAG, AssetCheckExecutionRecordStatus
from dasd_assets.records.data_file_check import DATA_FILE_CHECK
from dasd_assets.records.partitions import PROMPT_BATCH, batches
from dasd_assets.service.automation import reporting_damage
from dasd_assets.service.recovery import owner
from dasd_resources.storage import connections
from dasd_resources.storage.catalogs import UPKEEP
from dasd_resources.storage.data_files import DamagedFiles, DataFile, data_files, require_files
from dasd_resources.storage.repair import HomeInUse, RepairPlan, drop_files, plan_repair, repaired_files, sources_of
from dasd_resources.storage.tables import TABLES
from dasd_resources.storage.upkeep import (
    delete_unreferenced,
    expire_snapshots,
    flush_small_commits,
    merge_small_files,
)
from dasd_resources.storage.warehouse import Warehouse

pytestmark = pytest.mark.storage
DERIVED = [table.name for table in TABLES.values() if table.derived]


def files(warehouse: Warehouse) -> dict[str, DataFile]:
    """A data file of each table that has one."""
    return {file.table: file for file in data_files(warehouse.catalog) if not file.deletes}


def remove(warehouse: Warehouse, *lost: DataFile) -> None:
    for file in lost:
        data_of(warehouse).delete_file(file.path)


def in_files(project: Project) -> Warehouse:
    """The project's tables, those of few rows, which are kept in the catalog, included."""
    flush_small_commits(project.warehouse, "flush")
    return project.warehouse


def rows(project: Project, table: str) -> pl.DataFrame:
    columns = ", ".join(c for c in TABLES[table].column_names if c != "run_id")
    return project.read(f"SELECT {columns} FROM {table} ORDER BY {', '.join(TABLES[table].key)}")


def existing(project: Project) -> list[str]:
    with project.instance() as instance:
        return batches(instance)


def last_event(project: Project) -> int:
    with project.instance() as instance:
        return instance.event_log_storage.get_maximum_record_id() or 0


def test_lost_files_of_derived_tables_are_made_again_exactly(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {table: rows(copy, table) for table in DERIVED}
    lost = [file for table, file in files(in_files(copy)).items() if table in DERIVED]
    with_rows = {table for table in DERIVED if len(before[table])}
    assert {file.table for file in lost} == with_rows > {"prompts", "student_tokens", "response_scores", "sft_examples"}
    remove(copy.warehouse, *lost)
    # 1. Everybody who looks is told table, batch and the way back; nobody says that nothing is out of date.
    of_batch = next(file for file in lost if file.table == "student_tokens")
    message = f"student_tokens of batch {of_batch.batch}, data file {Path(of_batch.path).name}: it is gone"
    with copy.instance() as instance, pytest.raises(DamagedFiles) as audited:
        explained(instance, copy.definitions, copy.recipe, copy.engines, copy.warehouse)
    with pytest.raises(DamagedFiles, match="`dasd repair` says what can be made again, `dasd restore` brings"):
        copy.run()
    monkeypatch.setattr(connections, "_idle", [])  # one that has read a file of an object store has it still
    with pytest.raises(DamagedFiles) as read:
        copy.read("SELECT sum(len(token_ids)) FROM student_tokens")
    assert message in {str(damage) for damage in read.value.damages} & {str(d) for d in audited.value.damages}
    with copy.instance() as instance:
        for _ in range(2):
            with pytest.raises(DamagedFiles), reporting_damage(instance):
                raise audited.value
        shown = instance.event_log_storage.get_latest_asset_check_execution_by_key([DATA_FILE_CHECK])[DATA_FILE_CHECK]
        assert "data files are gone or cut; `dasd repair` says" in str(
            shown.evaluation and shown.evaluation.description
        )
        with reporting_damage(instance):
            pass
        shown = instance.event_log_storage.get_latest_asset_check_execution_by_key([DATA_FILE_CHECK])[DATA_FILE_CHECK]
        assert shown.status == AssetCheckExecutionRecordStatus.SUCCEEDED
    # 2. They are dropped, and only then made again: the same rows, and nothing is asked of a model.
    plan = plan_repair(copy.warehouse, existing(copy), unlanded=())
    assert {damage.file.path for damage in plan.drop} == {file.path for file in lost}
    assert plan.keep == []
    assert all("the rows it was trained on cannot be read as of its snapshot" in note for note in plan.notes)
    snapshot = drop_files(copy.warehouse, plan, partial(last_event, copy))
    assert copy.warehouse.snapshot_id() == snapshot
    assert copy.run() > 0
    assert copy.fake.generated == []
    assert copy.fake.trained == []
    for table in DERIVED:
        assert rows(copy, table).equals(before[table]), table
    assert copy.run() == 0
    # 3. What stays lost are the rows of checkpoints as of their snapshots.
    assert {fault.table for fault in verify(copy.warehouse)} == {"checkpoints"}


def test_what_only_a_model_can_make_is_kept_and_named(copy: Project) -> None:
    there = files(in_files(copy))
    batch = there["responses"].batch
    remove(copy.warehouse, there["responses"], *[f for f in data_files(copy.warehouse.catalog) if f.table == "prompts"])
    [tokens] = [f for f in data_files(copy.warehouse.catalog) if f.table == "student_tokens" and f.batch == batch][-1:]
    remove(copy.warehouse, tokens)
    plan = plan_repair(copy.warehouse, existing(copy), unlanded=())
    kept = {damage.file.table: reason for damage, reason in plan.keep}
    assert kept["responses"] == "nothing else holds its rows; `dasd restore` brings it back from a backup"
    assert kept["student_tokens"].startswith("its rows are made from responses, which is damaged too")
    assert {damage.file.table for damage in plan.drop} == {"prompts"}
    unlanded = plan_repair(copy.warehouse, existing(copy), unlanded=["a-1"])
    assert {damage.file.table for damage in unlanded.drop} <= {"prompts"}
    assert "its rows come from a landed file that is gone" in " ".join(reason for _, reason in unlanded.keep)


def test_rows_of_a_removed_batch_are_made_by_nothing(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    there = files(in_files(copy))
    of_batch, of_none = there["student_tokens"], there["held_out_questions"]
    assert (of_batch.batch in existing(copy), of_none.batch) == (True, None)
    remove(copy.warehouse, of_batch, of_none)
    with copy.instance() as instance:
        instance.delete_dynamic_partition(str(PROMPT_BATCH.name), str(of_batch.batch))
    assert main(["repair"]) == 1
    assert "its batch was removed, so nothing makes its rows again; `dasd restore`" in capsys.readouterr().out
    plan = plan_repair(copy.warehouse, existing(copy), unlanded=())
    assert [damage.file for damage, _ in plan.keep] == [of_batch]
    assert [damage.file for damage in plan.drop] == [of_none]


def test_the_page_says_of_every_table_what_brings_its_rows_back() -> None:
    page = (Path(__file__).parents[1] / "docs" / "operations.md").read_text()
    listed = {
        row: re.findall(r"`(\w+)`", re.search(rf"^\| {row}(.*?)(\. |\|)", page, re.MULTILINE)[1])
        for row in ("a file of a table", "what a model wrote", "what records events")
    }
    again, made, events = listed.values()
    assert sorted(again) == sorted(DERIVED)
    assert sorted([*made, *events]) == sorted(TABLES.keys() - set(DERIVED))


def test_the_command(copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    assert main(["repair"]) == 0
    assert capsys.readouterr().out == "Nothing is damaged.\n"
    there = files(copy.warehouse)
    remove(copy.warehouse, there["sentence_types"])
    named = f"{there['sentence_types'].row}: it is gone"
    for command in (
        ["sql", "FROM sentence_types"],
        ["audit", "staleness"],
        ["backup", str(copy.home) + "-b"],
    ):
        assert main(command) == 1
        assert named in capsys.readouterr().err
    assert main(["repair"]) == 1
    assert f"sentence_types {named}" in (said := capsys.readouterr().out)
    assert "Nothing was changed" in said

    def plan_while_a_run_begins(*args: Any) -> RepairPlan:
        with copy.instance() as instance:
            instance.create_run_for_job(
                some_job, tags={**tags, MAX_RETRIES_TAG: "0"}, status=dg.DagsterRunStatus.STARTED
            )
        return plan_repair(*args)

    with owner(copy.home) as tags, monkeypatch.context() as patch:
        patch.setattr("dasd_assets.commands.repair.plan_repair", plan_while_a_run_begins)
        assert main(["repair", "--apply"]) == 1
    assert "a run is at work" in capsys.readouterr().err
    assert copy.warehouse.read("SELECT count(*) FROM repaired_files").item() == 0
    assert main(["repair", "--apply"]) == 0
    assert "Dropped 1 file" in capsys.readouterr().out
    assert main(["backup", str(copy.home) + "-b"]) == 0
    assert main(["audit", "staleness"]) == 0
    assert "rows of sentence_types were lost" in capsys.readouterr().out


@pytest.fixture
def warehouse(storage: Storage, tmp_path: Path) -> Warehouse:
    """Three commits of 100 rows each."""
    warehouse = Warehouse(home=str(storage.begin(tmp_path / "home")))
    for number in range(3):
        cuts = pl.DataFrame({"rollout_id": [f"{number}-{i}" for i in range(100)]})
        with warehouse.commit("cuts") as transaction:
            transaction.append_missing("prefix_cuts", cuts.with_columns(seed=pl.lit(1), cut_version=pl.lit("1")))
    return warehouse


def count(warehouse: Warehouse) -> int:
    return int(warehouse.read("SELECT count(*) FROM prefix_cuts WHERE seed = 1").item())


def test_a_drop_is_a_commit_like_any_other(warehouse: Warehouse) -> None:
    with warehouse.commit("some") as transaction:
        transaction.delete_keys("prefix_cuts", {"seed": 1}, "rollout_id", [f"1-{i}" for i in range(50)])
    lost = data_files(warehouse.catalog)[1]
    remove(warehouse, lost)
    snapshot = drop_files(warehouse, plan_repair(warehouse, (), ()), lambda: 7)
    assert count(warehouse) == 200
    with warehouse.reading() as reading:
        assert [file.last_event for file in repaired_files(reading)] == [7]
    query = "SELECT author, commit_message FROM dasd.snapshots() WHERE snapshot_id = $snapshot"
    assert warehouse.read(query, {"snapshot": snapshot}).row(0) == ("dasd", json.dumps({"repair": [lost.path]}))
    assert plan_repair(warehouse, (), ()).drop == []
    with warehouse.commit("again") as transaction:
        cuts = pl.DataFrame({"rollout_id": [f"{n}-{i}" for n in range(4) for i in range(100)]})
        added = transaction.append_missing("prefix_cuts", cuts.with_columns(seed=pl.lit(1), cut_version=pl.lit("1")))
    assert added == 200
    assert count(warehouse) == 400
    later = datetime.now(UTC) + timedelta(days=2)
    merge_small_files(warehouse, "upkeep")
    expire_snapshots(warehouse, "upkeep", later, [])
    delete_unreferenced(warehouse, "upkeep", later)
    assert count(warehouse) == 400
    assert list(file_faults(warehouse)) == []


def test_a_damaged_delete_file_takes_its_data_file_along(warehouse: Warehouse) -> None:
    with warehouse.commit("some") as transaction:
        transaction.delete_keys("prefix_cuts", {"seed": 1}, "rollout_id", [f"1-{i}" for i in range(50)])
    [deletes] = [file for file in data_files(warehouse.catalog) if file.deletes]
    written = content(warehouse, deletes.path)
    overwrite(warehouse, deletes.path, bytes([written[0] ^ 1]) + written[1:])
    [damage] = (plan := plan_repair(warehouse, (), ())).drop
    assert damage.file == deletes
    drop_files(warehouse, plan, int)
    assert count(warehouse) == 200


def test_it_waits_for_nobody(warehouse: Warehouse) -> None:
    remove(warehouse, data_files(warehouse.catalog)[0])
    plan = plan_repair(warehouse, (), ())
    with warehouse.catalog.locked(UPKEEP), pytest.raises(HomeInUse, match="nothing was changed"):
        drop_files(warehouse, plan, int)
    with pytest.raises(DamagedFiles):
        require_files(warehouse.catalog)


def test_killed_anywhere_it_has_dropped_all_or_nothing(warehouse: Warehouse) -> None:
    command = [sys.executable, Path(__file__).with_name("storage_processes.py"), "repair_for_ever", warehouse.home]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"started\n"
    lost = data_files(warehouse.catalog)[:2]
    remove(warehouse, *lost)
    noted = "SELECT count(*) FROM repaired_files"
    while warehouse.read(noted).item() == 0:
        assert process.poll() is None
    time.sleep(0.01)
    process.kill()
    process.wait()
    if (plan := plan_repair(warehouse, (), ())).drop:
        assert {damage.file.path for damage in plan.drop} == {file.path for file in lost}
        drop_files(warehouse, plan, int)
    assert count(warehouse) == 100


def test_every_source_of_a_table_is_known() -> None:
    assert sources_of("sentence_types") >= {"sentence_probabilities", "student_logprobs", "responses", "prompts"}
    assert sources_of("prompts") == set()
