"""The declared tables hang together, and whatever is said of a table follows its one entry."""

import pkgutil
from dataclasses import replace
from importlib import import_module

import pytest
from conftest import Project

from dasd_assets.commands.summary import summary
from dasd_assets.records.code_versions import CodeVersion
from dasd_assets.records.table_metadata import TableAsset
from dasd_assets.rules.typed_ids import KINDS, UNAUDITED
from dasd_resources.storage import tables
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.tables import TABLES, Column, Reference, Table, TableError, check, declared, owned_by
from dasd_resources.storage.tables.recurring import BATCH, LOGPROBS, OFFSETS, RESPONSE_ID, RUN_ID, TOKEN_IDS
from dasd_resources.storage.tables_page import PAGE, page

MARKS = Table(
    name="marks",
    one_row_per="marked response",
    columns=(
        RESPONSE_ID.of("responses.response_id"),
        BATCH.of("responses.batch"),
        Column("mark", "DOUBLE", "How good it is.", ("responses.text",)),
        TOKEN_IDS,
        LOGPROBS,
        OFFSETS,
        RUN_ID,
    ),
    key=("response_id",),
    references=(Reference(("response_id", "batch"), "responses"),),
    owner="responses",
    partitioned_by_batch=True,
)


def test_they_hang_together() -> None:
    check(TABLES)


def test_every_table_of_a_module_is_one_of_its_tables() -> None:
    """A table that is written down, and left out of its module's TABLES, would be nowhere."""
    modules = [import_module(info.name) for info in pkgutil.iter_modules(tables.__path__, f"{tables.__name__}.")]
    written = {value.name for module in modules for value in vars(module).values() if isinstance(value, Table)}
    assert written == set(TABLES)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (replace(MARKS, key=()), "marks has no key"),
        (replace(MARKS, key=("id",)), "the key of marks names id, which marks lacks; it has response_id, batch, mark"),
        (replace(MARKS, shown=("response", "mark")), "that are shown names response, which marks lacks"),
        (replace(MARKS, named_by=("id",)), "named_by of marks names id"),
        (replace(MARKS, columns=(*MARKS.columns, BATCH)), "marks declares a column twice"),
        (
            replace(MARKS, references=(Reference(("batch",), "batches"),)),
            "names the table 'batches'; there are prompts",
        ),
        (replace(MARKS, references=(Reference(("mark",), "responses"),)), "names mark, which responses lacks"),
        (replace(MARKS, references=(Reference(("mark",), "responses", ("text", "batch")),)), "pairs"),
        (
            replace(MARKS, columns=(*MARKS.columns, Column("x", "DOUBLE", "x", ("responses.mark",)))),
            "a source of marks.x names mark, which responses lacks",
        ),
        (replace(MARKS, owner=None), "marks has a batch and response_id in its key, but no owner"),
        (replace(MARKS, owner="sft_examples"), "the owner of marks names batch, which sft_examples lacks"),
        (replace(MARKS, owner="response_verdicts"), "owns rows of marks, so its key must be one column"),
        (
            replace(MARKS, columns=MARKS.columns[1:], key=("mark",), references=()),
            "the owner of marks names response_id",
        ),
        (replace(MARKS, name="other"), "the entry 'marks' holds the table 'other'"),
    ],
)
def test_a_name_that_is_not_there_is_an_error(wrong: Table, message: str) -> None:
    with pytest.raises(TableError, match=message):
        check({**TABLES, "marks": wrong})


def test_a_column_means_something_and_none_shown_is_private() -> None:
    for table in TABLES.values():
        assert table.one_row_per
        assert table.has("run_id")
        assert all(column.meaning.endswith(".") or column.meaning.endswith("…") for column in table.columns)
        assert not set(table.shown) & {"system_prompt", "metadata", "path"}


