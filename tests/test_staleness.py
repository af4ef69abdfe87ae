"""What is out of date, on a small graph: model -> rows (per batch) -> total (reads all batches) -> page."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg
import pytest

from dasd_assets.audit.changes import NUM_LOOKED_UP, Changes
from dasd_assets.records.code_versions import CodeVersion
from dasd_assets.records.declaration import DECLARED
from dasd_assets.records.materializations import latest_materializations
from dasd_assets.records.partitions import PROMPT_BATCH, batches
from dasd_assets.records.tags import batches_tag, batches_version
from dasd_assets.service.staleness import comparison
from dasd_resources.storage.repair import RepairedFile


@dataclass
class Graph:
    """The small graph over an instance; `versions` are the data versions its assets come to have, `code` of rows."""

    instance: dg.DagsterInstance
    versions: dict[str, str] = field(default_factory=dict)
    code: str = "1"
    settings: Mapping[str, object] | None = None  # of rows, as a recipe's
    root: str = "m1"
    repaired: Sequence[RepairedFile] = ()
    widened: bool = False  # with an asset per batch between model and rows that was not there before

    @property
    def definitions(self) -> dg.Definitions:
        made = CodeVersion({"rules": self.code}, self.settings).metadata if self.settings else {}

        def result(name: str, tags: Mapping[str, str] | None = None) -> dg.MaterializeResult:
            version = dg.DataVersion(self.versions.get(name, f"{name} 1"))
            return dg.MaterializeResult(data_version=version, tags=tags, metadata=made)

        @dg.asset
        def model() -> dg.MaterializeResult:
            return dg.MaterializeResult(data_version=dg.DataVersion(self.root))

        @dg.asset(partitions_def=PROMPT_BATCH, deps=[model])
        def extra(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            return result("extra")

        @dg.asset(
            partitions_def=PROMPT_BATCH,
            deps=[model, *[extra] * self.widened],
            code_version=self.code,
            metadata={**made, DECLARED: dg.JsonMetadataValue({"writes": ["responses"]})},
        )
        def rows(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            return result(context.partition_key)

        @dg.asset(deps=[rows])
        def total(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            return result("total", batches_tag(context.instance, "rows", batches(context.instance)))

        @dg.asset(deps=[total])
        def page() -> dg.MaterializeResult:
            return result("page")

        return dg.Definitions(assets=[model, *[extra] * self.widened, rows, total, page])

    def land(self, batch: str) -> None:
        self.instance.add_dynamic_partitions("prompt_batch", [batch])

    def make(self, asset: str, batch: str | None = None) -> None:
        job = self.definitions.resolve_implicit_global_asset_job_def()
        keys = [dg.AssetKey(asset)]
        assert job.execute_in_process(instance=self.instance, asset_selection=keys, partition_key=batch).success

    def make_all(self) -> None:
        self.make("model")
        for batch in batches(self.instance):
            self.make("rows", batch)
        self.make("total")
        self.make("page")

    def explain(self) -> dict[tuple[str, str | None], list[str]]:
        """Asset and batch -> what `audit staleness` tells of each cause."""
        roots, known = {"model": self.root}, batches(self.instance)
        found = comparison(self.instance, self.definitions, known, roots).found
        graph = self.definitions.resolve_asset_graph()
        nodes = {key.to_user_string(): graph.get(key) for key in graph.toposorted_asset_keys}
        latest = latest_materializations(self.instance, {name: node.is_partitioned for name, node in nodes.items()})
        changes = Changes(self.instance, nodes, latest, roots, known)
        return {(s.asset, s.batch): [record["message"] for record in changes.of(s)] for s in found}

    @property
    def stale(self) -> list[tuple[str, str | None, str]]:
        known, roots = batches(self.instance), {"model": self.root}
        found = comparison(self.instance, self.definitions, known, roots, repaired=self.repaired).found
        return [(s.asset, s.batch, s.reason) for s in found]


@pytest.fixture
def empty() -> Iterator[Graph]:
    with dg.DagsterInstance.ephemeral() as instance:
        graph = Graph(instance)
        graph.land("a")
        graph.land("b")
        yield graph


@pytest.fixture
def fresh(empty: Graph) -> Graph:
    empty.make_all()
    assert empty.stale == []
    return empty


DOWNSTREAM = [("total", None, "rows is out of date"), ("page", None, "total is out of date")]


def test_all_that_was_never_made_upstream_first(empty: Graph) -> None:
    never = "never materialized"
    assert empty.stale == [
        ("model", None, never),
        ("rows", "a", never),
        ("rows", "b", never),
        ("total", None, never),
        ("page", None, never),
    ]


def test_changed_files_make_all_below_stale(fresh: Graph) -> None:
    fresh.root = "m2"
    rows = [("rows", batch, "model is out of date") for batch in ("a", "b")]
    assert fresh.stale == [("model", None, "files changed"), *rows, *DOWNSTREAM]


def test_each_batch_catches_up_on_its_own(fresh: Graph) -> None:
    fresh.root = "m2"
    fresh.make("model")
    fresh.make("rows", "b")
    assert fresh.stale == [("rows", "a", "model changed"), *DOWNSTREAM]


def test_the_same_data_again_makes_nothing_stale(fresh: Graph) -> None:
    fresh.make("model")
    fresh.make("rows", "a")
    fresh.make("total")
    assert fresh.stale == []


def test_new_code_is_named(fresh: Graph) -> None:
    fresh.code = "2"
    rows = [("rows", batch, "code or recipe changed") for batch in ("a", "b")]
    assert fresh.stale == [*rows, *DOWNSTREAM]


def test_a_new_batch_leaves_the_others_alone(fresh: Graph) -> None:
    fresh.land("c")
    assert fresh.stale == [("rows", "c", "never materialized"), *DOWNSTREAM]
    fresh.make("rows", "c")
    assert fresh.stale == [("total", None, "rows changed"), DOWNSTREAM[1]]
    fresh.make("total")
    assert fresh.stale == []  # total came out as before, so page is good


def test_a_removed_batch_changes_what_reads_them_all(fresh: Graph) -> None:
    fresh.instance.delete_dynamic_partition("prompt_batch", "a")
    assert fresh.stale == [("total", None, "rows changed"), DOWNSTREAM[1]]


def test_a_batch_with_new_data_goes_all_the_way_down(fresh: Graph) -> None:
    fresh.versions["a"] = "a 2"
    fresh.make("rows", "a")
    assert fresh.stale == [("total", None, "rows changed"), DOWNSTREAM[1]]
    fresh.versions["total"] = "total 2"
    fresh.make("total")
    assert fresh.stale == [("page", None, "total changed")]


def test_a_batch_that_lands_while_all_are_read_is_not_lost(fresh: Graph) -> None:
    read = batches_version(fresh.instance, "rows", batches(fresh.instance))
    fresh.land("c")
    fresh.make("rows", "c")
    assert batches_version(fresh.instance, "rows", batches(fresh.instance)) != read


def test_a_new_asset_in_the_middle_makes_all_below_stale(fresh: Graph) -> None:
    """As a new temperature does: rows know nothing of their new input, in no batch."""
    fresh.widened = True
    extra = [("extra", batch, "never materialized") for batch in ("a", "b")]
    rows = [("rows", batch, "extra is out of date") for batch in ("a", "b")]
    assert fresh.stale == [*extra, *rows, *DOWNSTREAM]
    fresh.make("extra", "a")
    fresh.make("extra", "b")
    assert fresh.stale == [("rows", batch, "extra changed") for batch in ("a", "b")] + DOWNSTREAM


def test_a_dropped_file_is_made_again_once(fresh: Graph) -> None:
    last_event = fresh.instance.event_log_storage.get_maximum_record_id() or 0
    fresh.repaired = [RepairedFile("responses", "a", last_event)]
    lost = "rows of responses were lost with a damaged file, which `dasd repair` has dropped"
    assert fresh.stale == [("rows", "a", lost), *DOWNSTREAM]
    fresh.make("rows", "a")
    assert fresh.stale == []


def test_a_file_that_was_dropped_under_a_log_before_this_one_makes_nothing_stale(fresh: Graph) -> None:
    """As where a home is restored without Dagster's history: all is made anew, under ids that begin at 1."""
    fresh.repaired = [RepairedFile("responses", batch, 10**6) for batch in ("a", None)]
    assert fresh.stale == []


