"""The check `no_damaged_files` on `prompts`: lost data files, by table and batch, where the web UI is looked at.

The service evaluates it when the outcome changes, so that a damaged home is seen on an asset's page and not only in the
sensors' failed ticks.
"""

from collections.abc import Sequence

import dagster as dg

from dasd_assets.records.earlier_checks import last_evaluation
from dasd_resources.storage.data_files import DAMAGED_FILE, Damage, lost_files
from dasd_resources.storage.warehouse import Warehouse

DATA_FILE_CHECK = dg.AssetCheckKey(dg.AssetKey("prompts"), "no_damaged_files")


def build() -> list[dg.AssetChecksDefinition]:
    """`no_damaged_files`."""

    @dg.asset_check(
        asset="prompts",
        description="Every data file of every table is there and whole. If not, it is named with its batch.",
    )
    def no_damaged_files(warehouse: Warehouse) -> dg.AssetCheckResult:
        warehouse.migrate()
        found = _evaluation(lost_files(warehouse.catalog))
        return dg.AssetCheckResult(passed=found.passed, description=found.description, metadata=found.metadata)

    return [no_damaged_files]


def report_damage(instance: dg.DagsterInstance, damages: Sequence[Damage]) -> None:
    """Record the check's outcome, if it is another than last time: never evaluated counts as passed."""
    last = last_evaluation(instance, DATA_FILE_CHECK)
    if (last is None or last.passed) == bool(damages):
        instance.report_runless_asset_event(_evaluation(damages))


def _evaluation(damages: Sequence[Damage]) -> dg.AssetCheckEvaluation:
    return dg.AssetCheckEvaluation(
        asset_key=DATA_FILE_CHECK.asset_key,
        check_name=DATA_FILE_CHECK.name,
        passed=not damages,
        description=f"{len(damages)} data files are gone or cut; {DAMAGED_FILE}" if damages else "every file is there",
        metadata={f"{d.file.table} {d.file.row}": dg.MetadataValue.text(d.what) for d in damages[:20]},
    )
