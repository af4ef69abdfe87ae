"""A takedown: kept out of everything made from then on, named with the checkpoints that learned from it, and undone."""

import json
from io import BytesIO, TextIOWrapper
from pathlib import Path

import polars as pl
import pytest
from conftest import Project, change, prompt_rows

from dasd_assets.audit.takedown import read_names, take_down
from dasd_assets.cli import main
from dasd_assets.commands.run import execute
from dasd_assets.records.partitions import batches
from dasd_assets.rules.typed_ids import AuditError
from dasd_assets.service.planning import Planner
from dasd_assets.withdrawals import UnknownPrompts, outdated_batches, undo_withdrawal, withdraw, withdrawals_of
from dasd_resources.landing.landing_folder import LandingFolder
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Transaction
from dasd_resources.storage.warehouse import Warehouse

MADE = (
    "prompts",
    "(FROM selected_responses WHERE dataset <> 'mixed')",  # the mixed draw changes with every checkpoint
    "(FROM lineage_examples WHERE dataset <> 'mixed')",
)


def selected_prompt(project: Project) -> tuple[str, str]:
    """A question of stage 1, so that every checkpoint has to be trained anew."""
    query = """SELECT p.prompt_id, p.question FROM prompts p JOIN selected_responses s USING (prompt_id)
        WHERE s.dataset = 't060' AND s.policy = 'das' ORDER BY p.prompt_id LIMIT 1"""
    return project.read(query).row(0)


