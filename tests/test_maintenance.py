"""The upkeep of a whole home: its counts, its schedule, and that nothing the data path needs is touched."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl
import pytest
from conftest import Project, change

from dasd_assets.maintenance import build_schedules
from dasd_assets.rules.checkpoints import current_checkpoints
from dasd_resources.recipe import Recipe
from dasd_resources.storage.upkeep import (
    delete_unreferenced,
    expire_snapshots,
    flush_small_commits,
    merge_small_files,
)

pytestmark = pytest.mark.storage

EXAMPLES = "SELECT * FROM sft_examples WHERE dataset = $dataset ORDER BY ALL"


def rows_trained_on(project: Project) -> dict[str, pl.DataFrame]:
    chain = current_checkpoints(project.warehouse, project.recipe).drop_nulls("snapshot_id")
    return {
        row["name"]: project.warehouse.read(EXAMPLES, {"dataset": row["dataset"]}, at=row["snapshot_id"])
        for row in chain.to_dicts()
    }


def published_rows(project: Project) -> dict[str, pl.DataFrame]:
    """The examples of every published dataset, read at its snapshot."""
    query = "SELECT example_id FROM sft_examples WHERE dataset_id = $dataset_id ORDER BY ALL"
    rows = project.read("SELECT * FROM published_datasets ORDER BY dataset, policy").to_dicts()
    found = {
        f"{row['dataset']} {row['policy']}": project.warehouse.read(
            query, {"dataset_id": row["dataset_id"]}, at=row["snapshot_id"]
        )
        for row in rows
    }
    assert [part.height for part in found.values()] == [row["num_examples"] for row in rows]
    return found


def test_checkpoints_and_datasets_keep_their_rows_and_nothing_goes_stale(copy: Project) -> None:
    before, tables = rows_trained_on(copy), copy.read("SELECT * FROM responses ORDER BY response_id")
    published = published_rows(copy)
    assert list(published) == ["mixed das", "t060 das", "t060 random", "t100 das", "t100 random"]
    num_snapshots = copy.count("dasd.snapshots()")
    assert flush_small_commits(copy.warehouse, "upkeep") > 0
    merge_small_files(copy.warehouse, "upkeep")
    later = datetime.now(UTC) + timedelta(days=2)
    _, num_kept = expire_snapshots(copy.warehouse, "upkeep", later, [])
    assert delete_unreferenced(copy.warehouse, "upkeep", later).num_files > 0
    assert num_kept > 0
    assert copy.count("dasd.snapshots()") < num_snapshots
    after = rows_trained_on(copy)
    assert list(after) == list(before) == ["t060", "t100", "mixed"]
    assert all(after[stage].equals(before[stage]) and not before[stage].is_empty() for stage in before)
    kept = published_rows(copy)
    assert all(kept[name].equals(rows) and not rows.is_empty() for name, rows in published.items())
    assert copy.read("SELECT * FROM responses ORDER BY response_id").equals(tables)
    assert copy.run() == 0


def test_the_asset_counts_what_it_does(copy: Project) -> None:
    assert copy.materialize("maintenance") == 1
    counts = copy.metadata("maintenance")
    assert counts["num_rows_flushed"] > 0
    assert counts["num_files_merged"] > 0
    assert counts["num_data_files"] > 0
    assert counts["num_snapshots_expired"] == counts["num_data_files_deleted"] == counts["num_foreign_files"] == 0
    assert copy.run() == 0


def test_it_is_scheduled_unless_the_recipe_says_never(tiny: Recipe) -> None:
    (schedule,) = build_schedules(tiny)
    assert schedule.cron_schedule == tiny.maintenance.cron
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    assert build_schedules(change(tiny, "maintenance.cron", None)) == []
