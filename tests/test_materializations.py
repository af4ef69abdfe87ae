"""The latest events per batch: always the log's, each fetched once, never those of another log."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from dasd_assets.records.materializations import FILE, latest_materializations


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def report(instance: dg.DagsterInstance, version: str, batch: str | None = None, asset: str = "rows") -> None:
    tags = {"dagster/data_version": version}
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=batch, tags=tags))


def versions(instance: dg.DagsterInstance, asset: str = "rows", partitioned: bool = True) -> dict[str | None, str]:
    latest = latest_materializations(instance, {asset: partitioned})[asset]
    return {batch: made.tags["dagster/data_version"] for batch, made in latest.items()}


def kept(tmp_path: Path) -> list[tuple[str, int]]:
    with sqlite3.connect(tmp_path / FILE) as connection:
        return connection.execute("SELECT asset, count(*) FROM materializations GROUP BY 1 ORDER BY 1").fetchall()


def test_the_latest_of_each_batch(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    assert versions(instance) == {}
    report(instance, "1", "a")
    report(instance, "1", "b")
    report(instance, "2", "a")
    report(instance, "9", asset="total")
    assert versions(instance) == {"a": "2", "b": "1"}
    assert versions(instance, "total", partitioned=False) == {None: "9"}
    report(instance, "3", "b")
    assert versions(instance) == {"a": "2", "b": "3"}
    assert kept(tmp_path) == [("rows", 2), ("total", 1)]  # superseded ones are dropped, other assets' are not


def test_wiped_events_are_gone(instance: dg.DagsterInstance) -> None:
    report(instance, "1", "a")
    assert versions(instance) == {"a": "1"}
    instance.wipe_assets([dg.AssetKey("rows")])
    assert versions(instance) == {}


def test_what_was_kept_of_another_log_is_dropped(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    """As when an earlier log is restored: the same ids, other events."""
    report(instance, "1", "a")
    assert versions(instance) == {"a": "1"}
    with sqlite3.connect(tmp_path / FILE) as connection:
        connection.execute("UPDATE materializations SET run_id = 'another', tags = '{\"dagster/data_version\": \"0\"}'")
    assert versions(instance) == {"a": "1"}


def test_an_instance_without_a_folder_keeps_nothing() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        report(instance, "1", "a")
        assert versions(instance) == {"a": "1"}
