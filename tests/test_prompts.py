"""Which landed rows become prompts, and what is said of the others."""

import os
from pathlib import Path

import dagster as dg
import pytest
from conftest import Project, change, prompt_rows
from raised_rule import raise_version

from dasd_assets.audit.outdated import explained
from dasd_assets.commands.run import RunFailed, execute, register_batches
from dasd_assets.prompts import LANDING, find_landed
from dasd_assets.records.partitions import batches
from dasd_assets.records.quarantine import quarantine
from dasd_assets.withdrawals import outdated_batches, withdraw
from dasd_resources.demo.questions import write_rows
from dasd_resources.landing.landing_folder import LandingFolder


def test_a_batch_whose_file_is_gone_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "prompts").mkdir()
    with pytest.raises(dg.Failure, match=r"batch 'b-0{12}': no file in .*prompts has this content. A batch comes"):
        find_landed(LandingFolder.of(None, tmp_path), "b-000000000000")


def test_a_folder_that_is_away_is_not_one_whose_files_are_gone(project: Project, tmp_path: Path) -> None:
    """Not mounted for a moment, say: no batch is given up for it, nor made from what the tables have of its file."""
    folder, away = tmp_path / "landing", tmp_path / "away"
    write_rows(folder / "a.jsonl", [{"question": "What is 2 + 3?", "harder": "What is 30 - 4?"}])
    os.utime(folder / "a.jsonl", (1, 1))
    project.recipe = change(project.recipe, "automation.landing", str(folder))
    with project.instance() as instance:
        register_batches(instance, project.recipe, project.home, project.said.append)
    folder.rename(away)
    with pytest.raises(RunFailed, match="landing is not there now: mount it"):
        project.make_batches()
    assert quarantine(project.warehouse).now == {}
    away.rename(folder)
    project.materialize("prompts")
    project.recipe = change(project.recipe, "landing.columns", [{"question": "harder"}])
    folder.rename(away)
    with pytest.raises(RunFailed, match="landing is not there now: mount it"):
        project.materialize("prompts")
    away.rename(folder)
    project.materialize("prompts")
    assert project.read("SELECT question FROM prompts")["question"].to_list() == ["What is 30 - 4?"]


@pytest.mark.parametrize("file_stays", [True, False])
def test_a_question_left_to_a_batch_that_is_deleted_comes_back(project: Project, file_stays: bool) -> None:
    """It was a line of both files; the later batch takes it over, even if its own file is gone by now."""
    project.land("a.jsonl", prompt_rows(0, 2))
    with project.instance() as instance:
        register_batches(instance, project.recipe, project.home, project.said.append)
    project.materialize("held_out_questions,prompts")
    project.land("b.jsonl", prompt_rows(1, 3))
    project.materialize("held_out_questions,prompts")
    with project.instance() as instance:
        first, second = batches(instance)
        assert outdated_batches(project.warehouse, [first, second]) == {}
        instance.delete_dynamic_partition("prompt_batch", first)
        for name in ("a.jsonl",) if file_stays else ("a.jsonl", "b.jsonl"):
            (project.home / "prompts" / name).unlink()
        stale = explained(instance, project.definitions, project.recipe, project.engines, project.warehouse)["stale"]
    (found,) = [row["reason"] for row in stale if row["asset"] == "prompts"]
    assert found.startswith("1 questions duplicated in removed batches (")
    project.materialize("held_out_questions,prompts")
    assert outdated_batches(project.warehouse, [second]) == {}
    kept = project.read("SELECT source_file, source_line FROM prompts WHERE batch = $batch ORDER BY ALL", batch=second)
    assert kept.rows() == [("b.jsonl", 1), ("b.jsonl", 2)]
    assert project.count("rejected_prompts WHERE batch = (SELECT max(batch) FROM prompts)") == 0


def test_a_line_whose_owner_and_text_are_gone_is_a_kind_of_its_own(project: Project) -> None:
    """Its prompt was withdrawn before its owner was deleted, so there is nothing left to take over."""
    project.land("a.jsonl", prompt_rows(0, 2))
    with project.instance() as instance:
        register_batches(instance, project.recipe, project.home, project.said.append)
    project.materialize("held_out_questions,prompts")
    project.land("b.jsonl", prompt_rows(1, 3))
    project.materialize("held_out_questions,prompts")
    rejected = "SELECT kind, prompt_id, owner_batch FROM rejected_prompts WHERE source_file = 'b.jsonl'"
    [(kind, prompt_id, owner)] = project.read(rejected).rows()
    assert kind == "duplicate"
    withdraw(project.warehouse, [prompt_id], [], "a claim")
    with project.instance() as instance:
        first, second = batches(instance)
        assert owner == first
        execute(instance, project.definitions, ["prompts"], first, project.home)
        instance.delete_dynamic_partition("prompt_batch", first)
    for name in ("a.jsonl", "b.jsonl"):
        (project.home / "prompts" / name).unlink()
    project.materialize("held_out_questions,prompts")
    assert project.read(rejected).rows() == [("duplicate_file_gone", prompt_id, owner)]
    assert outdated_batches(project.warehouse, [second]) == {}


@pytest.mark.drill
def test_a_new_release_reaches_a_batch_whose_file_is_gone(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.land("a.jsonl", [*prompt_rows(0, 3), {"question": ""}])
    project.run()
    rows = "SELECT * EXCLUDE (run_id) FROM {} ORDER BY ALL"
    before = [project.read(rows.format(table)).rows() for table in ("prompts", "rejected_prompts", "responses")]
    (project.home / "prompts" / "a.jsonl").unlink()
    raise_version(monkeypatch, "PROMPTS_VERSION", LANDING, "raised")
    project.fake.generated.clear()
    project.run()
    assert "prompts" in project.materialized
    assert [project.read(rows.format(table)).rows() for table in ("prompts", "rejected_prompts", "responses")] == before
    assert project.fake.generated == []
