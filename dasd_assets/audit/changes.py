"""Why an asset is out of date, in full: which input and batch, which code, which part of the recipe; before and now.

`staleness` knows that something differs; what it was before is read here, from the tags and metadata of the
materializations that Dagster's log still has. A home of an earlier release did not record what a code version stands
for; the message then says so.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from dasd_assets.audit.prompt import Record
from dasd_assets.records.code_versions import MADE_WITH
from dasd_assets.records.dagster_internals import BaseAssetNode
from dasd_assets.records.materializations import Latest, Materialization, metadata_of, tags_until
from dasd_assets.records.tags import (
    BATCHES_VERSION_TAG,
    CODE_VERSION_TAG,
    DATA_VERSION_TAG,
    INPUT_EVENT_TAG,
    INPUT_VERSION_TAG,
    data_version,
    hash_of_versions,
    recorded_versions,
)
from dasd_assets.rules.asset_names import SOURCE_ASSET
from dasd_assets.service.staleness import Cause, Stale

NUM_LOOKED_UP = 20  # batches of an input, whose earlier versions are fetched from the log; the others are only named

MadeWith = Mapping[str, Mapping[str, Any]]  # `code` and `recipe`, as code_versions writes them


@dataclass
class Changes:
    """Explains causes. roots: data versions that assets made from files should have. usable: unquarantined batches."""

    instance: dg.DagsterInstance
    nodes: Mapping[str, BaseAssetNode]
    latest: Mapping[str, Latest]
    roots: Mapping[str, str]
    usable: Sequence[str]
    _known: dict[tuple[str, str], MadeWith | None] = field(default_factory=dict)
    _num_looked_up: dict[tuple[str, str], int] = field(default_factory=dict)

    def of(self, stale: Stale) -> list[Record]:
        """One record per change: `kind`, `what` changed, `before`, `now`, `batch` of the input, and a `message`."""
        return [record for cause in stale.causes for record in self._explained(stale, cause)]

    def _explained(self, stale: Stale, cause: Cause) -> Iterator[Record]:
        made = self.latest[stale.asset].get(stale.batch)
        if made is None or cause.kind not in ("code", "files", "input"):
            yield _record(cause.kind, cause.upstream or None, message=cause.reason)
        elif cause.kind == "code":
            yield from self._code(stale.asset, made)
        elif cause.kind == "files":
            before, now = made.tags.get(DATA_VERSION_TAG), self.roots[stale.asset]
            what = "the other recipe selected anew" if stale.asset == SOURCE_ASSET else "its files changed"
            yield _record("files", stale.asset, before, now, message=f"{what}: version {before} → {now}")
        elif stale.batch is None and self.nodes[cause.upstream].is_partitioned:
            yield from self._batches(stale.asset, cause.upstream, made)
        else:
            yield self._input(stale, cause.upstream, made)

    def _code(self, asset: str, made: Materialization) -> Iterator[Record]:
        version = {"before": made.tags.get(CODE_VERSION_TAG), "now": self.nodes[asset].code_version}
        arrow = f"code version {version['before']} → {version['now']}"
        before = self._made_with(asset, made)
        now = _plain(self.nodes[asset].metadata)
        if before is None or now is None:
            yield _record("code or recipe", None, **version, message=f"recipe or code (not recorded which): {arrow}")
            return
        changes = [*_differences("recipe", before, now), *_differences("code", before, now)]
        yield from changes or [_record("code", None, **version, message=arrow)]

    def _made_with(self, asset: str, made: Materialization) -> MadeWith | None:
        """What the code version of a materialization stands for; all that have the same version say the same."""
        key = (asset, made.tags.get(CODE_VERSION_TAG, ""))
        if key not in self._known:
            self._known[key] = _plain(metadata_of(self.instance, asset, made.storage_id))
        return self._known[key]

    def _input(self, stale: Stale, upstream: str, made: Materialization) -> Record:
        """An input of the same batch, or one that has no batches."""
        source = stale.batch if self.nodes[upstream].is_partitioned else None
        recorded = made.tags.get(INPUT_VERSION_TAG + upstream)
        now = data_version(self.latest[upstream], source)
        before = recorded
        if recorded is not None and source is not None:  # hashed
            before = self._version_until(stale.asset, upstream, source, _pointer(made, upstream))
            before = before if before is not None and recorded in recorded_versions(before) else None
        message = f"{upstream} changed" if recorded is not None else f"{upstream} is a new input"
        versions = f": version {before} → {now}" if before is not None else ""
        return _record("input", upstream, before, now, source, message + versions)

    def _batches(self, asset: str, upstream: str, made: Materialization) -> Iterator[Record]:
        """An input of which all batches are read: those made since, and those that are gone."""
        latest, pointer = self.latest[upstream], _pointer(made, upstream)
        since = [b for b in self.usable if b in latest and latest[b].storage_id > pointer]
        then = {b: data_version(latest, b) for b in self.usable if b not in since}
        num_omitted = 0
        for batch in since:
            if self._num_looked_up.get((asset, upstream), 0) >= NUM_LOOKED_UP:
                num_omitted += 1
                continue
            before, now = self._version_until(asset, upstream, batch, pointer), data_version(latest, batch)
            if before is not None:
                then[batch] = before
            if before != now:
                message = f"version {before} → {now}" if before is not None else "new"
                yield _record("input", upstream, before, now, batch, f"{upstream} of batch {batch}: {message}")
        if num_omitted:
            message = f"{upstream} of {num_omitted} more batches: made since"
            yield _record("input", upstream, message=message)
        elif hash_of_versions(then) != made.tags.get(BATCHES_VERSION_TAG + upstream):
            yield self._gone(upstream, pointer)

    def _gone(self, upstream: str, pointer: int) -> Record:
        """Batches that were read, and are removed or quarantined now. Those that were so before are named, too."""
        latest = self.latest[upstream]
        gone = sorted(b for b, event in latest.items() if b and b not in self.usable and event.storage_id <= pointer)
        message = f"{upstream}: other batches are read than before"
        named = f" (removed or quarantined: {', '.join(gone)})" if gone else ""
        return _record("input", upstream, message=message + named)

    def _version_until(self, asset: str, upstream: str, batch: str, pointer: int) -> str | None:
        """The data version that a batch of an input had at a place in the log; None, too, beyond NUM_LOOKED_UP."""
        number = self._num_looked_up.get((asset, upstream), 0)
        if number >= NUM_LOOKED_UP:
            return None
        self._num_looked_up[asset, upstream] = number + 1
        tags = tags_until(self.instance, upstream, batch, pointer)
        return None if tags is None else tags.get(DATA_VERSION_TAG)


def _record(
    kind: str,
    what: str | None = None,
    before: object = None,
    now: object = None,
    batch: str | None = None,
    message: str = "",
) -> Record:
    return {"kind": kind, "what": what, "batch": batch, "before": before, "now": now, "message": message}


def _pointer(made: Materialization, upstream: str) -> int:
    """The input's last event when the step began; before this materialization, if Dagster did not record it."""
    pointer = made.tags.get(INPUT_EVENT_TAG + upstream, "")
    return int(pointer) if pointer.isdigit() else made.storage_id


