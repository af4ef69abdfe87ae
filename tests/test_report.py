"""What the report finds in a finished home, counted again here in plain Python, and the pictures it leaves there."""

import dagster as dg
import polars as pl
import pytest
from conftest import Project

from dasd_assets.records.partitions import batches
from dasd_assets.report import ReportData, find, pictures
from dasd_assets.report.findings import NUM_POSITIONS, _losses
from dasd_assets.report.page import PAGE
from dasd_assets.rules.filters.catalogue import FILTERS

PICTURES = {
    "response_probabilities",
    "sentence_probabilities",
    "teacher_sentences_by_position",
    "cut_off_rate",
    "training_loss",
    "accuracy",
}


@pytest.fixture(scope="session")
def findings(finished: Project) -> ReportData:
    with finished.instance() as instance:
        return find(finished.warehouse, finished.engines, finished.recipe, batches(instance))


def test_drops_are_per_temperature_and_filter(findings: ReportData, finished: Project) -> None:
    assert findings.drops.height == 2 * len(FILTERS)
    assert set(findings.drops["num_judged"]) == {30}
    dropped = finished.read("SELECT filter FROM response_verdicts WHERE NOT passed")["filter"].to_list()
    told = findings.drops.group_by("filter").agg(pl.col("num_dropped").sum())
    assert {name: count for name, count in told.iter_rows() if count} == {n: dropped.count(n) for n in set(dropped)}


def test_shares_by_position_put_every_sentence_in_its_eighth(findings: ReportData, finished: Project) -> None:
    query = """SELECT t.response_id, v.passed, t.sentence_type FROM sentence_types t
        JOIN response_verdicts v USING (response_id) WHERE v.filter = 'correctness'
        ORDER BY t.response_id, t.sentence_index"""
    sentences = finished.read(query)
    assert sentences["sentence_type"].null_count() == 0
    eighths: dict[tuple[float, bool], list[bool]] = {}
    for (_, passed), part in sentences.group_by("response_id", "passed"):
        for index, kind in enumerate(part["sentence_type"]):
            position = (NUM_POSITIONS * index // part.height + 0.5) / NUM_POSITIONS
            eighths.setdefault((position, bool(passed)), []).append(kind == "teacher")
    told = {(row["position"], row["correct"]): row["teacher_share"] for row in findings.shares.to_dicts()}
    assert told == {key: pytest.approx(sum(values) / len(values)) for key, values in eighths.items()}


def test_sentences_without_a_type_keep_their_place_but_are_no_share(copy: Project) -> None:
    with copy.warehouse.commit("test") as transaction:
        rows = transaction.read("SELECT * FROM sentence_types")
        untyped = rows.with_columns(
            sentence_type=pl.when(pl.col("sentence_index") > 0).then(pl.col("sentence_type")).otherwise(None)
        )
        transaction.replace("sentence_types", {"threshold_version": rows["threshold_version"][0]}, untyped)
    with copy.instance() as instance:
        found = find(copy.warehouse, copy.engines, copy.recipe, batches(instance))
    assert found.shares["position"].max() < 1
    assert found.shares["teacher_share"].null_count() == 0


def test_accuracies_and_checkpoints_are_of_the_whole_chain(findings: ReportData) -> None:
    names = ["teacher", "student", "t060", "t100", "mixed"]
    assert findings.accuracies["checkpoint"].to_list() == findings.checkpoints["name"].to_list() == names


def test_the_curve_of_a_checkpoint_whose_folder_is_gone_is_left_out(findings: ReportData, finished: Project) -> None:
    assert list(findings.losses) == findings.trained["name"].to_list() == ["t060", "t100", "mixed"]
    path = pl.when(pl.col("name") == "t060").then(pl.lit("checkpoints/gone")).otherwise("path")
    found = _losses(finished.warehouse, findings.checkpoints.with_columns(path=path))
    assert found == {name: findings.losses[name] for name in ("t100", "mixed")}


def test_every_picture_is_there(findings: ReportData) -> None:
    assert set(pictures(findings)) == PICTURES


def test_what_was_made_is_counted(findings: ReportData, finished: Project) -> None:
    assert findings.num_questions == finished.read("SELECT DISTINCT prompt_id FROM responses").height
    assert findings.responses["num_responses"].to_list() == [30, 30]
    examples = finished.read("SELECT * FROM sft_examples WHERE policy = 'das'")
    for row in findings.datasets.to_dicts():
        of_it = examples.filter(pl.col("dataset") == row["dataset"])
        assert row["num_examples"] == of_it.height
        assert row["num_tokens"] == of_it["input_ids"].list.len().sum()
    assert findings.datasets["dataset"].to_list() == ["t060", "t100", "mixed"]


def test_a_question_that_the_teacher_did_not_answer_is_not_counted(copy: Project) -> None:
    with copy.warehouse.commit("test") as transaction:
        rows = transaction.read("SELECT * FROM prompts LIMIT 1")
        transaction.append_missing("prompts", rows.with_columns(prompt_id=pl.lit("unasked")))
    with copy.instance() as instance:
        found = find(copy.warehouse, copy.engines, copy.recipe, batches(instance))
    assert found.num_questions == copy.count("prompts") - 1


def test_gains_are_the_differences_of_accuracies(findings: ReportData) -> None:
    accuracy = {tuple(row[:3]): row[3] for row in findings.accuracies.iter_rows()}
    assert findings.gains["arm"].unique(maintain_order=True).to_list() == ["t060", "t100", "mixed"]
    for row in findings.gains.to_dicts():
        setting = (row["benchmark"], row["temperature"])
        expected = accuracy[row["arm"], *setting] - accuracy["student", *setting]
        assert row["difference"] == pytest.approx(expected)


def test_the_shown_response_is_the_best_of_the_last_dataset(findings: ReportData, finished: Project) -> None:
    assert findings.response is not None
    best = finished.read(
        "SELECT response_id FROM selected_responses WHERE dataset = 't100' AND rank = 1 AND policy = 'das'"
    )
    assert findings.response.response_id == best["response_id"].min()
    assert findings.response.text[slice(*findings.response.sentences.row(0)[:2])].strip()


def test_the_report_leaves_files_and_shows_them(finished: Project) -> None:
    folder = finished.home / "reports" / "tiny"
    others = {path.name for path in folder.glob("provenance*")}  # of `answer_provenance`
    assert {path.name for path in folder.iterdir()} - others == {PAGE, *(f"{name}.png" for name in PICTURES)}
    with finished.instance() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("distillation_report"))
    assert event is not None
    assert event.asset_materialization is not None
    metadata = event.asset_materialization.metadata
    assert set(metadata) >= PICTURES
    assert (folder / PAGE).read_text().count("<svg") == len(PICTURES)
    assert str(metadata["report"].value).endswith(f"/home/reports/tiny/{PAGE}")  # of the home this one was copied from
    assert {"accuracy_student_held_out_T1", "dropped_share_correctness", "cut_off_share"} <= set(metadata)
    for name in PICTURES:
        assert str(metadata[name].value).startswith("![plot](data:image/png;base64,")
    accuracies, drops = metadata["accuracies"], metadata["drops"]
    assert isinstance(accuracies, dg.TableMetadataValue)
    assert isinstance(drops, dg.TableMetadataValue)
    names = [record.data["checkpoint"] for record in accuracies.records]
    assert names == ["teacher", "student", "t060", "t100", "mixed"]
    assert [column.name for column in drops.schema.columns] == ["filter", "T=0.6", "T=1"]
    assert {record.data["filter"] for record in drops.records} == set(FILTERS)
