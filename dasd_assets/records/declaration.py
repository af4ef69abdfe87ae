"""One declaration per asset: what it reads, with which models and rules, and what it writes. The rest is derived.

| declared | derived |
| --- | --- |
| tables read, and the assets that wrote them | dependencies, column lineage, what is compared for staleness |
| models | dependencies; lineage of columns that a model decides |
| rules and parts of the recipe | code version, and the metadata `made_with` that spell it out |
| table written | partitions, schema, sample, row counts |

Three guards (tests/test_declarations.py) compare a declaration with what the asset's code does: the rules that it
reaches, the parts of the recipe that it reads, the tables that its queries touch.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any

import dagster as dg

from dasd_assets.records.code_versions import CodeVersion
from dasd_assets.records.column_lineage import Sources
from dasd_assets.records.dagster_internals import BaseAssetNode
from dasd_assets.records.markdown import viewer_link
from dasd_assets.records.partitions import PROMPT_BATCH
from dasd_assets.records.table_metadata import VIEWER_LINK, Figure, TableAsset
from dasd_assets.records.tags import EXPERIMENTS, batches_tag
from dasd_assets.rules.rule import Rule
from dasd_resources.interruption import begin
from dasd_resources.recipe import Recipe
from dasd_resources.storage.tables import declared as declared_table
from dasd_resources.storage.warehouse import Warehouse

ENGINE_POOL = "engine"  # of Dagster: one step at a time has a model loaded
DECLARED = "declared"  # metadata of the definition: table -> assets, for reads and look-ups; the tables written
Compute = Callable[..., dg.MaterializeResult]
VIEWER_PAGES = {  # of `dasd view`: an asset's, or that of its group
    "leaderboard": "leaderboard",
    "inputs": "explore",
    "responses": "explore",
    "scores": "explore",
    "selection": "explore",
    "sft_datasets": "explore",
    "training": "checkpoints",
    "training_mixed_policy": "mixed",
    "training_results": "checkpoints",
    EXPERIMENTS: "experiments",
}


@dataclass(frozen=True)
class Declaration:
    """What one asset reads, applies and writes; `declare` describes the fields."""

    name: str
    writes: tuple[str, ...]
    reads: Sources
    looks_up: Sources
    models: tuple[str, ...]
    code_version: CodeVersion
    rows: str | None

    @property
    def deps(self) -> list[str]:
        """The assets whose change makes this one stale."""
        return list(dict.fromkeys([*_assets(self.reads), *self.models]))

    @property
    def is_per_batch(self) -> bool:
        """Whether it has one partition per prompt batch, which follows from its table."""
        return bool(self.writes) and is_per_batch(self.writes[0])

    @property
    def table(self) -> TableAsset:
        """The first table that it writes, for metadata."""
        models = {"checkpoints": list(self.models)} if self.models and "checkpoints" not in self.reads else {}
        return TableAsset(self.writes[0], {**models, **self.looks_up, **self.reads}, self.code_version)

    def asset(
        self,
        *,
        group: str,
        kinds: set[str],
        description: str,
        loads_model: bool = False,
        partitions_def: dg.PartitionsDefinition | None = None,
    ) -> Callable[[Compute], dg.AssetsDefinition]:
        """The decorator that turns a function into this asset.

        loads_model: then it takes a slot of the engine's pool, which keeps two models from being loaded at once.
        partitions_def: of an asset that has others than prompt batches; it reads all batches, and one run makes as many
        of its partitions as are asked for together.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # of backfill policies, which the UI has had for years
            decorate = dg.asset(
                name=self.name,
                deps=self.deps if partitions_def is None else self._all_batches(),
                partitions_def=partitions_def or (PROMPT_BATCH if self.is_per_batch else None),
                backfill_policy=None if partitions_def is None else dg.BackfillPolicy.single_run(),
                code_version=self.code_version.text,
                metadata={**self._metadata, **self._viewer(group)},
                group_name=group,
                kinds=kinds,
                description=description,
                pool=ENGINE_POOL if loads_model else None,
            )
        return lambda compute: decorate(_unless_interrupted(compute))

    def _all_batches(self) -> list[dg.AssetDep]:
        per_batch = _assets({table: assets for table, assets in self.reads.items() if is_per_batch(table)})
        every = dg.AllPartitionMapping()
        return [dg.AssetDep(name, partition_mapping=every if name in per_batch else None) for name in self.deps]

    def read_tags(self, instance: dg.DagsterInstance, batches: list[str]) -> dict[str, str]:
        """The tags by which an asset that reads all batches records what it read of each; take them before reading."""
        per_batch = {table: assets for table, assets in self.reads.items() if is_per_batch(table)}
        return {k: v for asset in _assets(per_batch) for k, v in batches_tag(instance, asset, batches).items()}

    def result(
        self,
        warehouse: Warehouse,
        num_rows: int,
        rows: Mapping[str, object],
        shown: Mapping[str, object] | None = None,
        /,
        **figures: Figure,
    ) -> dict[str, Any]:
        """Metadata of a materialization, see `TableAsset.result`."""
        return self.table.result(warehouse, num_rows, rows, shown, **figures)

    def _viewer(self, group: str) -> dict[str, Any]:
        page = VIEWER_PAGES.get(self.name) or VIEWER_PAGES.get(group)
        return {VIEWER_LINK: viewer_link(page)} if page else {}

    @property
    def _metadata(self) -> dict[str, Any]:
        names = {"reads": _listed(self.reads), "looks_up": _listed(self.looks_up), "writes": list(self.writes)}
        tables = {DECLARED: dg.MetadataValue.json(names)}
        if not self.writes:
            return {**self.code_version.metadata, **tables}
        return {**(self.table.definition if self.rows is None else self.table.part(self.rows)), **tables}


