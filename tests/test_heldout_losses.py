"""Held-out losses: which responses are held out, sums per type of sentence by hand, each scored once."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
from conftest import Project, change, prompt_rows
from tensorboard_files import scalars

from dasd_assets.audit.outdated import explained
from dasd_assets.audit.pages.question import prompt_page
from dasd_assets.audit.prompt import prompt_record
from dasd_assets.audit.response import audit_response
from dasd_assets.audit.verify import verify
from dasd_assets.audit.verify.datasets import HOLDING
from dasd_assets.heldout_losses import build
from dasd_assets.records.heldout_curves import loss_by_stage
from dasd_assets.records.plots import png
from dasd_assets.rules.candidates import is_held_out
from dasd_assets.rules.heldout_responses import losses_by_type, sentence_sums
from dasd_resources.recipe import Recipe

TEXT = "<think>\nSo. No.\n</think>\nIt is 3."
OFFSETS = [0, 8, 10, 12, 13, 15, 25, 30, -1]  # <think>, So, ., No, ., </think>, It is, 3., end of turn
BEFORE = [-1.0, -2.0, -2.0, -3.0, -3.0, -1.0, -4.0, -4.0, -0.5]
AFTER = [-0.5, -1.0, -1.0, -3.0, -2.0, -1.0, -1.0, -1.0, -0.5]


def sums() -> pl.DataFrame:
    responses = [(name, TEXT, OFFSETS, BEFORE, AFTER) for name in ("r1", "r2")]
    return sentence_sums(
        pl.DataFrame(responses, schema=["response_id", "text", "offsets", "before", "after"], orient="row")
    )


def test_sums_of_sentences_and_of_what_is_outside_are_those_of_the_response() -> None:
    found = sums().filter(response_id="r1")
    assert found["sentence_index"].to_list() == [0, 1, 2, None]
    assert found["num_tokens"].to_list() == [2, 2, 2, 3]
    assert found["before"].to_list() == [-4, -6, -8, -2.5]
    assert found["after"].to_list() == [-2, -5, -2, -2]


def test_losses_are_per_token_and_their_change_is_clustered_by_question() -> None:
    kinds = ["teacher", "student", None]
    types = pl.DataFrame(
        [(name, i, kind) for name in ("r1", "r2") for i, kind in enumerate(kinds)],
        schema={"response_id": pl.String, "sentence_index": pl.Int32, "sentence_type": pl.String},
        orient="row",
    )
    responses = pl.DataFrame(
        [("r1", "q1", "t060", True), ("r2", "q2", "t060", True)],
        schema=["response_id", "prompt_id", "dataset", "question_seen"],
        orient="row",
    )
    other = pl.when(response_id="r2", sentence_index=0).then(-4.0).otherwise(pl.col("after"))  # nothing learned
    found = losses_by_type(sums().with_columns(after=other), types, responses)
    rows = {row["sentence_type"]: row for row in found.to_dicts()}
    assert list(rows) == ["teacher", "student", "untyped", "outside", "all"]
    assert {kind: row["num_tokens"] for kind, row in rows.items()} == {
        **{"teacher": 4, "student": 4, "untyped": 4},
        **{"outside": 6, "all": 18},
    }
    assert rows["teacher"]["loss"] == pytest.approx(6 / 4)
    assert rows["teacher"]["change"] == pytest.approx(-0.5)
    # Of 2 tokens each, the questions changed by -2 and 0 where -1 and -1 were to be expected: sqrt((1 + 1) * 2) / 4.
    assert rows["teacher"]["change_standard_error"] == pytest.approx(0.5)
    assert rows["student"]["change_standard_error"] == pytest.approx(0)
    assert rows["all"]["share_of_change"] == pytest.approx(1)
    assert sum(row["share_of_change"] for kind, row in rows.items() if kind != "all") == pytest.approx(1)
    alone = losses_by_type(sums(), types, responses.head(1))
    assert alone["change_standard_error"].null_count() == alone.height


def test_every_checkpoint_has_a_loss_on_what_none_was_trained_on(finished: Project) -> None:
    losses = finished.read("SELECT * FROM heldout_losses")
    chain = finished.read("SELECT checkpoint_id FROM checkpoints WHERE name <> 'teacher'")["checkpoint_id"]
    assert set(losses["checkpoint_id"]) == set(chain)
    scored = finished.read("SELECT * FROM heldout_logprobs")
    trained = finished.read("SELECT response_id FROM checkpoint_examples WHERE response_id IS NOT NULL")["response_id"]
    assert scored.height and not set(scored["response_id"]) & set(trained)
    undistilled = finished.read("SELECT checkpoint_id FROM checkpoints WHERE name = 'student'").item()
    assert set(scored["checkpoint_id"]) == set(chain) - {undistilled}
    assert losses.filter(checkpoint_id=undistilled)["change"].abs().max() == 0
    groups = losses.filter(sentence_type="all").group_by("dataset", "question_seen")
    whole = groups.agg(pl.col("num_tokens").n_unique())
    assert whole["num_tokens"].to_list() == [1] * whole.height
    named = losses.with_columns(checkpoint=pl.col("checkpoint_id"))
    assert len(png(loss_by_stage(named))) > 1000


def test_tensorboard_has_each_type_of_sentence_over_the_stages(finished: Project) -> None:
    stages = ["student", *finished.recipe.datasets, "mixed"]
    losses = finished.read("""SELECT l.*, c.name FROM heldout_losses l
        JOIN (SELECT DISTINCT checkpoint_id, name FROM checkpoints) c USING (checkpoint_id)""")
    folder = finished.home / "trackers" / "heldout" / finished.recipe.name
    group = ["dataset", "question_seen", "sentence_type"]
    for (dataset, seen, kind), part in losses.group_by(group):
        curves = scalars(folder / str(dataset) / ("seen" if seen else "not_seen") / str(kind))
        for name in ("loss", "change"):
            wanted = sorted((stages.index(row["name"]), row[name]) for row in part.to_dicts())
            assert curves[f"heldout/{name}"] == [(step, pytest.approx(value)) for step, value in wanted]
    assert len(list(folder.rglob("events.*"))) == losses.n_unique(group)


def test_what_a_crash_left_is_scored_and_nothing_twice(copy: Project) -> None:
    before = copy.read("SELECT heldout_logprobs_id, logprobs FROM heldout_logprobs ORDER BY ALL")
    losses = copy.read("SELECT * EXCLUDE run_id FROM heldout_losses ORDER BY ALL")
    with copy.warehouse.commit("test") as transaction:
        transaction.read("DELETE FROM heldout_logprobs")
    copy.fake.crash_after = 3
    with pytest.raises(RuntimeError, match="crashed after 3 results"):
        copy.materialize("heldout_losses")
    copy.fake.crash_after = None
    copy.materialize("heldout_losses")
    assert copy.read("SELECT heldout_logprobs_id, logprobs FROM heldout_logprobs ORDER BY ALL").equals(before)
    assert copy.read("SELECT * EXCLUDE run_id FROM heldout_losses ORDER BY ALL").equals(losses)
    assert len(copy.fake.scored) == len(set(copy.fake.scored)) == before.height


def test_without_heldout_nothing_is_built(tiny: Recipe) -> None:
    assert build(tiny.model_copy(update={"heldout": None})) == []


SHARE = 0.3
CURRENT = """SELECT checkpoint_id FROM checkpoints WHERE recipe_document LIKE '%"questions": 0.3%'"""


def held_out(project: Project) -> set[str]:
    """The questions that the project holds out of training."""
    ids = project.read("SELECT prompt_id FROM prompts")["prompt_id"]
    with project.warehouse.reading() as reading:
        return {prompt for prompt in ids if is_held_out(reading, SHARE, prompt)}


@pytest.fixture(scope="module")
def holding(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A finished home on which the same recipe has run again with questions held out; what was stale is in `said`."""
    home = tmp_path_factory.mktemp("holding") / "home"
    shutil.copytree(finished.home, home)
    project = Project(home, change(finished.recipe, "heldout.questions", SHARE))
    with project.instance() as instance:
        stale = explained(instance, project.definitions, project.recipe, project.engines, project.warehouse)["stale"]
    project.said += [f"{row['asset']} is stale: {row['causes'][0]['message']}" for row in stale]
    project.run()
    return project


