"""Blocking asset checks: whether they have passed, batch by batch, and the message of a failed one.

Dagster holds back what is downstream of a failed blocking check in the same run only; across runs, the planner does,
by what it learns here.
"""

from collections.abc import Iterable, Mapping

import dagster as dg

from dasd_assets.records.dagster_internals import AssetCheckExecutionRecordStatus, BaseAssetGraph

Gates = Mapping[str, Mapping[str | None, bool]]


def gates(instance: dg.DagsterInstance, graph: BaseAssetGraph, keys: Iterable[dg.AssetKey]) -> dict[str, Gates]:
    """Asset -> its blocking checks -> batch (None for an unpartitioned asset) -> passed on its last materialization."""
    found: dict[str, dict[str, dict[str | None, bool]]] = {}
    blocking: list[dg.AssetCheckKey] = []
    for key in keys:
        checks = [graph.get(check) for check in graph.get(key).check_keys]
        of_asset = [c.key for c in checks if c.blocking and bool(c.partitions_def) == graph.get(key).is_partitioned]
        found[key.to_user_string()] = {check.name: {} for check in of_asset}
        blocking += of_asset
    for info in instance.event_log_storage.get_asset_check_partition_info(blocking) if blocking else []:
        succeeded = info.latest_execution_status == AssetCheckExecutionRecordStatus.SUCCEEDED
        of_batch = found[info.check_key.asset_key.to_user_string()][info.check_key.name]
        of_batch[info.partition_key] = succeeded and info.is_current
    return dict(found)


def gate_reason(found: Gates, batch: str | None) -> str | None:
    """Why nothing may be made from a batch of an asset; None if every gate is open."""
    return next((f"check {name} has not passed" for name, passed in found.items() if not passed.get(batch)), None)


def closed_gate(result: dg.ExecuteInProcessResult) -> str | None:
    """The message of the first blocking check that failed in a run; None if none did."""
    return next((message for event in result.get_asset_check_evaluations() if (message := refusal(event))), None)


def refusal(evaluation: dg.AssetCheckEvaluation) -> str | None:
    """The message of a blocking check that failed; None if it passed or does not block."""
    if evaluation.passed or not evaluation.blocking:
        return None
    asset = evaluation.asset_key.to_user_string()
    return f"{asset}: check {evaluation.check_name} failed, so nothing is made from it: {evaluation.description}"
