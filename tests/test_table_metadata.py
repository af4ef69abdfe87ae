"""What the web UI shows of a table: columns, links to where they come from, figures, rows that no text can break."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
import polars as pl
import pytest
from conftest import Project

from dasd_assets.definitions import build_definitions
from dasd_assets.records.code_versions import CodeVersion
from dasd_assets.records.declaration import VIEWER_PAGES
from dasd_assets.records.markdown import viewer_link
from dasd_assets.records.table_metadata import NUM_SAMPLES, TEXT, VIEWER_LINK, TableAsset, tidy
from dasd_assets.viewer.app import PAGES
from dasd_resources.home import VIEWER
from dasd_resources.storage.tables import declared


def test_a_definition_describes_and_links_every_column() -> None:
    asset = TableAsset("response_verdicts", {"responses": ["a", "b"], "prompts": "prompts"}, CodeVersion({}, {}))
    schema = asset.definition["dagster/column_schema"]
    assert isinstance(schema, dg.TableSchema)
    columns = {column.name: column for column in schema.columns}
    assert list(columns) == list(declared("response_verdicts").column_names)
    assert columns["response_id"].description is not None
    assert columns["response_id"].description.endswith("← [a](/assets/a) `response_id`; [b](/assets/b) `response_id`")
    assert columns["filter"].description == "Which [filter](extending.md#filters) judged it (report §6.2)."
    assert not columns["passed"].constraints.nullable
    assert columns["reason"].constraints.nullable


@pytest.mark.parametrize(("value", "shown"), [(0.1234567890123, 0.1235), (1234567.0, 1235000.0), (7, 7), ("a", "a")])
def test_figures_are_tidy(value: float | int | str, shown: float | int | str) -> None:
    assert tidy(value) == shown


def test_every_table_asset_of_a_finished_home_shows_count_rows_and_tidy_figures(finished: Project) -> None:
    with finished.instance() as instance:
        graph = build_definitions(finished.recipe, finished.home).resolve_asset_graph()
        names = [key for key in graph.toposorted_asset_keys if "dagster/table_name" in graph.get(key).metadata]
        for key in names:
            event = instance.get_latest_materialization_event(key)
            assert event is not None
            assert event.asset_materialization is not None
            metadata = event.asset_materialization.metadata
            assert isinstance(metadata["dagster/row_count"].value, int), key
            sample = metadata["sample"].value
            assert isinstance(sample, dg.TableMetadataValue), key
            table = str(graph.get(key).metadata["dagster/table_name"]).removeprefix("dasd.").partition(" ")[0]
            columns, numbers = tuple(column.name for column in sample.schema.columns), declared(table).sample_columns
            assert columns in (numbers, (*numbers, TEXT))
            assert len(sample.records) <= NUM_SAMPLES
            for value in metadata.values():
                assert not isinstance(value.value, float) or len(f"{value.value:g}") <= 8
    others = {key.to_user_string() for key in graph.toposorted_asset_keys if key not in names}
    pages = {"answer_provenance", "leaderboard", "distillation_report"}
    assert others == {*pages, "published_dataset", "maintenance"}  # which are no tables


def test_every_asset_leads_to_a_page_of_the_viewer(finished: Project) -> None:
    graph = build_definitions(finished.recipe, finished.home).resolve_asset_graph()
    found = {key.to_user_string(): graph.get(key).metadata.get(VIEWER_LINK) for key in graph.toposorted_asset_keys}
    assert found.pop("maintenance") is None
    assert {str(link and link.value) for link in found.values()} <= {
        f"{VIEWER}/{page}" for page in VIEWER_PAGES.values()
    }
    assert {f"/{page}" for page in VIEWER_PAGES.values()} <= set(PAGES)


def test_rows_lead_to_their_own_page() -> None:
    asset, none = TableAsset("checkpoints", {}, CodeVersion({}, {})), NoRows()
    for rows, page in (
        ({"batch": "a b"}, "explore?batch=a+b"),
        ({"checkpoint_id": "6bdc", "recipe": "demo"}, "checkpoint/6bdc"),
        ({"recipe": "demo", "dataset": "t060", "policy": "das"}, "explore?chosen=t060"),
    ):
        link = asset.result(none, 0, rows)[VIEWER_LINK]  # type: ignore[arg-type]
        assert isinstance(link, dg.UrlMetadataValue)
        assert link.value == f"{VIEWER}/{page}"
    assert VIEWER_LINK not in asset.result(none, 0, {"recipe": "demo"})  # type: ignore[arg-type]


def test_the_viewer_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DASD_VIEWER", "https://viewer.example/dasd/")
    assert viewer_link("explore", batch="a b").value == "https://viewer.example/dasd/explore?batch=a+b"


class NoRows:
    """A warehouse in which nothing is."""

    @contextmanager
    def reading(self) -> Iterator["NoRows"]:
        yield self

    def read(self, query: str, params: object = None) -> pl.DataFrame:
        return pl.DataFrame({"count": [0]}) if "count(*)" in query else pl.DataFrame()


def test_no_plot_outgrows_the_event_log(finished: Project) -> None:
    with finished.instance() as instance:
        plots = [
            str(value.value)
            for key in instance.all_asset_keys()
            if (event := instance.get_latest_materialization_event(key)) and event.asset_materialization
            for value in event.asset_materialization.metadata.values()
            if re.match(r"!\[plot\]\(data:image/png;base64,", str(value.value))
        ]
    assert len(plots) > 12
    assert max(len(plot) for plot in plots) < 20_000