def test_what_is_held_out_is_neither_selected_nor_trained_on_nor_rolled_out(holding: Project) -> None:
    held = held_out(holding)
    assert 0 < len(held) < holding.count("prompts")
    used = {
        "selected": "SELECT prompt_id FROM selected_responses",
        "in a dataset": """SELECT coalesce(r.prompt_id, c.prompt_id) FROM sft_examples e
            LEFT JOIN responses r USING (response_id) LEFT JOIN teacher_continuations c USING (continuation_id)""",
        "trained on": f"SELECT prompt_id FROM checkpoint_examples WHERE checkpoint_id IN ({CURRENT})",
        "rolled out": f"SELECT prompt_id FROM student_rollouts WHERE checkpoint_id IN ({CURRENT})",
    }
    for how, query in used.items():
        found = set(holding.read(query).to_series())
        assert found and not found & held, how
    groups = holding.read("SELECT DISTINCT dataset, policy FROM sft_examples").rows()
    assert {("t060", "das"), ("t060", "random"), ("t100", "das"), ("t100", "random"), ("mixed", "das")} <= set(groups)


def test_only_the_selection_and_what_follows_is_made_anew(holding: Project, finished: Project) -> None:
    said = [line for line in holding.said if " is stale: " in line]
    for asset in ("selected_responses_t060", "selected_responses_t100", "random_responses"):
        assert [line for line in said if line.startswith(asset) and "heldout.questions" in line], said
    for table in ("responses", "student_logprobs", "response_scores"):
        assert holding.count(table) == finished.count(table)


