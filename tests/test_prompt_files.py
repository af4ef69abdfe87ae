"""Landed prompt files: what is a prompt, what is rejected and why."""

import json
from collections import Counter
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dasd_resources.content_hash import content_hash
from dasd_resources.json_text import MAX_DEPTH
from dasd_resources.landing.folder_contents import landed_files
from dasd_resources.landing.prompt_files import (
    MAX_REJECTED,
    Prompt,
    read_prompts,
    safe_stem,
)
from dasd_resources.landing.rejections import DUPLICATES, MALFORMED, REJECTION_KINDS, Excluded, RejectedPrompt


def landed(folder: Path, *rows: object, name: str = "a.jsonl") -> Path:
    """A file of these rows; a str or bytes is a line as it is, anything else is dumped."""
    lines = [
        row if isinstance(row, bytes) else (row if isinstance(row, str) else json.dumps(row)).encode() for row in rows
    ]
    path = folder / name
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def rejected(folder: Path, row: object) -> RejectedPrompt:
    """The rejection of this row; the good row after it must not be."""
    bad, good = read_prompts(landed(folder, row, {"question": "good"}))
    assert isinstance(good, Prompt)
    assert isinstance(bad, RejectedPrompt)
    assert (bad.source_file, bad.source_line) == ("a.jsonl", 1)
    return bad


def nested(depth: int) -> object:
    """Lists within each other."""
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def test_a_full_row(tmp_path: Path) -> None:
    row = {
        "question": " What is 2 + 3? ",
        "domain": "math",
        "reference_answer": "5",
        "verifier": "reasoning_gym:chain_sum",
        "system_prompt": "Be brief.",
        "metadata": {"b": 1, "a": ["é"]},
        "id": "row-7",
    }
    [prompt] = read_prompts(landed(tmp_path, row))
    assert prompt == Prompt(
        content_hash(["What is 2 + 3?", "Be brief."])[:32],
        "math",
        " What is 2 + 3? ",
        "5",
        "reasoning_gym:chain_sum",
        "Be brief.",
        '{"a":["é"],"b":1,"id":"row-7"}',
        "a.jsonl",
        1,
    )


def test_a_bare_question_gets_the_defaults(tmp_path: Path) -> None:
    [prompt] = read_prompts(landed(tmp_path, {"question": "Why?", "verifier": None, "id": None}))
    assert isinstance(prompt, Prompt)
    assert (prompt.domain, prompt.reference_answer, prompt.verifier, prompt.metadata) == ("general", None, None, "{}")


@pytest.mark.parametrize(
    ("row", "kind", "expected"),
    [
        ("{", "invalid_json", "not JSON: Expecting property name enclosed in double quotes at column 2: '{'"),
        ("[1]", "invalid_json", "not a JSON object: '[1]'"),
        ('"question"', "invalid_json", "not a JSON object"),
        ('{"question": "a", "question": "b"}', "invalid_json", "duplicate key 'question'"),
        ('{"question": "a", "metadata": {"k": 1, "k": 1}}', "invalid_json", "duplicate key 'k'"),
        ('{"question": "a", "metadata": {"k": NaN}}', "invalid_json", "NaN is not JSON"),
        ('{"question": "a", "metadata": {"k": 1e999}}', "invalid_field", "number too large for JSON"),
        ('{"question": "a", "metadata": {"k": ' + "9" * 5000 + "}}", "invalid_json", "Exceeds the limit"),
        ('{"question": ' + "[" * 100_000, "invalid_json", "nested too deeply"),
        ({"prompt": "a"}, "missing_question", "question is missing; the row's keys are ['prompt']"),
        ({"question": None}, "missing_question", "question is missing"),
        ({"question": " \n"}, "invalid_field", "question is empty: ' \\n'"),
        ({"question": 7}, "invalid_field", "question must be a string, found 7"),
        ({"question": ["a"]}, "invalid_field", "question must be a string, found ['a']"),
        ({"question": "a\0b"}, "invalid_field", "question holds a NUL character: 'a\\x00b'"),
        ({"question": "a\ud800"}, "invalid_field", "question holds a lone surrogate at character 1: 'a\\ud800'"),
        ({"question": "a", "metadata": {"k": "\udfff"}}, "invalid_field", "metadata holds a lone surrogate"),
        (
            {"question": "a", "domain": ""},
            "invalid_field",
            "domain is empty: ''; leave the key out, or write null, for",
        ),
        (
            {"question": "a", "system_prompt": ""},
            "invalid_field",
            "system_prompt is empty: ''; leave the key out, or write null, for the model's own system prompt",
        ),
        (
            {"question": "a", "verifier": " "},
            "invalid_field",
            "verifier is empty: ' '; leave the key out, or write null",
        ),
        ({"question": "a", "reference_answer": [5]}, "invalid_field", "reference_answer must be a string, found [5]"),
        ({"question": "a", "metadata": [1]}, "invalid_field", "metadata must be an object, found [1]"),
        ({"question": "a", "metadata": "[1]"}, "invalid_field", "not a JSON object: '[1]'"),
        (
            {"question": "a", "id": 1, "metadata": {"id": 2}},
            "invalid_field",
            "keys both in the row and in its metadata: ['id']",
        ),
        (
            {"question": "a", "verifier": "python", "reference_answer": "5"},
            "unknown_verifier",
            "unknown verifier 'python'; known are code,",
        ),
        ({"question": "a", "verifier": "exact"}, "missing_reference", "verifier exact needs a reference_answer"),
        (
            {"question": "a", "verifier": "multiple_choice", "reference_answer": "42"},
            "invalid_reference",
            "reference_answer '42' fails its own verifier multiple_choice",
        ),
        (b'{"question": "\xff"}', "invalid_encoding", "not UTF-8 at byte 14"),
        (b"[" * 1_000_000, "invalid_json", "row is nested too deeply: '[[[["),
        ({"question": "a", "n": nested(MAX_DEPTH)}, "invalid_json", "nested more than 100 deep: '{\"question"),
        ({"question": "a", "metadata": json.dumps({"n": nested(MAX_DEPTH)})}, "invalid_field", "nested more than 100"),
        (b'{"question": "a", "n": ' + b"9" * 1_000_000 + b"}", "invalid_json", "4300 digits"),
        (b'{"question": "a", "n": 1e' + b"9" * 1_000_000 + b"}", "invalid_field", "a number too large for JSON"),
        ({"question": "a" + "\u0315\u0300" * 80_000}, "invalid_field", "question holds more than 1000 marks in a row"),
        ({"question": "a" + "\u0f73" * 1001}, "invalid_field", "question holds more than 1000 marks in a row"),
        (b"x" * 10_000_000, "row_too_long", "row has 10000000 bytes, at most 1048576 are accepted"),
    ],
)
def test_a_bad_row_keeps_its_reason(tmp_path: Path, row: object, kind: str, expected: str) -> None:
    found = rejected(tmp_path, row)
    assert (found.kind, found.prompt_id, found.owner_batch) == (kind, None, None)
    assert found.kind in MALFORMED
    assert expected in found.reason


