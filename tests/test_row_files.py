"""Rows of files: line ends, bounds, and what is read before damage."""

import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dasd_resources.landing.row_files.formats import read_rows
from dasd_resources.landing.row_files.lines import line_rows
from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES, DamagedFile, FileRow

FLIPPED = (92, 94)
READ = """import sys; from pathlib import Path
from dasd_resources.landing.row_files.formats import read_rows
from dasd_resources.landing.row_files.rows import DamagedFile
try: print(len(list(read_rows(Path(sys.argv[1])))))
except DamagedFile as error: print(error)"""
ANY_TMP = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def until_damage(path: Path) -> list[str]:
    rows = []
    with pytest.raises(DamagedFile):
        for row in read_rows(path):
            rows.append(row.text)
    return rows


@given(st.binary(max_size=300), st.integers(1, 40))
@settings(deadline=None)
def test_lines_do_not_depend_on_chunks_and_each_non_blank_one_is_one_row(content: bytes, size: int) -> None:
    chunks = [content[i : i + size] for i in range(0, len(content), size)]
    rows = list(line_rows(chunks))
    assert rows == list(line_rows([content]))
    body = content.removeprefix(b"\xef\xbb\xbf")
    assert [row.line for row in rows] == [i for i, line in enumerate(body.split(b"\n"), 1) if line.strip()]


def test_byte_order_mark_blank_lines_and_carriage_returns(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b"\xef\xbb\xbf{}\r\n\r\n  \n[1]")
    assert list(read_rows(path)) == [FileRow(1, "{}\r"), FileRow(4, "[1]")]


def test_an_overlong_line_is_rejected_with_its_length_and_the_next_is_read(tmp_path: Path) -> None:
    content = b"x" * 10_000_000 + b"\n{}\n" + b"y" * MAX_ROW_BYTES + b"\n" + b"z" * (MAX_ROW_BYTES + 1)
    rows = list(read_rows(written(tmp_path / "a.jsonl", content)))
    assert [(row.line, row.unreadable and row.unreadable.message[:22]) for row in rows] == [
        (1, "row has 10000000 bytes"),
        (2, None),
        (3, None),
        (4, "row has 1048577 bytes,"),
    ]


def test_wrong_encoding_names_the_byte(tmp_path: Path) -> None:
    rows = list(read_rows(written(tmp_path / "a.jsonl", "{}\ncafé\n{}".encode("latin-1"))))
    assert [row.unreadable and row.unreadable.message for row in rows] == [
        None,
        "not UTF-8 at byte 3: 'caf\ufffd'",
        None,
    ]


def test_zstd_rows_before_a_cut_are_read(tmp_path: Path) -> None:
    lines = [json.dumps({"question": f"{i} " + "q" * 50}) for i in range(20_000)]
    whole = zstd("\n".join(lines).encode())
    assert [row.text for row in read_rows(written(tmp_path / "a.jsonl.zst", whole))] == lines
    rows = until_damage(written(tmp_path / "a.jsonl.zst", whole[:-100]))
    assert len(rows) > 10_000
    assert rows[:-1] == lines[: len(rows) - 1]


