"""What `dasd sql` prints and writes: texts whole, unless the terminal is narrow; files whole, or none."""

import json
import os
import sys
from pathlib import Path

import polars as pl
import pytest
from shared_stores import Storage

from dasd_assets.cli import main
from dasd_resources.storage.lake import Lake

LONG = "SELECT repeat('word ', 100) || 'the end' AS text, 1 AS number"
NESTED = "SELECT 1 AS a, [1, NULL] AS l, {'k': 'é'} AS s, '\\xFF'::BLOB AS b, NULL::INT[] AS n, 'x,\"y\n' AS t"


@pytest.fixture(autouse=True)
def home(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = storage.begin(tmp_path / "home")
    Lake(home=str(home)).migrate()
    monkeypatch.setenv("DASD_HOME", str(home))
    return home


def on_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))


def test_a_text_is_whole_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", LONG]) == 0
    out, err = capsys.readouterr()
    assert "word the end" in out and err == ""


@pytest.mark.parametrize(("columns", "whole"), [(600, True), (80, False), (10, False)])
def test_a_text_ends_where_a_terminal_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, whole: bool
) -> None:
    on_terminal(columns, monkeypatch)
    assert main(["sql", LONG]) == 0
    out, err = capsys.readouterr()
    assert ("the end" in out) == whole == (err == "")
    if columns == 80:
        assert 76 <= max(map(len, out.splitlines())) <= 80
    assert whole or "--csv FILE, --parquet FILE or --json has all" in err


def test_what_has_no_text_fits_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    on_terminal(5, monkeypatch)
    assert main(["sql", "SELECT 1 AS number WHERE false"]) == 0
    assert capsys.readouterr().err == ""


def test_a_name_is_whole_where_its_texts_are_shorter(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "SELECT 'x' AS a_column_of_a_long_name, 1 AS another_long_name"]) == 0
    assert "a_column_of_a_long_name ┆ another_long_name" in capsys.readouterr().out


def test_rows_that_are_not_shown_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sql", "FROM range(1234)"]) == 0
    assert "200 of 1,234 rows are shown" in capsys.readouterr().err


@pytest.mark.storage
def test_files_hold_every_row_and_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    parquet, csv = tmp_path / "rows.parquet", tmp_path / "rows.csv"
    assert main(["sql", "SELECT range AS i, repeat('é', 500) AS t FROM range(1234)", "--parquet", str(parquet)]) == 0
    rows = pl.read_parquet(parquet)
    assert rows["i"].to_list() == list(range(1234)) and set(rows["t"]) == {"é" * 500}
    assert capsys.readouterr() == ("", f"1,234 rows in {parquet}\n")
    assert main(["sql", NESTED, "--csv", str(csv)]) == 0
    [row] = pl.read_csv(csv).to_dicts()
    assert {**row, "l": json.loads(row["l"]), "s": json.loads(row["s"])} == {
        "a": 1,
        "l": [1, None],
        "s": {"k": "é"},
        "b": "ff",
        "n": None,
        "t": 'x,"y\n',
    }
    assert main(["sql", NESTED, "--parquet", str(parquet)]) == 0
    assert pl.read_parquet(parquet)["l"].to_list() == [[1, None]]


@pytest.mark.storage
def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("before")
    assert main(["sql", "SELECT nothing", "--csv", str(tmp_path / "rows.csv")]) == 1
    assert (tmp_path / "rows.csv").read_text() == "before"
    assert main(["sql", "SELECT 1", "--csv", str(tmp_path / "absent" / "rows.csv")]) == 1
    assert sorted(os.listdir(tmp_path)) == ["home", "rows.csv"]
