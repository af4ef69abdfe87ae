"""Sentence probabilities, by hand and against a plain loop over tokens and characters."""

import math
from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd_assets.rules.sentence_table import sentence_table
from dasd_assets.rules.sentences import Span, sentence_spans
from dasd_resources.storage.warehouse import Row

COLUMNS = ("sum_logprob", "num_tokens", "prob")
PIECES = ("We add. ", "So 漢字 it is 🎉! ", "x", " ", "\n", "\n\n", "4 + 3 = 7. ", "e.g. this", "答。", "👩‍🚀")
bodies = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


def response(text: str, teacher: list[tuple[int, float]], student: list[tuple[int, float]]) -> Row:
    """A response whose tokens are given as (offset, logprob)."""
    return {
        "response_id": "r1",
        "text": text,
        "teacher_offsets": [offset for offset, _ in teacher],
        "teacher_logprobs": [logprob for _, logprob in teacher],
        "student_offsets": [offset for offset, _ in student],
        "student_logprobs": [logprob for _, logprob in student],
    }


SCHEMA = {
    "response_id": pl.String,
    "text": pl.String,
    **{f"{model}_{name}": pl.List(kind)
       for model in ("teacher", "student") for name, kind in (("offsets", pl.Int32), ("logprobs", pl.Float64))},
}  # fmt: skip


def table_of(*rows: Row) -> pl.DataFrame:
    return sentence_table(pl.DataFrame(rows, schema=SCHEMA))


def test_probabilities_by_hand() -> None:
    text = "<think>\nOne. Two.\n</think>\nYes."  # One. at 8, Two. at 13, the delimiter at 17, Yes. at 27
    half, eighth = math.log(1 / 2), math.log(1 / 8)
    teacher = [(0, -9.0), (8, half), (11, eighth), (12, eighth), (17, -9.0), (27, 0.0), (-1, -9.0)]
    student = [(0, -9.0), (8, half), (13, eighth), (15, eighth), (16, half), (17, -9.0), (-1, -9.0)]
    rows = table_of(response(text, teacher, student))
    assert rows.select("response_id", "sentence_index", "start", "stop").rows() == [
        ("r1", 0, 8, 13),
        ("r1", 1, 13, 17),
        ("r1", 2, 27, 31),
    ]
    assert rows["teacher_num_tokens"].to_list() == [2, 1, 1]  # the token at 12 is a space and then "Two."
    assert rows["student_num_tokens"].to_list() == [1, 3, 0]
    assert rows["teacher_sum_logprob"].to_list() == pytest.approx([half + eighth, eighth, 0.0], abs=1e-12)
    assert rows["student_sum_logprob"].to_list() == pytest.approx([half, 2 * eighth + half, 0.0], abs=1e-12)
    assert rows["teacher_prob"].to_list() == pytest.approx([1 / 4, 1 / 8, 1.0], abs=1e-12)
    assert rows["student_prob"].to_list()[:2] == pytest.approx([1 / 2, 2 ** (-7 / 3)], abs=1e-12)
    assert rows["student_prob"].to_list()[2] is None


@pytest.mark.parametrize("text", ["", "<think>\n\n</think>\n"])
def test_a_response_without_a_sentence_has_no_rows(text: str) -> None:
    rows = table_of(response(text, [(-1, -1.0)], [(-1, -2.0)]))
    assert rows.is_empty()
    filled = table_of(response("One.", [(0, -1.0)], [(0, -2.0)]))
    assert rows.schema == filled.schema


def test_responses_do_not_mix() -> None:
    one = response("One. Two.", [(0, -1.0), (4, -2.0)], [(0, -0.5)])
    none = response("<think>\n\n</think>\n", [(-1, -7.0)], [])
    other = response("Three.", [(0, -4.0)], [(-1, -9.0), (0, -0.25), (2, -0.25)])
    rows = [{**row, "response_id": name} for name, row in (("a", one), ("b", none), ("c", other), ("d", one))]
    parts = [table_of(row) for row in rows]
    assert table_of(*rows).equals(pl.concat(parts))
    assert [part.height for part in parts] == [2, 0, 1, 2]
    assert table_of().schema == parts[0].schema


def test_a_missing_logprob_raises() -> None:
    with pytest.raises(ValueError, match="each token needs one finite value"):
        table_of({**response("One.", [(0, -1.0)], [(0, -2.0)]), "student_logprobs": []})


@st.composite
def responses(draw: st.DrawFn) -> Row:
    """A canonical text, and two random tokenisations of it."""
    text = draw(st.sampled_from(["<think>\n{}\n</think>\n{}", "<think>\n{}", "{}{}"]))
    text = text.format(draw(bodies), draw(bodies)) if text.count("{}") == 2 else text.format(draw(bodies))
    return response(text, draw(tokens(len(text))), draw(tokens(len(text))))


def tokens(num_chars: int) -> st.SearchStrategy[list[tuple[int, float]]]:
    """Ascending offsets, some of them equal (bytes of one character), some tokens not in the text."""
    logprobs = st.integers(0, 40).map(lambda number: -number / 8)
    present = st.lists(st.integers(0, max(num_chars - 1, 0)), max_size=20 if num_chars else 0).map(sorted)

    def with_absent(offsets: list[int]) -> st.SearchStrategy[list[tuple[int, float]]]:
        kept = st.lists(st.booleans(), min_size=len(offsets), max_size=len(offsets))
        return st.tuples(
            kept.map(lambda flags: [o if flag else -1 for o, flag in zip(offsets, flags, strict=True)]),
            st.lists(logprobs, min_size=len(offsets), max_size=len(offsets)),
        ).map(lambda pair: list(zip(*pair, strict=True)))

    return present.flatmap(with_absent)


def owner(text: str, start: int, stop: int, spans: list[Span]) -> int | None:
    """The sentence of a token's first visible character, or of its first one if it has none."""
    at = next((index for index in range(start, stop) if not text[index].isspace()), start)
    return next((number for number, (first, last) in enumerate(spans) if first <= at < last), None)


def by_loop(row: Row, model: str) -> list[tuple[float, int, float | None]]:
    text, spans = row["text"], sentence_spans(row["text"])
    pairs = [(o, p) for o, p in zip(row[f"{model}_offsets"], row[f"{model}_logprobs"], strict=True) if o >= 0]
    borders = [*sorted({offset for offset, _ in pairs}), len(text)]
    stops = dict(pairwise(borders))
    sums, counts = [0.0] * len(spans), [0] * len(spans)
    for offset, logprob in pairs:
        number = owner(text, offset, stops[offset], spans)
        if number is not None:
            sums[number] += logprob
            counts[number] += 1
    return [(s, n, math.exp(s / n) if n else None) for s, n in zip(sums, counts, strict=True)]


@settings(max_examples=300, deadline=None)
@given(responses())
def test_rows_equal_a_plain_loop(row: Row) -> None:
    table = table_of(row)
    assert table.select("start", "stop").rows() == sentence_spans(row["text"])
    for model in ("teacher", "student"):
        found = table.select([f"{model}_{name}" for name in COLUMNS]).rows()
        expected = by_loop(row, model)
        assert [counts for _, counts, _ in found] == [counts for _, counts, _ in expected]
        for (total, _, prob), (expected_total, _, expected_prob) in zip(found, expected, strict=True):
            assert total == pytest.approx(expected_total, abs=1e-9)
            assert (prob is None) == (expected_prob is None)
            assert prob is None or prob == pytest.approx(expected_prob, abs=1e-12)
