"""What the web UI shows of a table: columns, links to where they come from, figures, rows that no text can break."""

import re

import dagster as dg
import pytest
from conftest import Project

from dasd_assets.definitions import build_definitions
from dasd_assets.records.code_versions import CodeVersion
from dasd_assets.records.table_metadata import CELL_CHARS, INLINE_CHARS, TableAsset, cell, markdown_table, tidy
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


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        ("", "–"),
        (" \n ", "`  ⏎  `"),
        (True, "`True`"),
        (0.123456789, "`0.1235`"),
        ("a" * 32, "`aaaaaaaaaaaa…`"),
        ("<script>alert(1)</script>", "`<script>alert(1)</script>`"),
        ("a | b", "`a \\| b`"),
        ("one\n\ntwo", "`one ⏎ two`"),
        ("`code`", "`` `code` ``"),
        ("a ``` b", "````a ``` b````"),
        ("bell\x07 and \u202e", "`bell� and �`"),
        ([1, 2, 3, 4, 5, 6], "`6 × [1, 2, 3, 4, …]`"),
        ([1], "`[1]`"),
    ],
)
def test_a_cell_is_a_code_span(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_long_text_is_cut() -> None:
    assert cell("word " * 100) == f"`{('word ' * 100)[: CELL_CHARS - 1]}…`"


def test_a_table_is_short_enough_to_be_shown_in_place() -> None:
    rows: list[dict[str, object]] = [dict.fromkeys("abcdef", "long text " * 50)] * 9
    shown = markdown_table(rows)
    assert len(shown) < INLINE_CHARS
    assert shown.splitlines()[:2] == ["| a | b | c | d | e | f |", "| --- | --- | --- | --- | --- | --- |"]
    assert len(shown.splitlines()) > 2
    assert markdown_table([]) == "no rows"


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
            sample = str(metadata["sample"].value)
            assert sample.startswith("| ") or sample == "no rows", key
            assert len(sample) < INLINE_CHARS
            for value in metadata.values():
                assert not isinstance(value.value, float) or len(f"{value.value:g}") <= 8
    others = {key.to_user_string() for key in graph.toposorted_asset_keys if key not in names}
    assert others == {"distillation_report", "maintenance"}  # which are no tables


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