def test_the_questions_not_seen_are_those_held_out(holding: Project) -> None:
    query = f"""SELECT r.prompt_id FROM heldout_logprobs h JOIN responses r USING (response_id)
        WHERE h.checkpoint_id IN ({CURRENT})"""
    scored = set(holding.read(query)["prompt_id"])
    trained = f"SELECT prompt_id FROM checkpoint_examples WHERE checkpoint_id IN ({CURRENT})"
    unseen = scored - set(holding.read(trained)["prompt_id"])
    assert unseen and unseen <= held_out(holding) and scored - unseen
    losses = holding.read("SELECT DISTINCT question_seen FROM heldout_losses")["question_seen"]
    assert set(losses) == {True, False}


def test_audits_say_that_a_question_is_held_out(holding: Project) -> None:
    prompt = min(held_out(holding))
    ids = holding.read("SELECT response_id FROM responses WHERE prompt_id = $id", id=prompt)["response_id"]
    with holding.warehouse.reading() as reading:
        assert "HELD OUT" in prompt_page(prompt_record(reading, prompt))
        for response in ids:
            rows = [row for row in audit_response(reading, response)["selections"] if row["dataset"] != "mixed"]
            assert {row["policy"] for row in rows} == {"das", "random"}
            assert {row["kind"] for row in rows} == {"question_held_out"}
        other = min(set(holding.read("SELECT prompt_id FROM prompts")["prompt_id"]) - held_out(holding))
        assert "HELD OUT" not in prompt_page(prompt_record(reading, other))


def test_a_verification_finds_a_held_out_question_that_was_trained_on(holding: Project, tmp_path: Path) -> None:
    assert list(verify(holding.warehouse)) == []
    shutil.copytree(holding.home, tmp_path / "home")
    project = Project(tmp_path / "home", holding.recipe)
    with project.warehouse.commit("a test") as transaction:  # as if those of before had been trained by this recipe
        transaction.read("""UPDATE checkpoints SET recipe_document = (
            SELECT max(recipe_document) FROM checkpoints WHERE recipe_document LIKE '%"questions": 0.3%')""")
    found = [str(fault) for fault in project.faults("checkpoints") if "holds out" in str(fault)]
    assert any("checkpoint_examples" in fault and "(heldout.questions)" in fault for fault in found)


def test_a_verification_finds_a_held_out_question_in_a_dataset(holding: Project, tmp_path: Path) -> None:
    shutil.copytree(holding.home, tmp_path / "home")
    project = Project(tmp_path / "home", holding.recipe)
    with project.warehouse.commit("a test") as transaction:  # as if more had been held out when t100 was selected
        transaction.read("""UPDATE selection_rules SET rule = json_merge_patch(rule, '{"held_out_share": 0.6}')
            WHERE dataset = 't100'""")
    found = project.faults("held-out questions in selected_responses", "held-out questions in sft_examples")
    assert all("(heldout.questions)" in fault.what for fault in found)
    named = {(*fault.row.split()[1:3], fault.table): fault for fault in found}
    groups = [("t100", "das"), ("t100", "random"), ("mixed", "das")]
    assert set(named) == {(*group, table) for group in groups for table in ("selected_responses", "sft_examples")}
    assert named["t100", "random", "sft_examples"].remedy == "materialize sft_dataset_t100 again"
    selected = project.read("SELECT response_id, prompt_id FROM selected_responses WHERE dataset = 't100'").rows()
    with project.warehouse.reading() as reading:
        wrong = {response for response, prompt in selected if is_held_out(reading, 0.6, prompt)}
    in_selection = [fault for fault in found if (fault.table, fault.row.split()[1]) == ("selected_responses", "t100")]
    assert {fault.row.split()[-1] for fault in in_selection} == wrong


def test_a_rule_that_has_been_damaged_is_a_fault(holding: Project, tmp_path: Path) -> None:
    shutil.copytree(holding.home, tmp_path / "home")
    project = Project(tmp_path / "home", holding.recipe)
    damage = {"mixed": {"drawn_from": 5}, "t060": {"held_out_share": "a third"}, "t100": {"domain_means": [0.5]}}
    with project.warehouse.commit("a test") as transaction:
        for dataset, patch in damage.items():
            query = "UPDATE selection_rules SET rule = json_merge_patch(rule, $patch) WHERE dataset = $dataset"
            transaction.read(query, {"patch": json.dumps(patch), "dataset": dataset})
    found = project.faults("ranks", *(f"held-out questions in {table}" for table in HOLDING))  # what reads a rule
    faults = [fault for fault in found if fault.table == "selection_rules"]
    assert {fault.row.split()[-1] for fault in faults} == set(damage) and len(faults) == len(damage)
    assert {fault.what for fault in faults} == {"its rule cannot be read"}


@pytest.mark.drill
def test_no_question_changes_sides_when_others_land(holding: Project, tmp_path: Path) -> None:
    shutil.copytree(holding.home, tmp_path / "home")
    project = Project(tmp_path / "home", holding.recipe)
    before = held_out(project)
    known = set(project.read("SELECT prompt_id FROM prompts")["prompt_id"])
    project.land("c.jsonl", prompt_rows(15, 24))
    project.materialize("*random_responses")
    after = held_out(project)
    assert after & known == before and project.count("prompts") == len(known) + 9
    assert not after & set(
        project.read("SELECT prompt_id FROM selected_responses WHERE dataset <> 'mixed'")["prompt_id"]
    )
