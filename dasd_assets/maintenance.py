"""Maintenance of a home: merges small commits and data files, expires old snapshots, deletes leftovers (no table).

A snapshot that a checkpoint or any other row names is never expired, so the rows a checkpoint was trained on stay
readable. Files are deleted only after the recipe's grace period, as readers and writers may be at work. The asset is
not part of the data path: nothing depends on it, and it is never out of date.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from filelock import Timeout

from dasd_assets.records.provenance import origin
from dasd_assets.records.tags import UPKEEP
from dasd_resources.recipe import Maintenance, Recipe
from dasd_resources.storage.catalogs import UPKEEP as UPKEEP_LOCK
from dasd_resources.storage.leftovers import pinned_snapshots, sweep_checkpoints, sweep_owner_locks, sweep_spilled
from dasd_resources.storage.upkeep import (
    delete_unreferenced,
    expire_snapshots,
    flush_small_commits,
    merge_small_files,
    table_sizes,
)
from dasd_resources.storage.warehouse import Warehouse

MAINTENANCE_VERSION = "1"
SECONDS_TO_WAIT = 60.0  # for a backup or another maintenance to end


def maintain(warehouse: Warehouse, settings: Maintenance, origin: str) -> dict[str, int]:
    """Run every step once; returns counts and sizes by name."""
    home, now = Path(warehouse.home), datetime.now(UTC)
    grace = timedelta(hours=settings.grace_hours)
    unfinished = timedelta(days=settings.keep_unfinished_days)
    num_flushed = flush_small_commits(warehouse, origin)
    merged = merge_small_files(warehouse, origin)
    before = now - timedelta(days=settings.keep_snapshots_days)
    expired, kept = expire_snapshots(warehouse, origin, before, pinned_snapshots(home))
    files = delete_unreferenced(warehouse, origin, now - grace)
    leftovers = sweep_checkpoints(home, grace.total_seconds(), unfinished.total_seconds())
    leftovers += sweep_owner_locks(home, grace.total_seconds()) + sweep_spilled(home, grace.total_seconds())
    first_seen = warehouse.hash_files()
    present = table_sizes(warehouse)
    return {
        "num_rows_flushed": num_flushed,
        "num_files_merged": sum(merged.values()),
        "num_snapshots_expired": expired,
        "num_old_snapshots_kept": kept,
        "num_data_files_deleted": files.num_files,
        "data_bytes_deleted": files.num_bytes,
        "num_foreign_files": files.num_foreign,
        "num_leftovers_deleted": leftovers.num_files,
        "leftover_bytes_deleted": leftovers.num_bytes,
        "num_data_files_first_seen": first_seen,
        "num_data_files": int(present["num_files"].sum()),
        "data_bytes": int(present["num_bytes"].sum()),
    }


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`maintenance`."""

    @dg.asset(
        group_name=UPKEEP,
        kinds={"ducklake"},
        code_version=MAINTENANCE_VERSION,
        description="Maintenance of the home: merges small commits and data files, expires old snapshots that nothing "
        "refers to, and deletes files that no snapshot has named for the recipe's grace period.",
    )
    def maintenance(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        try:
            with warehouse.catalog.locked(UPKEEP_LOCK, timeout=SECONDS_TO_WAIT):
                return dg.MaterializeResult(metadata=maintain(warehouse, recipe.maintenance, origin(context)))
        except Timeout:
            raise dg.Failure("a backup or another maintenance is running; run it again when that has ended") from None

    return [maintenance]


def build_schedules(recipe: Recipe) -> list[dg.ScheduleDefinition]:
    """`maintenance_schedule`, running unless the recipe's cron is null."""
    if recipe.maintenance.cron is None:
        return []
    job = dg.define_asset_job("maintenance_job", selection=["maintenance"], description="Maintenance of the home.")
    schedule = dg.ScheduleDefinition(
        name="maintenance_schedule",
        cron_schedule=recipe.maintenance.cron,
        job=job,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Merges small commits and data files, expires old snapshots, deletes leftovers.",
    )
    return [schedule]