def test_zstd_rows_of_whole_frames_survive_damage_after_them(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl.zst", zstd(b"{}\n[1]\n") + zstd(b"[2]\n") + b"no frame")
    assert until_damage(path) == ["{}", "[1]", "[2]"]


def test_parquet_rows_are_json_lines_in_order(tmp_path: Path) -> None:
    table = pa.table({"question": ["a", None, "é"], "metadata": [{"k": 1}, None, {"k": None}]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert [(row.line, json.loads(row.text)) for row in read_rows(tmp_path / "a.parquet")] == [
        (1, {"question": "a", "metadata": {"k": 1}}),
        (2, {"question": None, "metadata": None}),
        (3, {"question": "é", "metadata": {"k": None}}),
    ]


def test_parquet_values_without_a_json_form_are_faults_of_their_row(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffa")]
    )
    pq.write_table(pa.table({"question": bad}), tmp_path / "a.parquet")
    first, second = read_rows(tmp_path / "a.parquet")
    assert first.unreadable and "utf-8" in first.unreadable.message
    assert second.text == '{"question": "a"}'
    pq.write_table(pa.table({"x": [2.0, 1.0], "y": [b"b", None]}), tmp_path / "b.parquet")
    first, second = read_rows(tmp_path / "b.parquet")
    assert first.unreadable and "row has no JSON form" in first.unreadable.message
    assert json.loads(second.text) == {"x": 1.0, "y": None}


def test_parquet_columns_of_other_types_are_text(tmp_path: Path) -> None:
    noon, price = datetime(2026, 1, 2, 12), Decimal("1.50")
    table = pa.table({"question": ["a"], "at": [noon], "price": [price], "score": [[float("nan"), 1.0]]})
    pq.write_table(table, tmp_path / "a.parquet")
    [row] = read_rows(tmp_path / "a.parquet")
    assert json.loads(row.text) == {
        "question": "a",
        "at": "2026-01-02T12:00:00",
        "price": "1.50",
        "score": [None, 1.0],
    }


def test_blank_lines_cost_nothing_and_count(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\n" * 3_000_000 + b"{}")
    assert [row.line for row in read_rows(tmp_path / "a.jsonl")] == [3_000_001]


def test_a_line_without_end_is_read_in_bounded_memory(tmp_path: Path) -> None:
    with (tmp_path / "a.jsonl").open("wb") as file:
        file.truncate(2**28)
    assert sum(peak_bytes(tmp_path / "a.jsonl")) < 8 * MAX_ROW_BYTES


@pytest.mark.parametrize("piece", [b"\n", b"x", b'{"question": "a"}\n'], ids=["blank lines", "one line", "good lines"])
def test_a_zstd_bomb_is_damaged_and_given_up_early(tmp_path: Path, piece: bytes) -> None:
    path = written(tmp_path / "a.jsonl.zst", zstd(piece * (2**24 // len(piece))))
    with pytest.raises(DamagedFile, match="unpacks to more than 1000 times its size"):
        peak_bytes(path, limit=8 * MAX_ROW_BYTES)


def one_long_text() -> pa.Array:
    return pa.array(["x" * 2**25])


def a_text_that_every_row_repeats() -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * 1000, pa.int32()), pa.array(["x" * 2**19]))


def nulls() -> pa.Array:
    return pa.nulls(20_000_000, pa.string())


def a_long_list_of_nothing() -> pa.Array:
    return pa.ListArray.from_arrays([0, 20_000_000], pa.nulls(20_000_000, pa.int64()))


@pytest.mark.parametrize("make", [one_long_text, a_text_that_every_row_repeats, nulls, a_long_list_of_nothing])
def test_a_parquet_bomb_is_damaged_and_given_up_early(tmp_path: Path, make: Callable[[], pa.Array]) -> None:
    pq.write_table(pa.table({"question": make()}), tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(DamagedFile, match="unpacks to more than 1000 times its size"):
        peak_bytes(tmp_path / "a.parquet", limit=16 * MAX_ROW_BYTES)


def test_a_parquet_row_that_is_too_long_is_never_made_a_text(tmp_path: Path) -> None:
    noise = Random(0).randbytes(2**22).hex()  # so that the file is no bomb
    table = pa.table({"question": [noise, "b"], "n": [[1], list(range(2**21 + 1))]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd")
    first, second = read_rows(tmp_path / "a.parquet")
    for row in (first, second):
        assert row.unreadable is not None and row.unreadable.kind == "row_too_long"
    assert peak_bytes(tmp_path / "a.parquet")[0] < MAX_ROW_BYTES


def peak_bytes(path: Path, limit: int | None = None) -> tuple[int, int]:
    """The most memory that Python and Arrow took while the rows were read; limit: of both, also for a damaged file."""
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    python = arrow = 0
    tracemalloc.start()
    try:
        for _ in read_rows(path):
            arrow = max(arrow, pool.bytes_allocated() - before)
    finally:
        python = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert limit is None or python + arrow < limit
    return python, arrow


def test_parquet_with_a_column_twice_is_damaged(tmp_path: Path) -> None:
    pq.write_table(pa.table([["a"], ["b"]], names=["question", "question"]), tmp_path / "a.parquet")
    with pytest.raises(DamagedFile, match=r"same name: \['question', 'question'\]"):
        list(read_rows(tmp_path / "a.parquet"))


def test_a_footer_that_contradicts_itself_is_damage_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    """A flipped byte in the statistics of sizes: PyArrow 26 aborts when it is asked for the column's description."""
    path = tmp_path / "a [1]*.parquet"
    pq.write_table(pa.table({"question": ["a", "b"] * 20}), path)
    whole = path.read_bytes()
    assert len(list(read_rows(path))) == 40
    for place in FLIPPED:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        done = subprocess.run([sys.executable, "-c", READ, str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@ANY_TMP
@given(st.binary(max_size=200), st.sampled_from([".jsonl", ".jsonl.zst", ".parquet"]))
def test_any_bytes_are_rows_or_damage(tmp_path: Path, content: bytes, suffix: str) -> None:
    try:
        rows = list(read_rows(written(tmp_path / f"a{suffix}", content)))
    except DamagedFile:
        assert suffix != ".jsonl"
    else:
        assert suffix != ".parquet"
        assert all(row.line >= 1 for row in rows)


@ANY_TMP
@given(st.data(), st.sampled_from([".jsonl.zst", ".parquet"]))
def test_a_changed_byte_is_rows_or_damage(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    pq.write_table(pa.table({"question": ["a", "b"] * 20}), tmp_path / "whole.parquet")
    whole = zstd(b'{"question": "a"}\n' * 40) if suffix == ".jsonl.zst" else (tmp_path / "whole.parquet").read_bytes()
    content = bytearray(whole)
    content[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        list(read_rows(written(tmp_path / f"a{suffix}", bytes(content))))
    except DamagedFile as error:
        assert str(error)


def test_a_missing_file_is_the_systems_fault(tmp_path: Path) -> None:
    for suffix in (".jsonl", ".jsonl.zst", ".parquet"):
        with pytest.raises(FileNotFoundError):
            list(read_rows(tmp_path / f"a{suffix}"))
