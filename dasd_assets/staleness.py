"""What is out of date, and why: every asset and batch compared with what it should have been made from.

Level-triggered: the answer depends on the event log alone, so nothing that happened before, during or between runs is
missed. Dagster records with each materialization its code version (which holds the recipe's part) and the data version
of each input. An asset whose blocking check has not passed since its last materialization is out of date too, so
nothing below it is made. Where an unpartitioned asset reads all batches, it records their versions itself
(`batches_tag`).
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetNode

from dasd_assets.gates import Gates, gate_reason, gates
from dasd_assets.materializations import Latest, latest_materializations
from dasd_resources.recipe import content_hash

DATA_VERSION = "dagster/data_version"
CODE_VERSION = "dagster/code_version"
INPUT_VERSION = "dagster/input_data_version/"
BATCHES_VERSION = "dasd.batches_version/"
UPKEEP = "upkeep"  # the group of assets that serve the home, not the data: never out of date
RETRY = "dasd.retry"
NEVER = "never materialized"

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Stale:
    """An asset, and the batch of it, that is out of date.

    wanted: identifies what it is to be made from; while that stays the same, so does the outcome.
    retry: it was made from just that, but some of its rows failed; what follows need not wait for them.
    """

    asset: str
    batch: str | None
    reason: str
    wanted: str = field(default="", compare=False)
    retry: bool = field(default=False, compare=False)


def batches_version(instance: dg.DagsterInstance, asset: str, batches: list[str]) -> str:
    """Hash of the data versions that the named batches of an asset have now; missing ones count as such."""
    return _hash_of_batches(latest_materializations(instance, {asset: True})[asset], batches)


def batches_tag(instance: dg.DagsterInstance, asset: str, batches: list[str]) -> dict[str, str]:
    """The tag by which an asset that reads all batches records what it read; take it before reading."""
    return {BATCHES_VERSION + asset: batches_version(instance, asset, batches)}


def retry_tag(num_retryable: int) -> dict[str, str]:
    """The tag by which an asset says that some of its rows failed, and are worth another attempt."""
    return {RETRY: str(num_retryable)} if num_retryable else {}


def stale_assets(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    batches: Sequence[str],
    roots: Mapping[str, str],
    aside: Collection[str] = (),
    given: Collection[str] = (),
    withdrawn: Mapping[str, str] | None = None,
) -> list[Stale]:
    """Everything out of date, upstream first.

    roots: asset -> the data version it should have, for assets made from files outside (models, benchmarks).
    aside: those of the batches that assets which read all batches do without.
    given: assets that are taken as they are, out of date or not.
    withdrawn: batch -> why its `prompts` differ from the withdrawals (`withdrawals.outdated_batches`).
    """
    graph = definitions.resolve_asset_graph()
    every = {key.to_user_string(): graph.get(key) for key in graph.toposorted_asset_keys}
    nodes = {name: node for name, node in every.items() if node.group_name != UPKEEP}
    latest = latest_materializations(instance, {name: node.is_partitioned for name, node in nodes.items()})
    closed = gates(instance, graph, [node.key for node in nodes.values()])
    look = _Look(nodes, latest, closed, roots, [batch for batch in batches if batch not in aside], withdrawn or {})
    for name, node in nodes.items():
        if name in given:
            continue
        for batch in batches if node.is_partitioned else [None]:
            look.at(name, batch)
    return look.found


@dataclass
class _Look:
    """One pass over assets and batches, upstream first."""

    nodes: Mapping[str, BaseAssetNode]
    latest: Mapping[str, Latest]
    gates: Mapping[str, Gates]
    roots: Mapping[str, str]
    usable: list[str]
    withdrawn: Mapping[str, str]
    found: list[Stale] = field(default_factory=list)
    _outdated: set[tuple[str, str | None]] = field(default_factory=set)
    _hashes: dict[str, str] = field(default_factory=dict)
    _parent_names: dict[str, list[str]] = field(default_factory=dict)

    def at(self, name: str, batch: str | None) -> None:
        """Note an asset, or a batch of it, if it is out of date."""
        made = self.latest[name].get(batch)
        tags = None if made is None else made.tags
        reason = (
            self._own_reason(name, batch, tags)
            or self._input_reason(name, batch, tags or {})
            or gate_reason(self.gates[name], batch)
        )
        if reason:
            self._outdated.add((name, batch))
            self.found.append(Stale(name, batch, reason, self._wanted(name, batch)))
        elif tags and RETRY in tags:
            self.found.append(
                Stale(name, batch, f"{tags[RETRY]} requests failed", self._wanted(name, batch), retry=True)
            )

    def _own_reason(self, name: str, batch: str | None, tags: Tags | None) -> str | None:
        if tags is None:
            return NEVER
        if name == "prompts" and batch is not None and batch in self.withdrawn:
            return self.withdrawn[batch]
        code_version, root_version = self.nodes[name].code_version, self.roots.get(name)
        if code_version is not None and tags.get(CODE_VERSION) != code_version:
            return "code or recipe changed"
        if root_version is not None and tags.get(DATA_VERSION) != root_version:
            return "files changed"
        return None

    def _input_reason(self, name: str, batch: str | None, tags: Tags) -> str | None:
        for parent in self._parents(name):
            if self._reads_all(parent, batch):
                if any((parent, source) in self._outdated for source in self.usable):
                    return f"{parent} is out of date"
                changed = tags.get(BATCHES_VERSION + parent) != self._version(parent, batch)
            else:
                if (parent, self._source(parent, batch)) in self._outdated:
                    return f"{parent} is out of date"
                changed = tags.get(INPUT_VERSION + parent) not in _recordings(self._version(parent, batch))
            if changed:
                return f"{parent} changed"
        return None

    def _parents(self, name: str) -> list[str]:
        if name not in self._parent_names:
            self._parent_names[name] = sorted(key.to_user_string() for key in self.nodes[name].parent_keys)
        return self._parent_names[name]

    def _reads_all(self, parent: str, batch: str | None) -> bool:
        return batch is None and self.nodes[parent].is_partitioned

    def _source(self, parent: str, batch: str | None) -> str | None:
        return batch if self.nodes[parent].is_partitioned else None

    def _version(self, parent: str, batch: str | None) -> str:
        """Data version of what an asset reads of its parent; empty if it was never made."""
        if not self._reads_all(parent, batch):
            made = self.latest[parent].get(self._source(parent, batch))
            return "" if made is None else made.tags[DATA_VERSION]
        if parent not in self._hashes:
            self._hashes[parent] = _hash_of_batches(self.latest[parent], self.usable)
        return self._hashes[parent]

    def _wanted(self, name: str, batch: str | None) -> str:
        inputs = {parent: self._version(parent, batch) for parent in self._parents(name)}
        own = self.withdrawn.get(batch) if name == "prompts" and batch is not None else self.roots.get(name)
        return content_hash([name, batch, self.nodes[name].code_version, own, inputs])[:16]


def _hash_of_batches(latest: Latest, batches: Sequence[str]) -> str:
    versions = {batch: latest[batch].tags.get(DATA_VERSION) if batch in latest else None for batch in batches}
    return content_hash(versions)[:16]


def _recordings(data_version: str) -> tuple[str, str]:
    """How Dagster writes an input's version: as it is, or hashed where the input is a partition."""
    return data_version, hashlib.sha256(data_version.encode()).hexdigest()
