"""What is out of date, and why: every asset and batch compared with what it should have been made from.

Level-triggered: the answer depends on the event log alone, so nothing that happened before, during or between runs is
missed. Dagster records with each materialization its code version (which holds the recipe's part) and the data version
of each input. An asset whose blocking check has not passed since its last materialization is out of date too, so
nothing below it is made. Where an unpartitioned asset reads all batches, it records their versions itself
(`records.tags.batches_tag`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import dagster as dg

from dasd_assets.records.dagster_internals import BaseAssetNode
from dasd_assets.records.declaration import written_tables
from dasd_assets.records.materializations import Latest, latest_materializations
from dasd_assets.records.tags import (
    BATCHES_VERSION_TAG,
    CODE_VERSION_TAG,
    CONTEXT_TAG,
    DATA_VERSION_TAG,
    DROPPED_TAG,
    EXPERIMENTS,
    INPUT_VERSION_TAG,
    RETRY_TAG,
    UPKEEP,
    hash_of_batches,
    recorded_versions,
)
from dasd_assets.rules.asset_names import SOURCE_ASSET
from dasd_assets.rules.landed import LANDED_ASSET
from dasd_assets.service.gates import Gates, gate_reason, gates
from dasd_resources.content_hash import content_hash
from dasd_resources.storage.repair import RepairedFile

NEVER = "never materialized"

Tags = Mapping[str, str]


@dataclass(frozen=True)
class Cause:
    """One way in which an asset differs from what it should be made from; `upstream` names the input that does.

    upstream: of the kinds `upstream` (that asset is itself out of date) and `input` (it has another version by now).
    """

    kind: Literal[
        "never",
        "withdrawals",
        "dropped",
        "repaired",
        "code",
        "files",
        "upstream",
        "input",
        "check",
        "failed",
        "landed",
    ]
    reason: str
    upstream: str = ""


@dataclass(frozen=True)
class Stale:
    """An asset, and the batch of it, that is out of date; `reason` is the first of its causes.

    wanted: identifies what it is to be made from; while that stays the same, so does the outcome.
    retry: it was made from just that, but some of its rows failed; what follows need not wait for them.
    """

    asset: str
    batch: str | None
    reason: str
    wanted: str = field(default="", compare=False)
    retry: bool = field(default=False, compare=False)
    causes: tuple[Cause, ...] = field(default=(), compare=False)


def comparison(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    batches: Sequence[str],
    roots: Mapping[str, str],
    quarantined: Collection[str] = (),
    assumed_current: Collection[str] = (),
    withdrawn: Mapping[str, str] | None = None,
    repaired: Sequence[RepairedFile] = (),
    contexts: Collection[str] | None = None,
    landed: Mapping[str, str] | None = None,
) -> "Comparison":
    """Every asset and batch compared with what it should have been made from.

    roots: asset -> the data version it should have, for what lies outside (models, benchmarks, another's selection).
    quarantined: batches that the assets which read all batches leave out.
    assumed_current: assets that are not compared, as if they were up to date.
    withdrawn: batch -> why its `prompts` must follow withdrawals or deleted batches (`withdrawals.outdated_batches`).
    repaired: damaged files that were dropped, whose rows are to be made again; but for those of another log.
    contexts: of the models now (`tags.context_of`): requests that exceeded another are worth an attempt.
    landed: batch -> the data version that its `landed_responses` should have (`rules.landed.landed_versions`).
    """
    graph = definitions.resolve_asset_graph()
    every = {key.to_user_string(): graph.get(key) for key in graph.toposorted_asset_keys}
    nodes = {name: node for name, node in every.items() if node.group_name not in (UPKEEP, EXPERIMENTS)}
    latest = latest_materializations(instance, {name: node.is_partitioned for name, node in nodes.items()})
    closed = gates(instance, graph, [node.key for node in nodes.values()])
    usable = [batch for batch in batches if batch not in quarantined]
    # A log that was begun anew (a home without its old history) has other ids: there all was made since the repair.
    newest = instance.event_log_storage.get_maximum_record_id() or 0 if repaired else 0
    dropped = [file for file in repaired if file.last_event <= newest]
    made = Comparison(nodes, latest, closed, roots, usable, withdrawn or {}, dropped, contexts, landed or {})
    for name, node in nodes.items():
        if name in assumed_current:
            continue
        for batch in batches if node.is_partitioned else [None]:
            made.add(name, batch)
    return made


@dataclass
class Comparison:
    """One pass over assets and batches, upstream first: what there is of each (`latest`), and what is out of date.

    Upstream first, because an asset is out of date as soon as one of its inputs is (`_outdated` grows along the way).
    Each materialization's tags say what it was made from; they are compared with the versions there are now.
    """

    nodes: Mapping[str, BaseAssetNode]
    latest: Mapping[str, Latest]
    gates: Mapping[str, Gates]
    roots: Mapping[str, str]
    usable: list[str]
    withdrawn: Mapping[str, str]
    repaired: Sequence[RepairedFile] = ()
    contexts: Collection[str] | None = None
    landed: Mapping[str, str] = field(default_factory=dict)
    found: list[Stale] = field(default_factory=list)
    _outdated: set[tuple[str, str | None]] = field(default_factory=set)
    _hashes: dict[str, str] = field(default_factory=dict)
    _parents: dict[str, list[str]] = field(init=False)  # the graph is asked once per asset, not per batch
    _partitioned: set[str] = field(init=False)
    _code_versions: dict[str, str | None] = field(init=False)

    def __post_init__(self) -> None:
        self._parents = {
            name: sorted(key.to_user_string() for key in node.parent_keys) for name, node in self.nodes.items()
        }
        self._partitioned = {name for name, node in self.nodes.items() if node.is_partitioned}
        self._code_versions = {name: node.code_version for name, node in self.nodes.items()}

    def add(self, name: str, batch: str | None) -> None:
        """Note an asset, or a batch of it, if it is out of date."""
        # Differences make it stale, and all that is below it. Failed rows alone ask for a retry, but what follows need
        # not wait for them: they are not noted in `_outdated`.
        made = self.latest[name].get(batch)
        tags: Tags = {} if made is None else made.tags
        causes = [Cause("never", NEVER)] if made is None else list(self._causes(name, batch, tags))
        if causes:
            self._outdated.add((name, batch))
        elif RETRY_TAG in tags:
            causes = [Cause("failed", f"{tags[RETRY_TAG]} requests failed")]
        elif self.contexts is not None and not set(tags.get(CONTEXT_TAG, "").split(",")) <= {"", *self.contexts}:
            causes = [Cause("failed", "requests exceeded a context that is another now")]
        if causes:
            retry = causes[0].kind == "failed"
            self.found.append(
                Stale(name, batch, causes[0].reason, self._wanted(name, batch), retry, tuple(causes)),
            )

    def _causes(self, name: str, batch: str | None, tags: Tags) -> Iterator[Cause]:
        # Own causes first (withdrawn rows, code and recipe, files outside), then each input, then its blocking checks:
        # the first cause is the reason that people are shown.
        if name == "prompts" and batch is not None and batch in self.withdrawn:
            yield Cause("withdrawals", self.withdrawn[batch])
        if DROPPED_TAG in tags:  # nothing else is recorded of what is left
            yield Cause("dropped", f"{tags[DROPPED_TAG]} rows were dropped by `dasd rescore`")
            return
        if table := self._dropped(name, batch):
            yield Cause("repaired", f"rows of {table} were lost with a damaged file, which `dasd repair` has dropped")
        code_version, root_version = self._code_versions[name], self.roots.get(name)
        if code_version is not None and tags.get(CODE_VERSION_TAG) != code_version:
            yield Cause("code", "code or recipe changed")
        if root_version is not None and tags.get(DATA_VERSION_TAG) != root_version:
            yield Cause("files", "the other recipe selected anew" if name == SOURCE_ASSET else "files changed")
        elif self._landed(name, batch) not in (None, tags.get(DATA_VERSION_TAG)):
            yield Cause("landed", "responses to its questions, or logprobs of them, landed in another file")
        for parent in self._parents[name]:
            if cause := self._input_cause(parent, batch, tags):
                yield cause
        if reason := gate_reason(self.gates[name], batch):
            yield Cause("check", reason)

    def _landed(self, name: str, batch: str | None) -> str | None:
        """The version of what has landed for a batch's questions, in whichever file."""
        return self.landed.get(batch) if name == LANDED_ASSET and batch is not None else None

    def _dropped(self, name: str, batch: str | None) -> str | None:
        """A table that an asset writes, of which a file was dropped since it was last made; None if there is none."""
        made = self.latest[name].get(batch)
        since = [file for file in self.repaired if made is not None and made.storage_id <= file.last_event]
        for file in since:
            of_batch = None in (batch, file.batch) or batch == file.batch
            if of_batch and file.table in written_tables(self.nodes[name]):
                return file.table
        return None

    def _input_cause(self, parent: str, batch: str | None, tags: Tags) -> Cause | None:
        # An asset without batches reads all of a partitioned input, except the quarantined ones; Dagster records no
        # version of that, so it is compared with the hash that the asset itself has recorded.
        reads_all = self._reads_all(parent, batch)
        sources = self.usable if reads_all else [self._source(parent, batch)]
        if any((parent, source) in self._outdated for source in sources):
            return Cause("upstream", f"{parent} is out of date", parent)
        version = self._version(parent, batch)
        if reads_all:
            changed = tags.get(BATCHES_VERSION_TAG + parent) != version
        else:
            changed = tags.get(INPUT_VERSION_TAG + parent) not in recorded_versions(version)
        return Cause("input", f"{parent} changed", parent) if changed else None

    def _reads_all(self, parent: str, batch: str | None) -> bool:
        return batch is None and parent in self._partitioned

    def _source(self, parent: str, batch: str | None) -> str | None:
        return batch if parent in self._partitioned else None

    def _version(self, parent: str, batch: str | None) -> str:
        """Data version of what an asset reads of its parent; empty if it was never made."""
        if not self._reads_all(parent, batch):
            made = self.latest[parent].get(self._source(parent, batch))
            return "" if made is None else made.tags[DATA_VERSION_TAG]
        if parent not in self._hashes:
            self._hashes[parent] = hash_of_batches(self.latest[parent], self.usable)
        return self._hashes[parent]

    def _wanted(self, name: str, batch: str | None) -> str:
        inputs = {parent: self._version(parent, batch) for parent in self._parents[name]}
        own = self.withdrawn.get(batch) if name == "prompts" and batch is not None else self.roots.get(name)
        own = self._landed(name, batch) or own
        if self._dropped(name, batch):  # another attempt than the one that succeeded before the file was damaged
            own = f"{own} {max(file.last_event for file in self.repaired)}"
        return content_hash([name, batch, self._code_versions[name], own, inputs])[:16]
