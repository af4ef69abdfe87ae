"""What is out of date, and why: every asset and batch compared with what it should have been made from.

Level-triggered: the answer depends on the event log alone, so nothing that happened before, during or between runs is
missed. Dagster records with each materialization its code version (which holds the recipe's part) and the data version
of each input. An asset whose blocking check has not passed since its last materialization is out of date too, so
nothing below it is made. Where an unpartitioned asset reads all batches, it records their versions itself
(`batches_tag`).
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import dagster as dg

from dasd_assets.gates import gate_reason, gates
from dasd_resources.recipe import content_hash

DATA_VERSION = "dagster/data_version"
CODE_VERSION = "dagster/code_version"
INPUT_VERSION = "dagster/input_data_version/"
BATCHES_VERSION = "dasd.batches_version/"
RECORDS_PER_QUERY = 500
UPKEEP = "upkeep"  # the group of assets that serve the home, not the data: never out of date

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Stale:
    """An asset, and the batch of it, that is out of date."""

    asset: str
    batch: str | None
    reason: str


def batches_version(instance: dg.DagsterInstance, asset: str, batches: list[str]) -> str:
    """Hash of the data versions that the named batches of an asset have now; missing ones count as such."""
    return _hash_of_batches(_latest_tags(instance, dg.AssetKey(asset), partitioned=True), batches)


def batches_tag(instance: dg.DagsterInstance, asset: str, batches: list[str]) -> dict[str, str]:
    """The tag by which an asset that reads all batches records what it read; take it before reading."""
    return {BATCHES_VERSION + asset: batches_version(instance, asset, batches)}


def stale_assets(
    instance: dg.DagsterInstance, definitions: dg.Definitions, batches: list[str], roots: Mapping[str, str]
) -> list[Stale]:
    """Everything out of date, upstream first.

    roots: asset -> the data version it should have, for assets made from files outside (models, benchmarks).
    """
    graph = definitions.resolve_asset_graph()
    found: dict[tuple[str, str | None], Stale] = {}
    latest: dict[str, Mapping[str | None, Tags]] = {}
    for key in graph.toposorted_asset_keys:
        node = graph.get(key)
        if node.group_name == UPKEEP:
            continue
        name = key.to_user_string()
        latest[name] = _latest_tags(instance, key, node.is_partitioned)
        closed = gates(instance, graph, key)
        parents = {parent.to_user_string(): graph.get(parent).is_partitioned for parent in sorted(node.parent_keys)}
        for batch in batches if node.is_partitioned else [None]:
            reason = (
                _own_reason(latest[name].get(batch), node.code_version, roots.get(name))
                or _input_reason(name, batch, parents, latest, found, batches)
                or gate_reason(closed, batch)
            )
            if reason:
                found[name, batch] = Stale(name, batch, reason)
    return list(found.values())


def _own_reason(tags: Tags | None, code_version: str | None, root_version: str | None) -> str | None:
    if tags is None:
        return "never materialized"
    if code_version is not None and tags.get(CODE_VERSION) != code_version:
        return "code or recipe changed"
    if root_version is not None and tags.get(DATA_VERSION) != root_version:
        return "files changed"
    return None


def _input_reason(
    name: str,
    batch: str | None,
    parents: Mapping[str, bool],
    latest: Mapping[str, Mapping[str | None, Tags]],
    found: Mapping[tuple[str, str | None], Stale],
    batches: list[str],
) -> str | None:
    """parents: whether each is partitioned, by name."""
    tags = latest[name][batch]
    for parent, partitioned in parents.items():
        fan_in = batch is None and partitioned
        sources = batches if fan_in else [batch if partitioned else None]
        if any((parent, source) in found for source in sources):
            return f"{parent} is out of date"
        if fan_in:
            changed = tags.get(BATCHES_VERSION + parent) != _hash_of_batches(latest[parent], batches)
        else:
            changed = tags.get(INPUT_VERSION + parent) not in _recordings(latest[parent][sources[0]][DATA_VERSION])
        if changed:
            return f"{parent} changed"
    return None


def _hash_of_batches(tags: Mapping[str | None, Tags], batches: list[str]) -> str:
    return content_hash({batch: tags.get(batch, {}).get(DATA_VERSION) for batch in batches})[:16]


def _recordings(data_version: str) -> tuple[str, str]:
    """How Dagster writes an input's version: as it is, or hashed where the input is a partition."""
    return data_version, hashlib.sha256(data_version.encode()).hexdigest()


def _latest_tags(instance: dg.DagsterInstance, key: dg.AssetKey, partitioned: bool) -> Mapping[str | None, Tags]:
    """Tags of the latest materialization, by batch (None for an unpartitioned asset)."""
    if not partitioned:
        event = instance.get_latest_materialization_event(key)
        return {None: _tags(event)} if event else {}
    kind = dg.DagsterEventType.ASSET_MATERIALIZATION
    ids = list(instance.event_log_storage.get_latest_storage_id_by_partition(key, kind).values())
    return dict(_materializations(instance, key, ids))


def _materializations(
    instance: dg.DagsterInstance, key: dg.AssetKey, storage_ids: list[int]
) -> Iterator[tuple[str | None, Tags]]:
    for start in range(0, len(storage_ids), RECORDS_PER_QUERY):
        wanted = dg.AssetRecordsFilter(asset_key=key, storage_ids=storage_ids[start : start + RECORDS_PER_QUERY])
        for record in instance.fetch_materializations(wanted, limit=RECORDS_PER_QUERY).records:
            yield record.partition_key, _tags(record.event_log_entry)


def _tags(event: dg.EventLogEntry) -> Tags:
    materialization = event.asset_materialization
    return dict(materialization.tags or {}) if materialization else {}
