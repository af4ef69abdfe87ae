import json
from pathlib import Path

import pytest
from conftest import Project

from dasd_assets.cli import main


@pytest.fixture
def home(finished: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    monkeypatch.setenv("DASD_HOME", str(finished.home))
    return finished


def test_sql_prints_json(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "SELECT count(*) AS n FROM prompts", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 15}]


def test_sql_reads_an_earlier_snapshot(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "SELECT count(*) AS n FROM prompts", "--json", "--at", "2"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"n": 0}]


def test_sql_refuses_to_write(home: Project, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "DELETE FROM prompts"]) == 1
    assert "read-only" in capsys.readouterr().err
    assert home.count("prompts") == 15


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
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    text = (Path(__file__).parents[1] / "dasd_resources/recipes/demo.yaml").read_text()
    (tmp_path / "mine.yaml").write_text(text.replace("../demo/teacher", "./no-such-folder"))
    assert main(["run", "--recipe", str(tmp_path / "mine.yaml")]) == 2
    error = capsys.readouterr().err
    assert "teacher.model" in error
    assert "no-such-folder" in error