def test_what_only_looks_hostile_is_a_prompt(tmp_path: Path) -> None:
    texts = ["你好" * 50_000, "a" + "\u0300" * 1000, "Z\u0300\u0315" * 2000, "]" * 5000 + "[" * 5000]
    rows = [{"question": text, "n": nested(MAX_DEPTH - 1), "m": [[]] * 1000} for text in texts]
    assert [prompt.question for prompt in read_prompts(landed(tmp_path, *rows)) if isinstance(prompt, Prompt)] == texts


def test_a_file_that_is_no_prompt_file_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question": "a"}\n' + b"x\n" * (MAX_REJECTED + 10))
    *rows, last = read_prompts(path)
    assert len(rows) == 1 + MAX_REJECTED + 1
    assert isinstance(last, RejectedPrompt) and (last.source_line, last.kind) == (0, "damaged_file")
    assert "100001 rows are no prompts, most of the file so far" in last.reason


def test_a_file_that_says_one_question_again_and_again_is_not_damaged(tmp_path: Path) -> None:
    """As sets of many responses to each question do."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"question": "a"}\n' * (MAX_REJECTED + 10))
    kinds = Counter(row.kind for row in read_prompts(path) if isinstance(row, RejectedPrompt))
    assert kinds == {"duplicate_line": MAX_REJECTED + 9}


def test_every_kind_has_one_meaning_and_is_malformed_or_excluded() -> None:
    assert set(MALFORMED) | set(get_args(Excluded)) == set(REJECTION_KINDS)
    assert not set(MALFORMED) & set(get_args(Excluded))
    assert set(DUPLICATES) <= set(get_args(Excluded))


def test_a_reason_stays_short(tmp_path: Path) -> None:
    assert len(rejected(tmp_path, {"question": {"k": "v" * 100_000}}).reason) < 200
    assert len(rejected(tmp_path, '{"' + "k" * 100_000 + '": 1, "' + "k" * 100_000 + '": 1}').reason) < 200


def test_a_copy_in_the_same_file_names_its_twin_and_keeps_what_it_says(tmp_path: Path) -> None:
    rows = {"question": "a  b"}, {"question": "c"}, {"question": "a b ", "id": 2}, {"question": "a b", "domain": "math"}
    first, second, copy, other = read_prompts(landed(tmp_path, *rows))
    assert isinstance(first, Prompt) and isinstance(second, Prompt)
    for line, repeated, domain in ((3, copy, "general"), (4, other, "math")):
        assert isinstance(repeated, RejectedPrompt) and repeated.line is not None
        message = f"duplicate of prompt {first.prompt_id} (line 1)"
        told = (repeated.source_line, repeated.kind, repeated.reason, repeated.prompt_id)
        assert told == (line, "duplicate_line", message, first.prompt_id)
        assert (repeated.line.source_line, repeated.line.domain) == (line, domain)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_one_rejection(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert list(read_prompts(path)) == [RejectedPrompt("a.jsonl", 0, "empty_file", "file is empty")]


def test_parquet_prompts_with_metadata_as_object_or_string(tmp_path: Path) -> None:
    pq.write_table(pa.table({"question": ["a"], "metadata": ['{"k": 1}']}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"question": ["a"], "metadata": [{"k": 1}]}), tmp_path / "b.parquet")
    for name in ("a.parquet", "b.parquet"):
        [prompt] = read_prompts(tmp_path / name)
        assert isinstance(prompt, Prompt)
        assert (prompt.metadata, prompt.source_file, prompt.source_line) == ('{"k":1}', name, 1)
    pq.write_table(pa.table({"question": pa.array([], pa.string())}), tmp_path / "c.parquet")
    assert list(read_prompts(tmp_path / "c.parquet")) == [RejectedPrompt("c.parquet", 0, "empty_file", "file is empty")]


def test_damage_is_one_rejection_after_the_good_rows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    with pa.CompressedOutputStream(str(path), "zstd") as stream:
        stream.write(b'{"question": "a"}\n{"question": "b"}\n')
    path.write_bytes(path.read_bytes() + b"no frame")
    first, second, last = read_prompts(path)
    assert isinstance(first, Prompt) and isinstance(second, Prompt) and isinstance(last, RejectedPrompt)
    assert last.source_line == 0
    assert last.kind == "damaged_file"
    assert last.reason.startswith("file is damaged after line 2: ZSTD")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no parquet PAR1")
    [damaged] = read_prompts(tmp_path / "b.parquet")
    assert isinstance(damaged, RejectedPrompt)
    assert damaged.reason.startswith("file is damaged after line 0: ")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=8), values, max_size=3),
    max_leaves=8,
)
row_keys = st.sampled_from(["question", "domain", "reference_answer", "verifier", "metadata", "system_prompt", "id"])
row_texts = st.sampled_from(["math", "exact", "multiple_choice", "reasoning_gym:gcd", "5", "\ud800", "\0", ""])
rows = st.dictionaries(row_keys, row_texts | json_values, max_size=5).map(lambda row: json.dumps(row).encode())
lines = st.lists(rows | st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=8)


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lines)
def test_every_non_blank_line_is_one_storable_record(tmp_path: Path, lines: list[bytes]) -> None:
    records = list(read_prompts(landed(tmp_path, *lines)))
    expected = [i for i, line in enumerate(lines, 1) if line.removeprefix(b"\xef\xbb\xbf" if i == 1 else b"").strip()]
    assert [record.source_line for record in records] == (expected or [0])
    for record in records:
        if isinstance(record, RejectedPrompt):
            record.reason.encode()
        else:
            assert json.dumps(json.loads(record.metadata), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            "".join([record.question, record.domain, record.metadata, record.reference_answer or ""]).encode()


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("math.jsonl", "math"),
        ("math.v2.jsonl.zst", "math.v2"),
        ("été 1.parquet", "_t__1"),
        ("a...b|c.jsonl", "a__.b_c"),
        ("--x.jsonl", "x"),
        ("-.jsonl", "batch"),
        ("n" * 100 + ".jsonl", "n" * 64),
    ],
)
def test_a_stem_is_safe_in_a_partition_key(name: str, stem: str) -> None:
    assert safe_stem(name) == stem


def test_landed_files_are_complete_regular_and_inside(tmp_path: Path) -> None:
    folder = tmp_path / "prompts"
    assert landed_files(folder) == []
    folder.mkdir()
    outside = landed(tmp_path, "{}", name="outside.jsonl")
    for name in (
        "b.jsonl",
        "a.parquet",
        "c.jsonl.zst",
        ".hidden.jsonl",
        "d.jsonl.tmp",
        "e.jsonl.part",
        "f.txt",
        "g.zst",
    ):
        landed(folder, "{}", name=name)
    (folder / "folder.jsonl").mkdir()
    (folder / "outward.jsonl").symlink_to(outside)
    (folder / "inward.jsonl").symlink_to(folder / "b.jsonl")
    (folder / "loop.jsonl").symlink_to(folder / "loop.jsonl")
    (folder / "dangling.jsonl").symlink_to(folder / "nothing.jsonl")
    assert [path.name for path in landed_files(folder)] == ["a.parquet", "b.jsonl", "c.jsonl.zst", "inward.jsonl"]


def test_a_reference_answer_may_be_a_number(tmp_path: Path) -> None:
    lines = [(204, "204"), (27.0, "27"), (27, "27"), (0.5, "0.5"), (-3.0, "-3"), (1e300, "1e+300")]
    file = tmp_path / "numbers.jsonl"
    rows = [{"question": f"q{n}", "reference_answer": value, "verifier": "math"} for n, (value, _) in enumerate(lines)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = [record.reference_answer for record in read_prompts(file) if isinstance(record, Prompt)]
    assert found == [text for _, text in lines]


def test_a_truth_value_is_no_reference_answer(tmp_path: Path) -> None:
    file = tmp_path / "truth.jsonl"
    file.write_text('{"question": "q", "reference_answer": true}\n{"question": "q", "reference_answer": 1e999}\n')
    assert [getattr(record, "kind", None) for record in read_prompts(file)] == ["invalid_field"] * 2
