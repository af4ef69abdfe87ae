"""What `dasd sql` prints and writes: texts whole, unless the terminal is narrow; files whole, or none."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shared_stores import Storage

from dasd_assets.cli import main
from dasd_assets.commands.sql import _ends, _show_json, _write_csv
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


def test_the_first_and_the_last_rows_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for num_rows, shown in (
        (200, list(map(str, range(200)))),
        (201, [*map(str, range(100)), "…", *map(str, range(101, 201))]),
        (9999, [*map(str, range(100)), "…", *map(str, range(9899, 9999))]),
    ):
        assert main(["sql", f"FROM range({num_rows})"]) == 0
        shape, *lines = capsys.readouterr().out.splitlines()
        assert shape == f"shape: ({num_rows:_}, 1)"
        assert [line.strip("│ ") for line in lines if line.startswith("│")][3:] == shown


@pytest.mark.parametrize("consume", [_ends, _show_json, partial(_write_csv, file=Path(os.devnull))])
def test_a_result_is_held_a_part_at_a_time(consume: Callable[[pa.RecordBatchReader], object]) -> None:
    """40 parts of a megabyte each."""
    before, held = pa.total_allocated_bytes(), list[int]()

    def parts() -> Iterator[pa.RecordBatch]:
        for _ in range(40):
            yield pa.record_batch({"t": ["x" * 1000] * 1000})
            held.append(pa.total_allocated_bytes() - before)

    consume(pa.RecordBatchReader.from_batches(pa.schema({"t": pa.string()}), parts()))
    assert len(held) == 40 and max(held) < 10_000_000


def test_json_is_one_array_of_all_rows(capsys: pytest.CaptureFixture[str]) -> None:
    for num_rows in (0, 1, 5000):
        assert main(["sql", f"SELECT range AS i, '[é]' AS t FROM range({num_rows})", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == [{"i": i, "t": "[é]"} for i in range(num_rows)]


def test_an_error_in_the_middle_leaves_the_array_open(capsys: pytest.CaptureFixture[str]) -> None:
    query = "SELECT CASE WHEN range = 9000 THEN error('so far') ELSE range END AS i FROM range(10000)"
    assert main(["sql", query, "--json"]) == 1
    assert not capsys.readouterr().out.rstrip().endswith("]")


@pytest.mark.parametrize("option", ["--csv", "--parquet"])
def test_an_error_in_the_middle_leaves_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    query = "SELECT CASE WHEN range = 900000 THEN error('so far') ELSE range END AS i FROM range(1000000)"
    assert main(["sql", query, option, str(tmp_path / "rows")]) == 1
    err = capsys.readouterr().err
    assert ("so far" in err or "Interrupted" in err) and os.listdir(tmp_path) == ["home"]


def test_a_parquet_file_has_row_groups_of_like_size(tmp_path: Path) -> None:
    """Of 82 and 18 MB: five parts of 2,048 rows."""
    file = tmp_path / "rows.parquet"
    assert main(["sql", "SELECT repeat('x', 10000) AS t FROM range(10000)", "--parquet", str(file)]) == 0
    groups = pq.read_metadata(file)
    assert [groups.row_group(n).num_rows for n in range(groups.num_row_groups)] == [8192, 1808]


@pytest.mark.parametrize("option", ["--csv", "--parquet"])
def test_a_result_without_rows_has_its_columns(tmp_path: Path, option: str) -> None:
    file = tmp_path / "rows"
    assert main(["sql", "SELECT 1 AS a, [2] AS b WHERE false", option, str(file)]) == 0
    assert (pl.read_csv if option == "--csv" else pl.read_parquet)(file).columns == ["a", "b"]


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