def test_they_are_those_of_a_real_catalog(finished: Project) -> None:
    query = """SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns()
        WHERE database_name = 'dasd' AND table_name <> 'schema_version'
            AND table_name IN (SELECT table_name FROM duckdb_tables() WHERE database_name = 'dasd')
        ORDER BY table_oid, column_index"""
    actual: dict[str, list[tuple[str, str, bool]]] = {}
    for name, *column in finished.read(query).iter_rows():
        actual.setdefault(name, []).append(tuple(column))
    assert {name: [(c.name, c.type, c.nullable) for c in table.columns] for name, table in TABLES.items()} == actual


def test_what_belongs_to_a_question() -> None:
    owned = ["prompt_merges", "asked_prompts", "question_bands", "responses"]
    assert [table.name for table in owned_by("prompts")] == owned
    of_a_response = [table for table in TABLES.values() if table.has("batch") and "response_id" in table.key]
    assert [TABLES["responses"], *owned_by("responses")] == of_a_response
    assert {"student_tokens", "response_verdicts", "student_logprobs", "response_scores"} <= {
        table.name for table in owned_by("responses")
    }


def test_ids_are_looked_for_in_declared_columns() -> None:
    for kind in (*KINDS.values(), *UNAUDITED.values()):
        for name, column in kind.places:
            assert declared(name).has(column)


def test_the_page_in_the_docs_is_the_generated_one() -> None:
    assert PAGE.read_text() == page(), "docs/tables.md is outdated: run `python -m dasd_resources.storage.tables_page`"


def test_an_entry_is_all_that_a_new_table_needs(copy: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a home that was finished without it."""
    copy.read("SELECT 1")
    monkeypatch.setitem(TABLES, "marks", MARKS)
    # It is created, and empty.
    assert copy.count("marks") == 0
    response = copy.read("SELECT response_id, batch FROM responses LIMIT 1").with_columns(
        token_ids=[1, 2], logprobs=[-0.5, 0.5], offsets=[0, 1], mark=0.5
    )
    with copy.warehouse.commit("test") as transaction:
        assert transaction.append_missing("marks", response, response["batch"].item()) == 1
        assert transaction.append_missing("marks", response, response["batch"].item()) == 0
        transaction.read("INSERT INTO marks SELECT * FROM marks")
        transaction.read(
            "INSERT INTO marks SELECT * REPLACE ('nobody' AS response_id, [1] AS offsets) FROM marks LIMIT 1"
        )
    # It is checked.
    found = "\n".join(str(fault) for fault in copy.faults("keys of marks", "rows of marks", "marks.response_id, batch"))
    name = response["response_id"].item()
    assert f"marks {name}: there are 2 rows of this key" in found
    assert f"marks response_id nobody batch {response['batch'].item()}: responses has no such row" in found
    assert f"marks {name}: it has a logprob that is above 0 or not finite" in found
    assert "marks nobody: its token ids, logprobs and offsets differ in number" in found
    # It is described, with its lineage and where each row comes from, and counted.
    marks = TableAsset("marks", {"responses": "a"}, CodeVersion({}, {}))
    columns = {column.name: column for column in marks.definition["dagster/column_schema"].columns}
    assert columns["mark"].description == "How good it is. ← [a](/assets/a) `text`"
    assert copy.read("SELECT count(*) FROM lineage_runs WHERE table_name = 'marks'").item() == 3
    with copy.instance() as instance:
        assert "  marks                            3" in summary(
            instance, copy.definitions, copy.warehouse, copy.engines, copy.recipe
        )
    assert "| `mark` | DOUBLE | How good it is. |" in page()
    # Its rows follow their response to another batch.
    with copy.warehouse.commit("test") as transaction:
        transaction.move_to_batch("responses", [name], "elsewhere")
    assert copy.read("SELECT DISTINCT batch FROM marks WHERE response_id <> 'nobody'").item() == "elsewhere"


def test_an_entry_is_in_a_new_catalog(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLES, "marks", MARKS)
    fresh = Lake(str(project.home / "fresh"))
    assert fresh.read("SELECT count(*) FROM marks").item() == 0
    assert fresh.read("SELECT count(*) FROM lineage_runs").item() == 0
