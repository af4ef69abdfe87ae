"""Every format gives the same rows; damage, bombs and nonsense in the newer ones end as rows or as one sentence."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_row_files import ANY_TMP, peak_bytes, until_damage, written, zstd

from dasd_resources.landing.row_files.documents import document_rows
from dasd_resources.landing.row_files.formats import SUFFIXES, read_rows
from dasd_resources.landing.row_files.record_batches import decoded_bytes
from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES, DamagedFile

ROWS = [{"question": f'{n}?\nSay, "é" \\ or {{[,]}}', "domain": "math"} for n in range(5)]
LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS).encode()
TABLE = pa.Table.from_pylist(ROWS)


def delimited(delimiter: str) -> bytes:
    quoted = ['"' + row["question"].replace('"', '""') + '"' for row in ROWS]
    return "\r\n".join(["question" + delimiter + "domain", *(q + delimiter + "math" for q in quoted)]).encode()


def arrow(table: pa.Table, stream: bool = False, compression: str | None = None, batch: int = 2) -> bytes:
    sink = pa.BufferOutputStream()
    options = ipc.IpcWriteOptions(compression=compression)
    open_writer = ipc.new_stream if stream else ipc.new_file
    with open_writer(sink, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=batch)
    return bytes(sink.getvalue())


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())


PLAIN = {".jsonl": LINES, ".json": json.dumps(ROWS).encode(), ".csv": delimited(","), ".tsv": delimited("\t")}
WHOLE = {
    **PLAIN,
    **{f"{suffix}.gz": gzip.compress(content) for suffix, content in PLAIN.items()},
    **{f"{suffix}.zst": zstd(content) for suffix, content in PLAIN.items()},
    ".parquet": parquet(TABLE),
    ".arrow": arrow(TABLE, stream=True),
    ".feather": arrow(TABLE, compression="zstd"),
}


def rows_of(folder: Path, suffix: str, content: bytes) -> list[object]:
    """The rows; of an unreadable one, its kind."""
    found = read_rows(written(folder / f"a{suffix}", content))
    return [row.unreadable.kind if row.unreadable else json.loads(row.text) for row in found]


def test_every_suffix_is_tried_here() -> None:
    assert set(WHOLE) == set(SUFFIXES)


@pytest.mark.parametrize("suffix", WHOLE)
def test_every_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    assert rows_of(tmp_path, suffix, WHOLE[suffix]) == ROWS


@pytest.mark.parametrize("suffix", WHOLE)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_of_a_cut_file_no_row_is_made_up(tmp_path: Path, suffix: str, share: float) -> None:
    content = WHOLE[suffix][: int(len(WHOLE[suffix]) * share)]
    found = []
    try:
        for row in read_rows(written(tmp_path / f"a{suffix}", content)):
            found.append(row)
    except DamagedFile as error:
        assert str(error)
    else:
        assert suffix in (".jsonl", ".csv", ".tsv")  # of a format without an end
    whole = [row.text for row in found[:-1]]
    assert [json.loads(text) for text in whole] == ROWS[: len(whole)]


@ANY_TMP
@given(st.binary(max_size=200), st.sampled_from(SUFFIXES))
def test_any_bytes_are_rows_or_damage(tmp_path: Path, content: bytes, suffix: str) -> None:
    try:
        lines = [row.line for row in read_rows(written(tmp_path / f"a{suffix}", content))]
    except DamagedFile as error:
        assert str(error)
    else:
        assert lines == sorted(set(lines))
        assert all(line >= 1 for line in lines)


@ANY_TMP
@given(st.data(), st.sampled_from([".json", ".jsonl.gz", ".csv", ".arrow", ".feather"]))
def test_a_changed_byte_is_rows_or_damage(tmp_path: Path, data: st.DataObject, suffix: str) -> None:
    content = bytearray(WHOLE[suffix])
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        list(read_rows(written(tmp_path / f"a{suffix}", bytes(content))))
    except DamagedFile as error:
        assert str(error)


def test_a_column_that_a_damaged_byte_makes_one_of_intervals_is_named(tmp_path: Path) -> None:
    """PyArrow reads such a schema, and has no arrays of them."""
    found = set[str]()
    for place in range(len(WHOLE[".arrow"])):
        content = bytearray(WHOLE[".arrow"])
        content[place] ^= 14  # a text is type 5 of a schema, an interval 11
        try:
            list(read_rows(written(tmp_path / "a.arrow", bytes(content))))
        except DamagedFile as error:
            found.add(str(error))
    assert any("is of type month_interval, which is not read" in message for message in found)


# .json


@settings(max_examples=30, deadline=None)
@given(st.lists(st.dictionaries(st.text(), st.text() | st.none() | st.lists(st.integers()))), st.integers(1, 30))
def test_an_array_is_its_elements_however_it_is_cut_into_chunks(rows: list[object], size: int) -> None:
    for document in (rows, {"version": 1, "columns": ["a"], "data": rows, "more": {"x": [1]}}):
        for indent in (None, 2):
            content = json.dumps(document, indent=indent).encode()
            chunks = [content[start : start + size] for start in range(0, len(content), size)]
            found = list(document_rows(chunks))
            assert [json.loads(row.text) for row in found] == rows
            assert [row.line for row in found] == list(range(1, len(rows) + 1))


def test_a_json_file_may_hold_lines_or_one_object(tmp_path: Path) -> None:
    assert rows_of(tmp_path, ".json", b'\xef\xbb\xbf{"question": "a"}\n\n{"question": "b"}\n') == [
        {"question": "a"},
        {"question": "b"},
    ]
    assert rows_of(tmp_path, ".json", b'{"question": "a"}') == [{"question": "a"}]
    with_lists = [{"question": "a", "data": [1]}, {"question": "b", "rows": []}]
    for blank in (b"", b"\n \n", b"\n" * 100_000):
        lines = blank + b"\n".join(json.dumps(row).encode() for row in with_lists)
        assert rows_of(tmp_path, ".json", lines) == with_lists
        assert rows_of(tmp_path, ".json", blank + b'{"data": [{"question": "a"}]}' + blank) == [{"question": "a"}]
    assert rows_of(tmp_path, ".json", b'\xef\xbb\xbf[{"question": "a"}]') == [{"question": "a"}]
    assert rows_of(tmp_path, ".json", b" [ ] ") == rows_of(tmp_path, ".json", b"") == []


def test_an_element_that_is_no_row_spoils_no_other(tmp_path: Path) -> None:
    long = b'{"question": "' + b"x" * MAX_ROW_BYTES + b'"}'
    content = b'[{"a": 1},\n' + long + b',{bad},"text", \xff,,{"b": "]"}, 5,]'
    found = list(read_rows(written(tmp_path / "a.json", content)))
    assert [row.unreadable.kind if row.unreadable else row.text.strip() for row in found] == [
        *('{"a": 1}', "row_too_long", "{bad}", '"text"', "invalid_encoding", "invalid_json"),
        *('{"b": "]"}', "5", "invalid_json"),
    ]
    assert [row.line for row in found] == list(range(1, 10))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[1, 2", "it ends within row 2"),
        (b'[{"a": "', "it ends within row 1"),
        (b"[1] [2]", r"a .json file holds one array of rows.*; this one has another document behind it"),
        (b"]", "this one has a bracket that closes none"),
        (b'{"configs":\n[{"a": 1}]}', r"this one has its lists under \['configs'\]"),
        (b'{"data":\n1}', "this one has an object without that array"),
        (b"[1] x", "this one has 'x'"),
        (b"5", "this one has '5'"),
        (b"]", "a .json file holds one array"),
        (b'{\n"train": [{"question": "a"}]}', "a .json file holds one array of rows, an object with the array under"),
        (b'{\n"question": "a"\n}', "a .json file holds one array"),
        (
            b'{\n"data": [1], "test": [{"a": 1}], "n": [2]}',
            r"beside its rows it has lists that are not read.*\['test'\]",
        ),
        (b'{\n"data": [1]', "it ends before its last bracket"),
        ("[1]".encode("utf-16"), "a .json file holds"),
    ],
)
def test_what_is_no_list_of_rows_is_damaged(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DamagedFile, match=message):
        list(read_rows(written(tmp_path / "a.json", content)))


def test_a_deep_or_endless_document_is_read_in_bounded_memory(tmp_path: Path) -> None:
    for content in (b"[" * 50_000, b'["' + b"x" * 2**23, b'{\n"' + b"k" * 2**23, b"[" + b" " * 2**23):
        with pytest.raises(DamagedFile):
            peak_bytes(written(tmp_path / "a.json", content), limit=5 * MAX_ROW_BYTES)


# .csv and .tsv


def test_cells_are_texts_and_empty_ones_none_and_a_record_is_where_it_begins(tmp_path: Path) -> None:
    content = b'\xef\xbb\xbfquestion,n,\r\n\r\n"a\r\nb, ""c""",5,x\nd,,\n'
    found = list(read_rows(written(tmp_path / "a.csv", content)))
    assert [(row.line, json.loads(row.text)) for row in found] == [
        (3, {"question": 'a\r\nb, "c"', "n": "5", "": "x"}),
        (5, {"question": "d"}),
    ]