def test_more_batches_than_one_query_returns(empty: Graph) -> None:
    names = [f"batch {number:03d}" for number in range(501)]

    def report(batch: str, version: str) -> None:
        tags = {"dagster/data_version": version}
        empty.instance.report_runless_asset_event(dg.AssetMaterialization("rows", partition=batch, tags=tags))

    for name in names:
        report(name, "1")
    seen = {batches_version(empty.instance, "rows", names)}
    for number, changed in enumerate((names[0], names[499], names[500])):
        report(changed, f"changed {number}")
        seen.add(batches_version(empty.instance, "rows", names))
    assert len(seen) == 4


def test_changed_files_and_inputs_are_told_with_their_versions(fresh: Graph) -> None:
    fresh.root = "m2"
    assert fresh.explain()["model", None] == ["its files changed: version m1 → m2"]
    fresh.make("model")
    assert fresh.explain()["rows", "a"] == ["model changed: version m1 → m2"]


def test_of_batches_read_together_those_that_changed_are_told(fresh: Graph) -> None:
    fresh.versions["a"] = "a 2"
    fresh.make("rows", "a")
    fresh.make("rows", "b")  # the same again
    fresh.land("c")
    fresh.make("rows", "c")
    assert fresh.explain()["total", None] == ["rows of batch a: version a 1 → a 2", "rows of batch c: new"]


