"""Batches that keep failing: quarantined with a reason, so that work on the others continues, and released later.

`quarantined_batches` has one row per time a batch was quarantined; `released_at` is NULL as long as it is. Assets that
read all batches leave it out. It is released by `dasd quarantine --release`, by a materialization that succeeds, or
when an input, the code or the recipe of its failing `step` changes: after a fix in the recipe, no command is needed.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from dasd_assets.records.earlier_checks import last_evaluation
from dasd_assets.records.partitions import batches
from dasd_resources.storage.warehouse import Reading, Warehouse
from dasd_resources.visible_text import visible_page

QUARANTINE_CHECK = dg.AssetCheckKey(dg.AssetKey("prompts"), "no_quarantined_batches")


@dataclass(frozen=True)
class Quarantined:
    """A quarantined batch: why, at which step, after which run and how many attempts."""

    batch: str
    reason: str
    step: str
    num_attempts: int
    failed_run_id: str
    quarantined_at: datetime


FIELDS = [column.name for column in fields(Quarantined)]


@dataclass(frozen=True)
class Quarantine:
    """What is quarantined now, by batch; and of batches that were released, the runs after which they had been."""

    now: dict[str, Quarantined]
    released: dict[str, set[str]]


def quarantine(warehouse: Warehouse | Reading) -> Quarantine:
    """The current quarantine, as the table `quarantined_batches` has it."""
    rows = warehouse.read("SELECT * FROM quarantined_batches ORDER BY quarantined_at").to_dicts()
    released: dict[str, set[str]] = {}
    for row in rows:
        if row["released_at"] is not None:
            released.setdefault(row["batch"], set()).add(row["failed_run_id"])
    now = [Quarantined(**{name: row[name] for name in FIELDS}) for row in rows if row["released_at"] is None]
    return Quarantine({row.batch: row for row in now}, released)


def usable_batches(instance: dg.DagsterInstance, warehouse: Warehouse) -> list[str]:
    """The batches that assets which read them all may read: existing, and not quarantined."""
    quarantined = quarantine(warehouse).now
    return [batch for batch in batches(instance) if batch not in quarantined]


def quarantine_batch(warehouse: Warehouse, batch: str, reason: str, step: str, num_attempts: int, run_id: str) -> None:
    """Quarantine a batch, unless it already is. run_id: of the last attempt."""
    row = Quarantined(batch, reason, step, num_attempts, run_id, datetime.now(UTC))
    with warehouse.commit(json.dumps({"quarantine": batch})) as transaction:
        query = "SELECT 1 FROM quarantined_batches WHERE batch = $batch AND released_at IS NULL"
        if transaction.read(query, {"batch": batch}).is_empty():
            transaction.append_missing("quarantined_batches", pl.DataFrame([asdict(row)]))


def release(warehouse: Warehouse, wanted: Collection[str]) -> list[str]:
    """Release batches; returns those that were quarantined."""
    with warehouse.commit(json.dumps({"release": sorted(wanted)})) as transaction:
        query = "SELECT * FROM quarantined_batches WHERE released_at IS NULL AND list_contains($batches, batch)"
        rows = transaction.read(query, {"batches": list(wanted)})
        for row in rows.with_columns(released_at=pl.lit(datetime.now(UTC))).to_dicts():
            key = {"batch": row["batch"], "released_at": None}
            transaction.replace("quarantined_batches", key, pl.DataFrame([row]))
    return sorted(rows["batch"].to_list())


def build() -> list[dg.AssetChecksDefinition]:
    """The check `no_quarantined_batches` on `prompts`; the service evaluates it whenever the quarantine changes."""

    @dg.asset_check(
        asset="prompts", description="No batch is quarantined. If one is, the metadata name it and its reason."
    )
    def no_quarantined_batches(warehouse: Warehouse) -> dg.AssetCheckResult:
        found = check_evaluation(quarantine(warehouse).now)
        return dg.AssetCheckResult(
            passed=found.passed, severity=found.severity, description=found.description, metadata=found.metadata
        )

    return [no_quarantined_batches]


def changed_evaluation(instance: dg.DagsterInstance, now: Mapping[str, Quarantined]) -> list[dg.AssetCheckEvaluation]:
    """The check's outcome, if it is another than was last recorded: never evaluated counts as passed.

    Whoever changed the quarantine: a tick, a run in rounds, `dasd run` or `dasd quarantine --release`.
    """
    last, found = last_evaluation(instance, QUARANTINE_CHECK), check_evaluation(now)
    return [found] if found.metadata != (last.metadata if last else {}) else []


def check_evaluation(now: Mapping[str, Quarantined]) -> dg.AssetCheckEvaluation:
    """The check's outcome: a warning with every quarantined batch and its reason."""
    return dg.AssetCheckEvaluation(
        asset_key=QUARANTINE_CHECK.asset_key,
        check_name=QUARANTINE_CHECK.name,
        passed=not now,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(now)} quarantined, see `dasd quarantine`; `dasd quarantine --release BATCH` releases one"
            if now
            else "no batch is quarantined"
        ),
        metadata={batch: dg.MetadataValue.text(visible_page(row.reason)) for batch, row in now.items()},
    )