def test_a_record_that_does_not_fit_spoils_no_other(tmp_path: Path) -> None:
    huge = b"x" * (MAX_ROW_BYTES + 1)
    content = b'question,n\na\nb,1,2\n"c"d,1\n\xe9,1\n' + huge + b",1\n" + b"y" * 200_000 + b",1\nz,1"
    found = list(read_rows(written(tmp_path / "a.csv", content)))
    assert [(row.line, row.unreadable.kind if row.unreadable else json.loads(row.text)["n"]) for row in found] == [
        *((2, "invalid_cells"), (3, "invalid_cells"), (4, "invalid_cells"), (5, "invalid_encoding")),
        *((6, "row_too_long"), (7, "1"), (8, "1")),
    ]
    assert "1 cells, where the header has 2: ['a']" in f"{found[0].unreadable}"
    assert "write a quote in it twice" in f"{found[2].unreadable}"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"question,question\na,b", r"two columns have the same name: \['question', 'question'\]"),
        (b"question;domain\na;b", "its header has no ',', but ';': name it .tsv for tabs, .csv for commas"),
        (b"question\tdomain\na\tb", r"its header has no ',', but '\\t'"),
        (b"\xff\xfe", "its header is not UTF-8"),
        (b'question\na\n"b\nc', "quote in the record at line 3 is not closed"),
        (b'"question', "its header is not readable"),
        (b'question\n"a' + b"\nb" * MAX_ROW_BYTES, "quote in the record at line 2 is not closed within 1048576 bytes"),
        (b"q" * (MAX_ROW_BYTES + 1), "quote in the record at line 1"),
    ],
)
def test_a_table_of_text_without_sense_is_damaged(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DamagedFile, match=message):
        list(read_rows(written(tmp_path / "a.csv", content)))