def test_a_removed_batch_is_told(fresh: Graph) -> None:
    fresh.instance.delete_dynamic_partition("prompt_batch", "a")
    message = "rows: other batches are read than before (removed or quarantined: a)"
    assert fresh.explain()["total", None] == [message]


def test_a_new_input_is_told_and_an_input_of_the_same_batch(fresh: Graph) -> None:
    fresh.widened = True
    for batch in ("a", "b"):
        fresh.make("extra", batch)
    assert fresh.explain()["rows", "a"] == ["extra is a new input"]
    fresh.make("rows", "a")
    fresh.versions["extra"] = "extra 2"
    fresh.make("extra", "a")
    assert fresh.explain()["rows", "a"] == ["extra changed: version extra 1 → extra 2"]


def test_every_cause_is_told_and_the_parts_of_the_recipe(empty: Graph) -> None:
    empty.settings = {"selection": {"budgets": {"math": 1000}, "policy": "top_k"}, "seed": 1}
    empty.make_all()
    empty.settings, empty.code, empty.root = {"selection": {"budgets": {"math": 2000}, "policy": "top_k"}}, "2", "m2"
    empty.make("model")
    assert empty.explain()["rows", "b"] == [
        "seed 1 → unset",
        "selection.budgets.math 1000 → 2000",
        "code version of rules 1 → 2",
        "model changed: version m1 → m2",
    ]


def test_what_an_earlier_release_did_not_record_is_said(fresh: Graph) -> None:
    fresh.code = "2"
    assert fresh.explain()["rows", "a"] == ["recipe or code (not recorded which): code version 1 → 2"]
    fresh.settings = {"seed": 1}  # recorded from now on, but not by what was made before
    assert fresh.explain()["rows", "a"] == ["recipe or code (not recorded which): code version 1 → 2"]


def test_no_more_batches_than_these_are_looked_up(empty: Graph) -> None:
    names = [f"batch {number:02d}" for number in range(NUM_LOOKED_UP + 3)]
    for name in names:
        empty.land(name)
    empty.make_all()
    for name in names:
        tags = {"dagster/data_version": "2", "dagster/code_version": "1", "dagster/input_data_version/model": "m1"}
        empty.instance.report_runless_asset_event(dg.AssetMaterialization("rows", partition=name, tags=tags))
    message = empty.explain()["total", None]
    assert message[0] == "rows of batch batch 00: version batch 00 1 → 2"
    assert message[-1] == "rows of 3 more batches: made since"
    assert len(message) == NUM_LOOKED_UP + 1
