"""The `dasd` command in this process: what it prints, its exit codes, and one sentence where something is amiss."""

import json
import sqlite3
from pathlib import Path

import pytest
import yaml
from conftest import Project
from sqlalchemy.exc import OperationalError

from dasd_assets.cli import main
from dasd_assets.commands import sql


def test_sql_prints_json(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "SELECT count(*) AS n FROM prompts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 15}]


@pytest.mark.parametrize("words", [["ui", "--port", "99999"], ["view", "--port", "0"], ["ui", "--port", "-1"]])
def test_a_port_is_one_that_there_is(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    with pytest.raises(SystemExit):
        main(words)
    assert "argument --port: 1 to 65535" in capsys.readouterr().err


def test_sql_reads_an_earlier_snapshot(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "SELECT count(*) AS n FROM prompts", "--json", "--at", "2"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 0}]


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM prompts",
        "UPDATE prompts SET domain = 'x'",
        "INSERT INTO prompts SELECT * FROM prompts",
        "CREATE TABLE mine(x INT)",
        "DROP TABLE prompts",
        "SELECT 1; DELETE FROM prompts",
    ],
)
def test_sql_refuses_to_write(home: Project, capsys: pytest.CaptureFixture[str], statement: str) -> None:
    before = home.warehouse.snapshot_id()
    assert main(["sql", statement]) == 1
    assert "SELECT" in capsys.readouterr().err
    assert home.warehouse.snapshot_id() == before
    assert home.count("prompts") == 15


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["SELEKT 1"], "syntax error"),
        (["SELECT nothing FROM prompts"], 'Referenced column "nothing" not found'),
        (["SELECT 1", "--at", "99999"], "there is no snapshot 99999: the newest is"),
    ],
)
def test_a_query_at_fault_is_told_without_a_traceback(
    home: Project, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    assert main(["sql", *arguments]) == 1
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("dasd: ")
    assert told in error


def test_sql_prints_a_table(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "SELECT 'één' AS word, [1, 2] AS list"]) == 0
    assert "één" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("SELECT 1 AS a, 2 AS a, 3 AS a_1", [{"a": 1, "a_1": 2, "a_1_1": 3}]),
        ("SELECT INTERVAL 1 DAY AS i, [INTERVAL 2 DAY] AS l", [{"i": "1 day", "l": "[2 days]"}]),
        ("SELECT 'nan'::DOUBLE AS x, ['-infinity'::DOUBLE, 1.5] AS l", [{"x": None, "l": [None, 1.5]}]),
        ("SELECT '\\xFF'::BLOB AS b, DATE '2026-01-02' AS d", [{"b": "ff", "d": "2026-01-02"}]),
    ],
)
def test_whatever_sql_gives_is_json(
    home: Project, capsys: pytest.CaptureFixture[str], query: str, rows: list[dict[str, object]]
) -> None:
    assert main(["sql", query, "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == rows
    assert main(["sql", query]) == 0


def test_damaged_files_are_one_sentence(
    copy: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(copy.recipe.model_dump(mode="json")))
    for file in (copy.home / "dagster" / "history" / "runs.db", copy.home / "dagster" / "dagster.yaml"):
        whole = file.read_bytes()
        file.write_text("a: [b")
        assert main(["audit", "staleness", "--recipe", str(recipe)]) == 1
        assert "`dasd restore` brings a backup back" in capsys.readouterr().err
        file.write_bytes(whole)
    for name in ("fingerprints.sqlite", "dagster/materializations.sqlite"):  # caches only
        (copy.home / name).write_text("a: [b" * 1000)
    assert main(["audit", "staleness", "--recipe", str(recipe)]) == 0


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (sqlite3.SQLITE_FULL, "make room on the disk of "),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "or try again when nothing else is at work there"),
        (sqlite3.SQLITE_CORRUPT, "`dasd restore` brings a backup back"),
    ],
)
def test_a_full_disk_or_a_busy_database_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int, told: str
) -> None:
    def fail(args: object) -> int:
        error = sqlite3.OperationalError("SQLite's words")
        error.sqlite_errorcode = code
        raise OperationalError("INSERT", {}, error)

    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    monkeypatch.setattr(sql, "command", fail)
    assert main(["sql", "SELECT 1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("dasd: (sqlite3.OperationalError) SQLite's words: ")
    assert told in said
    assert ("restore" in said) == (code == sqlite3.SQLITE_CORRUPT)


def test_sql_writes_no_file(home: Project, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["sql", f"COPY (SELECT 1 AS x) TO '{tmp_path / 'x.csv'}'", "--json"]) == 1
    assert "only SELECT is permitted" in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_run_with_an_unknown_asset_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    assert main(["run", "--select", "nonsense"]) == 1
    assert "dasd: --select 'nonsense'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("seed: 42", "seed: 42\nsede: 1", "mine.yaml: sede: "),
        ("seed: 42", "seed: many", "mine.yaml: seed: "),
        ("length_cap: 1.5", "length_cap: 0.5", "mine.yaml: mixed_policy.length_cap: "),
        ("temperatures: [0.6, 1.0]\n  num", "temperatures: [1.0, 0.6]\n  num", "must ascend"),
    ],
)
def test_a_fault_in_a_recipe_names_the_key(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    told: str,
) -> None:
    text = (Path(__file__).parents[1] / "dasd_resources/recipes/demo.yaml").read_text()
    assert old in text
    (tmp_path / "mine.yaml").write_text(text.replace(old, new))
    monkeypatch.setenv("DASD_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DASD_RECIPE", str(tmp_path / "mine.yaml"))
    assert main(["run"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("dasd: ")
    assert told in error
    assert len(error.splitlines()) == 1
    assert not (tmp_path / "home").exists()


def test_sql_without_a_warehouse_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    assert main(["sql", "SELECT 1"]) == 1
    assert "run `dasd run` first" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_bad_recipe_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    assert main(["run", "--recipe", "nope"]) == 2
    assert capsys.readouterr().err.startswith("dasd: no recipe 'nope': ")


def test_a_missing_model_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path / "home"))
    text = (Path(__file__).parents[1] / "dasd_resources/recipes/demo.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("../demo/teacher", "./no-such-folder"))
    for select in ([], ["--select", "teacher_model"]):
        assert main(["run", "--recipe", str(tmp_path / "mine.yaml"), *select]) == 2
        error = capsys.readouterr().err
        assert "teacher.model: no folder" in error
        assert "no-such-folder" in error