# Packed


def test_gzip_members_are_one_file_and_damage_ends_it(tmp_path: Path) -> None:
    members = gzip.compress(b"{}\n[1]\n") + gzip.compress(b"[2]\n")
    assert rows_of(tmp_path, ".jsonl.gz", members) == [{}, [1], [2]]
    assert until_damage(written(tmp_path / "a.jsonl.gz", members + b"no member")) == ["{}", "[1]", "[2]"]
    assert until_damage(written(tmp_path / "a.jsonl.gz", members[:-9]))[:2] == ["{}", "[1]"]


@pytest.mark.parametrize("suffix", [".json.zst", ".csv.zst"])
@pytest.mark.parametrize("piece", [b"x", b'{"a": "' + b"b" * 5_000 + b'"},'])
def test_a_packed_bomb_is_damaged_and_given_up_early(tmp_path: Path, suffix: str, piece: bytes) -> None:
    """Of gzip there is none: it packs at most to a thousandth."""
    content = b"[" + piece * (2**24 // len(piece))
    with pytest.raises(DamagedFile):
        peak_bytes(written(tmp_path / f"a{suffix}", zstd(content)), limit=8 * MAX_ROW_BYTES)


# Arrow


def test_arrow_as_every_writer_has_it(tmp_path: Path) -> None:
    talk = [[{"role": "user", "content": "q"}], [], None]
    table = pa.table(
        {
            "question": pa.array(["a", "b", None]),
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "messages": talk,
            "flags": pa.array([[True, False], None, []]),
            "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
            "none": pa.nulls(3),
        }
    )
    wanted = [
        {**row, "map": [list(pair) for pair in row["map"]] if row["map"] is not None else None}
        for row in table.to_pylist()
    ]
    for stream in (False, True):
        for compression in (None, "lz4", "zstd"):
            assert rows_of(tmp_path, ".arrow", arrow(table, stream, compression)) == wanted
    frame = pl.DataFrame({"question": ["a", "b" * 100], "tags": [["t" * 50], []]})
    for compression in ("uncompressed", "zstd"):
        frame.write_ipc(tmp_path / "polars.arrow", compression=compression)
        assert rows_of(tmp_path, ".arrow", (tmp_path / "polars.arrow").read_bytes()) == frame.to_dicts()
    feather.write_feather(table.select(["question"]), tmp_path / "f.feather")
    assert [row["question"] for row in rows_of(tmp_path, ".feather", (tmp_path / "f.feather").read_bytes())] == [
        *("a", "b", None)
    ]


def test_a_dataset_that_was_saved_is_read_as_it_lies(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list(ROWS).save_to_disk(tmp_path / "saved", num_shards=2)
    shards = sorted((tmp_path / "saved").glob("*.arrow"))
    assert [json.loads(row.text) for shard in shards for row in read_rows(shard)] == ROWS


def test_the_batches_before_a_cut_are_read(tmp_path: Path) -> None:
    table = pa.table({"question": [f"{n}?" for n in range(1000)]})
    content = arrow(table, stream=True, batch=10)
    path, found = written(tmp_path / "a.arrow", content[: len(content) * 3 // 4]), list[int]()
    with pytest.raises(DamagedFile, match="Expected to be able to read"):
        for row in read_rows(path):
            found.append(row.line)
    assert found == list(range(1, len(found) + 1))
    assert len(found) > 500


def one_long_text() -> pa.Array:
    return pa.array(["x" * 2**26])


def many_equal_texts() -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * 3000, pa.int32()), pa.array(["x" * 2**19]))


def nothing_at_all() -> pa.Array:
    return pa.nulls(2**27)


def lists_of_nothing() -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.nulls(2**27), 2**27)


@pytest.mark.parametrize("make", [one_long_text, many_equal_texts, nothing_at_all, lists_of_nothing])
@pytest.mark.parametrize("stream", [True, False])
def test_an_arrow_bomb_is_given_up_early(tmp_path: Path, make: Callable[[], pa.Array], stream: bool) -> None:
    content = arrow(pa.table({"question": make()}), stream, "zstd", batch=2**28)
    path = written(tmp_path / "a.arrow", content)
    if make is lists_of_nothing:  # no bomb on disk, but a row that cannot be made a text
        assert rows_of(tmp_path, ".arrow", content) == ["row_too_long"]
    else:
        with pytest.raises(DamagedFile, match="unpacks to more than 1000 times its size"):
            peak_bytes(path, limit=16 * MAX_ROW_BYTES)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (pa.array([[1]], pa.list_view(pa.int64())), "is of type list_view"),
        (pa.array([["a"]], pa.list_(pa.dictionary(pa.int8(), pa.string()))), "is of type list<.*dictionary"),
        (pa.RunEndEncodedArray.from_arrays(pa.array([5], pa.int32()), pa.array(["a"])), "is of type run_end_encoded"),
    ],
)
def test_a_type_that_cannot_be_measured_is_not_read(tmp_path: Path, array: pa.Array, message: str) -> None:
    with pytest.raises(DamagedFile, match=message):
        rows_of(tmp_path, ".arrow", arrow(pa.table({"question": array})))