def declare(
    recipe: Recipe,
    name: str,
    writes: str | Sequence[str] = (),
    *,
    reads: Sources | None = None,
    looks_up: Sources | None = None,
    models: Sequence[str] = (),
    rules: Sequence[Rule] = (),
    parts: Sequence[str] = (),
    rows: str | None = None,
) -> Declaration:
    """An asset's declaration.

    writes: the tables that it writes, its own first.
    reads: table -> the assets whose rows of it decide what is made; no asset for a table that only commands write.
    looks_up: the same for rows that are only found by ids from the tables in `reads`. An id is the hash of everything
        that decides its row, so these rows never change, and new ones do not make the asset stale.
    models: assets of the models that it samples from, scores with or names.
    rules: the rules that its code applies. parts: what it reads of the recipe besides, as dotted paths.
    rows: the condition, in SQL, of its own rows, where several assets share the table.
    """
    written = (writes,) if isinstance(writes, str) else tuple(writes)
    version = CodeVersion.of(recipe, rules, parts)
    return Declaration(name, written, reads or {}, looks_up or {}, tuple(models), version, rows)


def _unless_interrupted(compute: Compute) -> Compute:
    """The function, which does not begin in a process that has been interrupted."""

    @wraps(compute)
    def begun(*args: Any, **kwargs: Any) -> Any:
        begin()
        return compute(*args, **kwargs)

    return begun


def written_tables(node: BaseAssetNode) -> list[str]:
    """The tables that an asset of the graph writes, as it was declared; none for one that was not."""
    named = node.metadata.get(DECLARED)
    return list(named.data["writes"]) if isinstance(named, dg.JsonMetadataValue) and named.data else []  # type: ignore[index,call-overload]


def is_per_batch(table: str) -> bool:
    """Whether a table has the column `batch`: then the assets that write it have one partition per prompt batch."""
    return declared_table(table).has("batch")


def _listed(sources: Sources) -> dict[str, list[str]]:
    return {table: [names] if isinstance(names, str) else list(names) for table, names in sources.items()}


def _assets(sources: Sources) -> list[str]:
    return [name for names in _listed(sources).values() for name in names]
