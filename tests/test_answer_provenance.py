"""What is found in the answers of a finished home, and the page it leaves: model text is code, and nothing else."""

import dagster as dg
import polars as pl
import pytest
from conftest import Project
from drawn import PNG, decoded

from dasd_assets.answer_provenance.figures import pictures
from dasd_assets.answer_provenance.findings import Findings, alike, characteristic, decided, find, findings
from dasd_assets.answer_provenance.page import PAGE, page, tables
from dasd_assets.rules.answer_types import FOUR_TYPES, MODELS
from dasd_resources.recipe import Divergence

RULE = Divergence(measure="probability", threshold=0.1, per="token")
HOSTILE = "![x](http://example.org/a.png) | <script>alert(1)</script> `` ` \u202e"


@pytest.fixture(scope="module")
def found(finished: Project) -> Findings:
    return find(finished.warehouse, finished.engines, finished.recipe)


def test_shares_of_every_stage_are_those_of_its_own_answers(found: Findings, finished: Project) -> None:
    query = """SELECT c.name, e.evaluation_id, avg((t.sentence_type = 'teacher')::INT) AS share
        FROM evaluations e JOIN checkpoints c USING (checkpoint_id)
            JOIN answer_sentence_types t ON t.checkpoint_id = e.checkpoint_id AND t.answer_id =
                left(sha256(concat_ws(chr(10), e.question_id, e.finish_reason, e.response_text)), 32)
        WHERE c.name <> 'teacher' GROUP BY ALL"""
    counted = finished.read(query).group_by("name").agg(pl.col("share").mean(), pl.len())
    told = found.stages.filter(pl.col("type") == "teacher")
    assert {row["checkpoint"]: (row["mean"], row["num_answers"]) for row in told.to_dicts()} == {
        row["name"]: (pytest.approx(row["share"]), row["len"]) for row in counted.to_dicts()
    }
    assert told["checkpoint"].to_list() == ["student", "t060", "t100", "mixed"]
    assert (found.newest, found.num_answers, found.num_typed) == ("mixed", 40, 40)
    assert found.sample == "5 questions of held_out at T = 1, up to 2 answers of a checkpoint to each"


def test_the_asset_shows_it_and_leaves_a_page(finished: Project, found: Findings) -> None:
    with finished.instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("answer_provenance"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert set(metadata) >= {*pictures(found), *tables(found), "page"}
    folder = finished.home / "reports" / "tiny"
    text = (folder / PAGE).read_text(encoding="utf-8")
    assert text == page(found, {name: f"provenance_{name}.png" for name in pictures(found)})
    for name in pictures(found):
        assert f"(provenance_{name}.png)" in text
        assert (folder / f"provenance_{name}.png").read_bytes().startswith(PNG)


def answers(*texts: str) -> pl.DataFrame:
    """One answer of each text, of one checkpoint, to a question of its own."""
    rows = [
        {
            "answer_id": f"a{n}", "checkpoint_id": "c", "checkpoint": "mixed", "benchmark": "b", "temperature": 1.0,
            "question_id": f"q{n}", "sample_index": 0, "correct": n == 0, "kind": None, "text": text,
        }
        for n, text in enumerate(texts)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"kind": pl.String}).with_columns(
        pl.col("checkpoint").cast(pl.Enum(["student", "mixed"]))
    )


def sentences(table: pl.DataFrame) -> pl.DataFrame:
    """Each answer as one sentence, which the teacher likes and the others do not."""
    sums = {f"{model}_sum_logprob": -0.1 if model == "teacher" else -3.0 for model in MODELS}
    columns = {**sums, **{f"{model}_num_tokens": 1 for model in MODELS}, **{f"{model}_prob": 0.5 for model in MODELS}}
    literals = {name: pl.lit(value) for name, value in columns.items()}
    return table.drop("text").with_columns(
        **literals,
        start=pl.lit(0),
        stop=table["text"].str.len_chars(),
        sentence_index=0,
        sentence_type=pl.lit("teacher"),
    )


def test_text_of_a_model_stands_in_code_spans_alone() -> None:
    table = answers(HOSTILE)
    text = page(findings(table, sentences(table), RULE), dict.fromkeys(pictures_of(table), "file.png"))
    shown = [line for line in text.splitlines() if "alert" in line]
    assert len(shown) == 2  # of the one answer, and of the characteristic sentences
    for line in shown:
        fence = "`" * 3
        assert line.count(fence) == 2
        assert "alert" in line.split(fence)[1]
        assert "\\u202e" in line
        assert line.startswith("- ")


def pictures_of(table: pl.DataFrame) -> set[str]:
    return set(pictures(findings(table, sentences(table), RULE)))


def test_sentences_that_differ_in_numbers_alone_are_one_and_count_their_answers() -> None:
    table = answers("So 1 + 2 is 3.", "So 14 + 20 is\n34.", "It is odd.", "So 1 + 2 is 3.")
    found = characteristic(sentences(table), table, RULE)
    assert found.select("type", "num_answers", "sentence").rows() == [
        ("teacher", 3, "So 1 + 2 is 3."),
        ("teacher", 1, "It is odd."),
    ]
    one = 0.9048374180359595 - 0.049787068367863944 - 0.1  # exp(-0.1) - exp(-3), beyond the threshold
    assert found["score"].to_list() == pytest.approx([3 * one, one])
    assert alike("-12 and 1,000.5") == alike("7 and 3")


def test_what_the_verifier_could_not_tell_is_neither_right_nor_wrong() -> None:
    table = answers("a", "b", "c").with_columns(kind=pl.Series(["wrong_answer", "not_comparable", "verifier_failed"]))
    assert decided(table)["correct"].to_list() == [True, None, None]


@pytest.mark.filterwarnings("error")
def test_without_a_typed_sentence_the_page_says_so_and_the_pictures_are_empty() -> None:
    table = answers("a")
    found = findings(table, sentences(table).clear(), RULE)
    assert "No answer has a typed sentence" in page(found, {})
    for figure in pictures(found).values():
        assert decoded(figure).startswith(PNG)
    assert all(not shown.records for shown in tables(found).values())


@pytest.mark.filterwarnings("error")
def test_pictures_show_every_type(found: Findings) -> None:
    assert {record.data["checkpoint"] for record in tables(found)["shares"].records} == {
        "student",
        "t060",
        "t100",
        "mixed",
    }
    assert all(decoded(figure).startswith(PNG) for figure in pictures(found).values())
    assert set(FOUR_TYPES) <= {column.name for column in tables(found)["threshold_table"].schema.columns}
