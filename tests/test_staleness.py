"""What is out of date, on a small graph: model -> rows (per batch) -> total (reads all batches) -> page."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import dagster as dg
import pytest

from dasd_assets.partitions import PROMPT_BATCH, batches
from dasd_assets.staleness import batches_tag, batches_version, stale_assets


@dataclass
class Graph:
    """The small graph over an instance; `versions` are the data versions its assets come to have, `code` of rows."""

    instance: dg.DagsterInstance
    versions: dict[str, str] = field(default_factory=dict)
    code: str = "1"
    root: str = "m1"
    widened: bool = False  # with an asset per batch between model and rows that was not there before

    @property
    def definitions(self) -> dg.Definitions:
        def result(name: str, tags: Mapping[str, str] | None = None) -> dg.MaterializeResult:
            return dg.MaterializeResult(data_version=dg.DataVersion(self.versions.get(name, f"{name} 1")), tags=tags)

        @dg.asset
        def model() -> dg.MaterializeResult:
            return dg.MaterializeResult(data_version=dg.DataVersion(self.root))

        @dg.asset(partitions_def=PROMPT_BATCH, deps=[model])
        def extra(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            return result("extra")

        @dg.asset(partitions_def=PROMPT_BATCH, deps=[model, *[extra] * self.widened], code_version=self.code)
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

    @property
    def stale(self) -> list[tuple[str, str | None, str]]:
        found = stale_assets(self.instance, self.definitions, batches(self.instance), {"model": self.root})
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