def _plain(metadata: Mapping[str, object]) -> MadeWith | None:
    found = metadata.get(MADE_WITH)
    return found.data if isinstance(found, dg.JsonMetadataValue) and isinstance(found.data, dict) else None


def _differences(kind: str, before: MadeWith, now: MadeWith) -> Iterator[Record]:
    """One record per value that differs, each named by its dotted path."""
    old, new = _leaves(before[kind]), _leaves(now[kind])
    for path in sorted(old.keys() | new.keys()):
        if old.get(path, _UNSET) != new.get(path, _UNSET):
            name = path if kind == "recipe" else f"code version of {path}"
            message = f"{name} {_shown(old, path)} → {_shown(new, path)}"
            yield _record(kind, path, old.get(path), new.get(path), message=message)


_UNSET = object()


def _leaves(value: object, path: str = "") -> dict[str, object]:
    """Dotted path -> value of everything in nested mappings."""
    if not isinstance(value, Mapping):
        return {path: value}
    nested = [_leaves(part, f"{path}.{name}" if path else str(name)) for name, part in value.items()]
    return {name: leaf for leaves in nested for name, leaf in leaves.items()}


def _shown(leaves: Mapping[str, object], path: str) -> str:
    if path not in leaves:
        return "unset"
    value = leaves[path]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