@pytest.mark.storage
def test_a_withdrawn_question_leaves_all_that_is_made_and_comes_back_for_nothing(
    copy: Project, lean: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(copy.home))
    copy.recipe = lean
    prompt, question = selected_prompt(copy)
    before = {table: copy.read(f"SELECT * FROM {table} WHERE prompt_id = $id", id=prompt).height for table in MADE}
    responses = copy.count("responses")
    (tmp_path / "names.txt").write_text(f"{prompt}\n")
    assert main(["takedown", str(tmp_path / "names.txt"), "--reason", "a claim", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [row["question"] for row in told["prompts"]] == [question]
    assert {row["name"] for row in told["checkpoints"]} == {"t060", "t100", "mixed"}

    copy.land("copy.jsonl", [{"question": f"  {question}", "domain": "elsewhere"}])  # the same text, another domain
    copy.run()
    assert {"prompts", "selected_responses_t060", "checkpoint_t060"} <= copy.materialized
    for table in (*MADE, "selected_responses", "lineage_examples"):
        assert copy.read(f"SELECT * FROM {table} WHERE prompt_id = $id", id=prompt).is_empty()
    rejected = copy.read("SELECT * FROM rejected_prompts")
    assert set(rejected["kind"]) == {"withdrawn"}
    assert set(rejected["reason"]) == {"withdrawn: a claim"}
    assert sorted(rejected["source_file"]) in (["a.jsonl", "copy.jsonl"], ["b.jsonl", "copy.jsonl"])
    assert copy.count("responses") == responses
    with copy.instance() as instance:
        assert outdated_batches(copy.warehouse, batches(instance)) == {}

    capsys.readouterr()
    assert main(["takedown", str(tmp_path / "names.txt"), "--undo"]) == 0
    assert "Brought back: 1 prompt" in capsys.readouterr().out
    copy.select()
    after = {table: copy.read(f"SELECT * FROM {table} WHERE prompt_id = $id", id=prompt).height for table in MADE}
    assert after == before


def test_nothing_is_trained_on_withdrawn_questions_while_a_batch_keeps_the_selection_waiting(copy: Project) -> None:
    copy.recipe = change(copy.recipe, "training.learning_rate", 1e-3)
    with copy.instance() as instance:
        planner = Planner(instance, copy.definitions, copy.recipe, copy.engines, copy.warehouse)
        assert planner.training_plan().due
        withdraw(copy.warehouse, [selected_prompt(copy)[0]], [], "a claim")
        plan = planner.training_plan()
        assert (plan.due, plan.waiting) == ([], ["1 withdrawn question is in the datasets: first selection"])
        copy.select()  # which leaves it in the mixed dataset, that a training makes again
        assert planner.training_plan().due


@pytest.mark.drill
def test_a_takedown_survives_the_file_it_came_from(copy: Project) -> None:
    prompt, _ = selected_prompt(copy)
    withdraw(copy.warehouse, [prompt], [], "a claim")
    for file in (copy.home / "prompts").iterdir():
        file.unlink()
    copy.run()
    assert copy.read("SELECT 1 FROM prompts WHERE prompt_id = $id", id=prompt).is_empty()
    assert copy.count("prompts") == 14


def test_a_question_brought_back_passes_to_the_file_that_has_it_now(project: Project) -> None:
    """Responses and all; the batch whose file is gone does without it."""
    selection = "teacher_model,prompts,teacher_generations_t060"
    rows = prompt_rows(0, 3)
    project.land("a.jsonl", rows)
    project.materialize(selection)
    [prompt] = project.read("SELECT prompt_id FROM prompts WHERE source_line = 1")["prompt_id"]
    withdraw(project.warehouse, [prompt], [], "a claim")
    project.materialize("held_out_questions,prompts")
    project.land("a.jsonl", [rows[0], *prompt_rows(5, 6)])
    folder = LandingFolder.of(None, project.home)
    [new] = folder.keys(folder.files())
    made = ["prompts", "teacher_generations_t060"]
    with project.instance() as instance:
        [old] = batches(instance)
        instance.add_dynamic_partitions("prompt_batch", [new])
        execute(instance, project.definitions, made, new, project.home)
        undo_withdrawal(project.warehouse, [prompt], [])
        assert set(outdated_batches(project.warehouse, [old, new])) == {old, new}
        project.fake.generated.clear()
        for batch in (new, old):
            execute(instance, project.definitions, made, batch, project.home)
    assert project.fake.generated == []
    responses = project.read("SELECT response_id, batch FROM responses")
    assert responses["response_id"].is_unique().all()
    assert sorted(responses.group_by("batch").len()["len"]) == [4, 4]
    with project.instance() as instance:
        assert outdated_batches(project.warehouse, batches(instance)) == {}
    gone = project.read("SELECT kind, prompt_id, reason FROM rejected_prompts").rows()
    assert gone == [("withdrawn_file_gone", prompt, "no more withdrawn, but this file is gone")]


def test_withdrawing_twice_changes_nothing(copy: Project) -> None:
    prompt, question = selected_prompt(copy)
    assert len(withdraw(copy.warehouse, [prompt], [], "first").prompts) == 1
    again = withdraw(copy.warehouse, [prompt], [question], "second")
    assert (list(again.prompts), again.num_already) == ([], 1)
    assert copy.read("SELECT reason FROM withdrawn_prompts")["reason"].to_list() == ["first"]
    assert len(undo_withdrawal(copy.warehouse, [prompt], []).prompts) == 1
    assert undo_withdrawal(copy.warehouse, [prompt], []).num_already == 1
    assert copy.count("withdrawn_prompts") == 0


def test_many_withdrawn_questions_of_a_batch_are_noted_at_once(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    reasons = {f"question {number}": f"claim {number % 2}" for number in range(20)}
    for reason in ("claim 0", "claim 1"):
        withdraw(warehouse, [], [question for question, why in reasons.items() if why == reason], reason)
    appended, append = list[int](), Transaction.append_missing

    def counted(self: Transaction, table: str, rows: pl.DataFrame, batch: str | None = None) -> int:
        appended.append(rows.height)
        return append(self, table, rows, batch)

    monkeypatch.setattr(Transaction, "append_missing", counted)
    landed = {f"id of {question}": question for question in [*reasons, "another"]}
    for _ in range(2):  # as when the batch's prompts are made again
        with warehouse.commit("test") as transaction:
            found = withdrawals_of(transaction, landed.items())
        assert found == {f"id of {question}": why for question, why in reasons.items()}
    assert appended == [20, 20]
    noted = warehouse.read("SELECT prompt_id, reason FROM withdrawn_prompts WHERE prompt_id LIKE 'id of %'")
    assert dict(noted.iter_rows()) == found


def test_a_shortened_id_is_the_one_it_begins_or_an_error(copy: Project) -> None:
    prompt, question = selected_prompt(copy)
    for prefix, told in (("0000", "nothing was changed: there is no prompt 0000"), ("ab", "is no prompt id")):
        with pytest.raises(AuditError, match=told):
            take_down(copy.warehouse, [prompt[:12], prefix], [], "a claim", undo=False)
    assert copy.count("withdrawn_prompts") == 0
    first = take_down(copy.warehouse, [prompt[:12]], [], "a claim", undo=False)
    assert [row["question"] for row in first["prompts"]] == [question]
    again = take_down(copy.warehouse, [prompt[:12]], [], "a claim", undo=False)
    assert (again["prompts"], again["num_already"]) == ([], 1)
    undone = take_down(copy.warehouse, [prompt], [], "", undo=True)
    twice = take_down(copy.warehouse, [prompt], [], "", undo=True)
    assert {row["name"] for row in first["checkpoints"]} == {"t060", "t100", "mixed"}
    assert first["checkpoints"] == again["checkpoints"] == undone["checkpoints"] == twice["checkpoints"]


def test_a_question_that_has_not_landed_is_refused_when_it_does(project: Project) -> None:
    taken = withdraw(project.warehouse, [], ["Never  ask this"], "a claim")
    assert (list(taken.prompts), taken.unlanded) == ([], ["Never  ask this"])


def test_an_unknown_id_changes_nothing(copy: Project) -> None:
    prompt, _ = selected_prompt(copy)
    with pytest.raises(UnknownPrompts, match="nothing was changed: there is no prompt 0000"):
        withdraw(copy.warehouse, [prompt, "0" * 32], [], "a claim")
    assert copy.count("withdrawn_prompts") == 0


def test_a_file_names_prompts_in_any_way() -> None:
    lines = [
        "0" * 32,
        "",
        "What is 2 + 2?",
        '"What is 3?"',
        '{"question": "Why?", "domain": "x"}',
        '{"prompt_id": " AB"}',
        "C7DAE0E6",
        "abc",
        "f" * 33,
        '"beef"',
    ]
    questions = ["What is 2 + 2?", "What is 3?", "Why?", "abc", "f" * 33, "beef"]
    assert read_names(lines) == (["0" * 32, "ab", "c7dae0e6"], questions)
    assert read_names(["\ufeffc7dae0e6"]) == (["c7dae0e6"], [])
    for line in ("{", '{"a":' * 100_000, '{"question": "\\ud800"}'):
        with pytest.raises(AuditError, match="line 2 is not JSON"):
            read_names(["x", line])
    with pytest.raises(AuditError, match=r"not UTF-8 text: .*; nothing was changed"):
        read_names(TextIOWrapper(BytesIO("caf\u00e9".encode("latin-1")), encoding="utf-8"))
    with pytest.raises(AuditError, match="line 1 has neither"):
        read_names(['{"id": 3}'])
    with pytest.raises(AuditError, match="names no prompt"):
        read_names(["", " "])


def test_a_takedown_needs_a_reason(
    finished: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DASD_HOME", str(finished.home))
    assert main(["takedown", "names.txt", "--reason", " "]) == 1
    assert "give a --reason" in capsys.readouterr().err
