"""Whether a batch's blocking check has passed on the very rows that the batch has now, so that it need not run again.

A new release, or a changed part of the recipe, makes an asset again even where it adds no row: its code version is
another, its data version the same. So does another attempt at failed rows that fail again. What was checked then holds
now, and is worth no forward pass. Whoever runs a check by hand, or makes an asset again of which no row has failed,
with nothing changed, has it checked anew.
"""

from collections.abc import Mapping
from typing import NamedTuple

import dagster as dg

from dasd_assets.records.code_versions import MADE_WITH
from dasd_assets.records.dagster_internals import AssetCheckExecutionRecordStatus, PartitionKeyFilter
from dasd_assets.records.tags import CODE_VERSION_TAG, DATA_VERSION_TAG, RETRY_TAG

ENDED = {AssetCheckExecutionRecordStatus.SUCCEEDED, AssetCheckExecutionRecordStatus.FAILED}
Settings = Mapping[str, object]  # dotted path of the recipe -> value


def passed_on_these_rows(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey, batch: str, settings: Settings
) -> dg.AssetCheckResult | None:
    """The check's last outcome, if it passed with these settings, and the asset was made again for the same rows."""
    # 1. The last evaluation of the batch, and the materialization that it was of.
    wanted = PartitionKeyFilter(key=batch)
    records = instance.event_log_storage.get_asset_check_execution_history(
        key, limit=1, status=ENDED, partition_filter=wanted
    )
    event = records[0].event.dagster_event if records and records[0].event is not None else None
    evaluation = event.asset_check_evaluation_data if event is not None else None
    if evaluation is None or not evaluation.passed or evaluation.target_materialization_data is None:
        return None
    checked_id = evaluation.target_materialization_data.storage_id
    checked = _materialization(instance, key.asset_key, storage_id=checked_id)
    # 2. The same rows, made by another code version or as others failed again, and checked with the same settings?
    latest = _materialization(instance, key.asset_key, batch=batch)
    if checked is None or latest is None or latest.storage_id == checked_id:
        return None
    if not _same_rows(checked.made, latest.made) or _settings(checked.made, settings) != settings:
        return None
    described = (evaluation.description or "").removesuffix(UNCHANGED)
    return dg.AssetCheckResult(passed=True, description=described + UNCHANGED, metadata=evaluation.metadata)


def last_evaluation(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> dg.AssetCheckEvaluation | None:
    """The last outcome of a check, whatever batch it is of; None where it has never ended, or raised an error."""
    record = instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
    return record.evaluation if record is not None and record.status in ENDED else None


UNCHANGED = " (not computed again: the rows are the same)"


class Materialization(NamedTuple):
    """One that Dagster has recorded, and its id there."""

    storage_id: int
    made: dg.AssetMaterialization


def _materialization(
    instance: dg.DagsterInstance, asset: dg.AssetKey, batch: str | None = None, storage_id: int | None = None
) -> Materialization | None:
    """The newest of a batch, or the one with this id."""
    wanted = dg.AssetRecordsFilter(
        asset_key=asset,
        asset_partitions=None if batch is None else [batch],
        storage_ids=None if storage_id is None else [storage_id],
    )
    records = instance.fetch_materializations(wanted, limit=1).records
    found = [Materialization(record.storage_id, made) for record in records if (made := record.asset_materialization)]
    return found[0] if found else None


def _same_rows(checked: dg.AssetMaterialization, latest: dg.AssetMaterialization) -> bool:
    before, now = checked.tags or {}, latest.tags or {}
    return before.get(DATA_VERSION_TAG) == now.get(DATA_VERSION_TAG) and (
        before.get(CODE_VERSION_TAG) != now.get(CODE_VERSION_TAG) or RETRY_TAG in before
    )


def _settings(checked: dg.AssetMaterialization, wanted: Settings) -> Settings:
    """The values of these paths then. Releases before the declarations recorded a section as a whole."""
    made_with = checked.metadata.get(MADE_WITH)
    if not isinstance(made_with, dg.JsonMetadataValue) or not isinstance(made_with.data, dict):
        return {}
    recipe = dict(made_with.data.get("recipe", {}))
    for section in [path for path, value in recipe.items() if "." not in path and isinstance(value, dict)]:
        recipe |= {f"{section}.{name}": value for name, value in recipe.pop(section).items()}
    return {path: recipe[path] for path in wanted if path in recipe}
