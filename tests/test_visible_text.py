"""No character of others acts on a terminal: each that nobody would see is shown as its escape."""

import ast
import json
import unicodedata
from pathlib import Path

import pytest
from conftest import Project
from hypothesis import given
from hypothesis import strategies as st
from unfriendly import HOST, NAME, hostile_rows, hostile_texts, malformed_rows

import dasd_assets
from dasd_assets.cli import main
from dasd_assets.records.quarantine import quarantine_batch
from dasd_resources.json_text import json_text
from dasd_resources.visible_text import HIDDEN, excerpt_line, show_message, unlinked, visible, visible_page


def hidden(text: str) -> set[str]:
    return {char for char in text if unicodedata.category(char) in HIDDEN} - {"\n"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain text, 5 < 6", "plain text, 5 < 6"),
        ("Größe 名前 👍 e\u0301 \xa0\u3000", "Größe 名前 👍 e\u0301 \xa0\u3000"),
        ("\x1b[31mred\x1b[0m", "\\x1b[31mred\\x1b[0m"),
        ("\x9b2J \x7f \r \n \t", "\\x9b2J \\x7f \\r \\n \\t"),
        ("\u202etxt\u200b\ufeff\u2028", "\\u202etxt\\u200b\\ufeff\\u2028"),
        ("\U000e0041", "\\U000e0041"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_nobody_sees_is_escaped(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_nothing_hidden_is_left(text: str) -> None:
    assert not hidden(visible_page(text))
    assert "\n" not in visible(text)
    assert "://" not in unlinked(text)
    assert len(excerpt_line(text, 10)) <= 10


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_is_escaped_without_loss(value: object) -> None:
    assert not hidden(json_text(value))
    assert json.loads(json_text(value)) == value


def test_further_lines_of_a_message_look_like_no_message_of_ours(capsys: pytest.CaptureFixture[str]) -> None:
    show_message("12:00:00 one\n12:00:01 done")
    assert capsys.readouterr().out == "12:00:00 one\n    12:00:01 done\n"


@pytest.fixture
def unfriendly(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Hostile prompts and a quarantined batch."""
    project.land(NAME, [*hostile_rows("http://" + HOST), *malformed_rows("http://" + HOST)])
    project.materialize("held_out_questions,prompts")
    quarantine_batch(project.warehouse, "other-0123456789ab", "\n".join(hostile_texts()), "a step", 3, "a run")
    monkeypatch.setenv("DASD_HOME", str(project.home))
    return project


def test_no_command_prints_what_acts_on_a_terminal(unfriendly: Project, capfd: pytest.CaptureFixture[str]) -> None:
    ids = unfriendly.read("SELECT prompt_id FROM prompts")["prompt_id"].to_list()
    commands = [
        ["sql", "FROM prompts"],
        ["sql", "FROM prompts", "--json"],
        ["sql", "SELECT reason, source_file FROM rejected_prompts"],
        ["sql", "SELECT [question] AS asked, {'a': domain} AS named, question AS \"\x1b[31m\" FROM prompts"],
        ["sql", "SELECT * FROM prompts WHERE \x1b[31m\u202e"],
        ["quarantine"],
        ["quarantine", "--json"],
        ["quarantine", "--release", "\x1b[31m"],
        ["check", "--quick"],
        ["check", "--quick", "--json"],
        *[["audit", "prompt", key] for key in ids],
        ["audit", "prompt", ids[0], "--json"],
        ["audit", "prompt", "\x1b[31m"],
    ]
    for command in commands:
        main(command)
        out, err = capfd.readouterr()
        assert (hidden(out), hidden(err)) == (set(), set()), command
        assert out or err


def test_a_cell_of_many_lines_is_one_line_of_the_table(unfriendly: Project, capsys: pytest.CaptureFixture[str]) -> None:
    main(["sql", "SELECT question FROM prompts"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == unfriendly.count("prompts") + 7  # shape, frame, name, dashes, type


def test_nothing_else_writes_to_the_terminal() -> None:
    root = Path(str(dasd_assets.__file__)).parent
    found = [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "sys.stdout.write", "sys.stderr.write")
    ]
    assert found == []
