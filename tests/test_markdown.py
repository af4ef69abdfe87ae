"""Text of others in Markdown is code, and in tables plain text; nowhere else is Markdown made of anything."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from conftest import Project, change
from unfriendly import BAIT, HOST, NAME, UnfriendlyProject, hostile_rows, hostile_texts, malformed_rows

import dasd_assets
from dasd_assets.records.markdown import CELL_CHARS, REASON_CHARS, cell, code, codes, table

SPAN = re.compile(r"(?<!`)(`+)(?!`)(?:.*?[^`])??\1(?!`)")  # a code span, as CommonMark reads one line


def active(markdown: str) -> str:
    """What remains of a line of Markdown without its code spans."""
    return SPAN.sub("", markdown)


@pytest.mark.parametrize("text", [*hostile_texts(), "", " ", "`", "``", "\\", "a`", "`a", "a ``` b", " a ", "|", "\n"])
def test_code_is_one_span_on_one_line_whatever_is_in_it(text: str) -> None:
    shown = code(text)
    assert shown.isprintable()
    assert active(f"before {shown} between {shown} after") == "before  between  after"
    assert re.fullmatch(r"(`+)[^`](.*[^`])?\1", shown)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a | b \\| c", "`a | b \\| c`"),
        ("<script>alert(1)</script>", "`<script>alert(1)</script>`"),
        ("`code`", "`` `code` ``"),
        ("a ``` b", "````a ``` b````"),
        ("one\n\ntwo", "`one\\n\\ntwo`"),
        ("bell\x07 and \u202e", "`bell\\x07 and \\u202e`"),
    ],
)
def test_code_shows_a_text_as_it_is(text: str, shown: str) -> None:
    assert code(text) == shown


def test_reasons_are_cut_and_apart() -> None:
    assert codes(["a", "`b`"]) == "`a`; `` `b` ``"
    assert codes([]) == ""
    assert len(codes(["long " * 1000])) == REASON_CHARS + 2


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "–"),
        ("", ""),
        (" \n ", " \\n "),
        (True, True),
        (7, 7),
        (0.123456789, "0.1235"),
        ("a" * 32, "aaaaaaaaaaaa…"),
        ("a | b", "a | b"),
        ("one\n\ntwo", "one two"),
        ("bell\x07 and \u202e", "bell\\x07 and \\u202e"),
        ([1, 2, 3, 4, 5, 6], "6 × [1, 2, 3, 4, …]"),
        ([0.25], "[0.25]"),
        ("word " * 100, f"{('word ' * 100)[: CELL_CHARS - 1]}…"),
    ],
)
def test_a_cell_is_short_and_visible(value: object, shown: object) -> None:
    assert cell(value) == shown


def test_a_table_names_its_columns_without_rows_too() -> None:
    empty, full = table(["a", "b"], []), table(["a"], [{"a": 1, "b": 2}])
    assert [column.name for column in empty.schema.columns] == ["a", "b"]
    assert [record.data for record in full.records] == [{"a": 1}]


MAKERS = {"md", "MarkdownMetadataValue", "url", "UrlMetadataValue", "notebook", "NotebookMetadataValue"}


def test_no_other_module_makes_markdown_or_links() -> None:
    root = Path(str(dasd_assets.__file__)).parent
    found = {
        f"{path.relative_to(root)}:{node.lineno}"
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in MAKERS
    }
    assert {place.partition(":")[0] for place in found} == {"records/markdown.py"}


def test_the_search_for_active_text_sees_what_ends_a_span() -> None:
    assert active("`a` ![x](y)") == " ![x](y)"
    assert active("`a ` ![x](y)`") == " ![x](y)`"
    assert active("`` a ` b `` c") == " c"


def markdown_of(project: Project) -> Iterator[tuple[str, str]]:
    """Every Markdown value and description of the events and definitions of a home."""
    with project.instance() as instance:
        records = instance.event_log_storage.get_event_records(
            dg.EventRecordsFilter(dg.DagsterEventType.ASSET_MATERIALIZATION)
        )
        checks = instance.event_log_storage.get_event_records(
            dg.EventRecordsFilter(dg.DagsterEventType.ASSET_CHECK_EVALUATION)
        )
    for record in [*records, *checks]:
        event = record.event_log_entry.dagster_event
        assert event is not None
        is_check = event.event_type_value == "ASSET_CHECK_EVALUATION"
        said = event.asset_check_evaluation_data if is_check else event.step_materialization_data.materialization
        assert said is not None
        yield str(said.asset_key), said.description or ""
        for name, value in said.metadata.items():
            if isinstance(value, dg.MarkdownMetadataValue):
                yield f"{said.asset_key} {name}", value.md_str or ""


def test_all_markdown_of_a_home_holds_what_others_wrote_as_code(project: Project) -> None:
    project.land(NAME, [*hostile_rows(BAIT), *malformed_rows(BAIT)])
    recipe = change(project.recipe, "generation.max_tokens", 900)
    unfriendly = UnfriendlyProject(project.home, recipe, warns=True)
    unfriendly.fake.fails = lambda request_id: request_id[-1] in "048"
    unfriendly.materialize("held_out_questions,prompts,teacher_generations_t060")
    found = list(markdown_of(unfriendly))
    assert len(found) > 4
    assert any(HOST in text for _, text in found)  # some of it is there
    assert [(where, text) for where, text in found if HOST in active(text)] == []
