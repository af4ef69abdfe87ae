"""What is out of date, as steps: the assets that one run materializes, in the order in which they have to be made."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import dagster as dg

from dasd_assets.records.dagster_internals import BaseAssetGraph
from dasd_assets.records.tags import EXPERIMENTS
from dasd_assets.rules.asset_names import dataset_asset
from dasd_assets.service.staleness import Stale
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe

TARGET = "dasd.target"
STEP = ".dagster/dasd_step"  # a hash: a name that begins so is not shown in the list of runs
Level = Literal["models", "batch", "selection", "training"]
LEVELS: tuple[Level, ...] = get_args(Level)


@dataclass(frozen=True)
class Step:
    """Assets to materialize in one run; `identity` names what they are to be made from, not when or how often.

    only_checks: the assets that are but to be checked. only_retries: those that are up to date, but some rows failed.
    unproven: those that are out of date in every batch, so that no batch has passed their checks as it would be now.
    """

    level: Level
    batch: str | None
    reasons: Mapping[str, str]
    identity: str
    only_checks: frozenset[str] = frozenset()
    only_retries: frozenset[str] = frozenset()
    unproven: frozenset[str] = frozenset()

    @property
    def assets(self) -> list[str]:
        """Upstream first."""
        return list(self.reasons)

    @property
    def target(self) -> str:
        """The batch, or the level of what reads all batches."""
        return self.batch or self.level

    @property
    def retry(self) -> bool:
        """Whether nothing is out of date, but some rows failed."""
        return self.only_retries.issuperset(self.reasons)

    @property
    def tags(self) -> dict[str, str]:
        """Tags of the runs that carry the step out."""
        return {TARGET: self.target, STEP: self.identity}

    @property
    def why(self) -> str:
        """Every asset with its reason."""
        return ", ".join(f"{asset} ({reason})" for asset, reason in self.reasons.items())


def data_assets(recipe: Recipe, graph: BaseAssetGraph) -> set[str]:
    """Names of the assets that make data: the datasets, everything they are made from, and all that has batches."""
    datasets = dg.AssetSelection.assets(*map(dataset_asset, recipe.datasets))
    of_batches = (key for key in graph.toposorted_asset_keys if graph.get(key).group_name != EXPERIMENTS)
    partitioned = {key for key in of_batches if graph.get(key).is_partitioned}
    return {key.to_user_string() for key in datasets.upstream().resolve(graph) | partitioned}


def steps_of(stale: Sequence[Stale], data: Collection[str], roots: Collection[str]) -> list[Step]:
    """One step per batch, and one for each level of what has no batches. roots: the assets without parents."""
    groups: dict[tuple[Level, str | None], list[Stale]] = {}
    for one in stale:
        groups.setdefault((_level(one, data, roots), one.batch), []).append(one)
    return [_step(level, batch, groups[level, batch]) for level, batch in sorted(groups, key=_order)]


def marked_unproven(steps: Sequence[Step], batches: Collection[str]) -> list[Step]:
    """The steps, with what no batch of all of these is up to date of."""
    out_of_date = Counter(asset for step in steps if step.batch for asset in {*step.reasons} - step.only_retries)
    unproven = frozenset(asset for asset, number in out_of_date.items() if number == len(batches))
    return [replace(step, unproven=unproven.intersection(step.reasons)) for step in steps]


def ready(steps: Sequence[Step]) -> list[Step]:
    """The steps whose inputs are there: those of the first level that has any. Retries alone hold up no later level."""
    found: list[Step] = []
    for level in LEVELS:
        of_level = [step for step in steps if step.level == level]
        found += of_level
        if not all(step.retry for step in of_level):
            break
    return found


def _level(stale: Stale, data: Collection[str], roots: Collection[str]) -> Level:
    if stale.batch is not None:
        return "batch"
    if stale.asset not in data:
        return "training"
    return "models" if stale.asset in roots else "selection"


def _order(group: tuple[Level, str | None]) -> int:
    return LEVELS.index(group[0])


def _step(level: Level, batch: str | None, stale: Sequence[Stale]) -> Step:
    identity = content_hash([[one.wanted, one.retry] for one in stale])[:16]
    reasons = {one.asset: one.reason for one in stale}
    only_checks = frozenset(one.asset for one in stale if {cause.kind for cause in one.causes} == {"check"})
    only_retries = frozenset(one.asset for one in stale if one.retry)
    return Step(level, batch, reasons, identity, only_checks, only_retries)