def test_an_arrow_file_that_lies_about_its_texts_is_damaged(tmp_path: Path) -> None:
    good = arrow(pa.table({"question": ["abc"]}), stream=True)
    assert rows_of(tmp_path, ".arrow", good) == [{"question": "abc"}]
    at = good.index(b"\0\0\0\0\3\0\0\0")
    content = good[:at] + b"\0\0\0\0\xff\xff\xff\x7f" + good[at + 8 :]
    with pytest.raises(DamagedFile):
        rows_of(tmp_path, ".arrow", content)


def test_feather_of_version_1_and_columns_that_stand_twice_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match="Feather of version 1"):
        rows_of(tmp_path, ".feather", b"FEA1" + bytes(100))
    with pytest.raises(DamagedFile, match="same name"):
        rows_of(tmp_path, ".arrow", arrow(pa.table([["a"], ["b"]], names=["q", "q"])))


@pytest.mark.parametrize(
    ("array", "num_bytes"),
    [
        (pa.nulls(10), 80),
        (pa.array([[None] * 5]), 48),
        (pa.array(["ab", "c" * 100]), 110),
        (pa.array(["ab", "c" * 100], pa.string_view()), 118),
        (pa.array([["c" * 100] * 3], pa.list_(pa.string_view())), 332),
        (pa.array([{"a": "b" * 50}]), 62),
        (pa.array([True] * 16), 128),
    ],
)
def test_what_an_array_comes_to(array: pa.Array, num_bytes: int) -> None:
    assert decoded_bytes(array) == num_bytes


@pytest.mark.parametrize("suffix", WHOLE)
def test_the_bound_of_a_row_is_the_callers(tmp_path: Path, suffix: str) -> None:
    path = written(tmp_path / f"a{suffix}", WHOLE[suffix])
    try:
        kinds = [row.unreadable and row.unreadable.kind for row in read_rows(path, max_row_bytes=30)]
    except DamagedFile as error:
        assert "is not closed within 30 bytes" in str(error)  # the lines of a quoted cell are not to be told from rows
    else:
        assert kinds == ["row_too_long"] * len(ROWS)
