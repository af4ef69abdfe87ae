"""Which landed rows become prompts, and what is said of the others."""

from pathlib import Path

import dagster as dg
import pytest
from conftest import Project, prompt_rows
from raised_rule import raise_version

from dasd_assets.audit.outdated import explained
from dasd_assets.commands.run import execute, register_batches
from dasd_assets.prompts import LANDING, find_landed, split_owned
from dasd_assets.records.partitions import batches
from dasd_assets.withdrawals import outdated_batches, withdraw
from dasd_resources.landing.landing_folder import LandingFolder
from dasd_resources.landing.prompt_files import Prompt
from dasd_resources.landing.rejections import RejectedPrompt


def prompt(key: str, line: int) -> Prompt:
    return Prompt(key, "math", "1 + 1?", "2", "exact", "Be brief.", '{"k":1}', "a.jsonl", line)


def test_a_prompt_keeps_every_field() -> None:
    prompts, rejected = split_owned([prompt("p1", 3)], "b1", {})
    assert rejected == []
    assert prompts == [
        {
            "prompt_id": "p1",
            "batch": "b1",
            "domain": "math",
            "question": "1 + 1?",
            "system_prompt": "Be brief.",
            "reference_answer": "2",
            "verifier": "exact",
            "metadata": '{"k":1}',
            "source_file": "a.jsonl",
            "source_line": 3,
        }
    ]


def test_a_copy_of_another_batch_and_a_bad_row_are_rejected_beside_the_good_one() -> None:
    records = [prompt("p1", 1), RejectedPrompt("a.jsonl", 2, "invalid_json", "not JSON"), prompt("p2", 3)]
    prompts, rejected = split_owned(records, "b2", {"p1": "b1", "p9": "b1"})
    assert [row["prompt_id"] for row in prompts] == ["p2"]
    assert rejected == [
        {
            "batch": "b2",
            "source_file": "a.jsonl",
            "source_line": 1,
            "kind": "duplicate",
            "reason": "duplicate of prompt p1 in batch b1",
            "prompt_id": "p1",
            "owner_batch": "b1",
        },
        {
            "batch": "b2",
            "source_file": "a.jsonl",
            "source_line": 2,
            "kind": "invalid_json",
            "reason": "not JSON",
            "prompt_id": None,
            "owner_batch": None,
        },
    ]


def test_no_records_make_no_rows() -> None:
    assert split_owned([], "b1", {"p1": "b0"}) == ([], [])


def test_a_batch_whose_file_is_gone_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(dg.Failure, match=r"batch 'b-0{12}': no file in .*prompts has this content. A batch comes"):
        find_landed(LandingFolder.of(None, tmp_path), "b-000000000000")


@pytest.mark.parametrize("file_stays", [True, False])
def test_a_question_left_to_a_batch_that_is_deleted_comes_back(project: Project, file_stays: bool) -> None:
    """It was a line of both files; the later batch takes it over, even if its own file is gone by now."""
    project.land("a.jsonl", prompt_rows(0, 2))
    with project.instance() as instance:
        register_batches(instance, project.recipe, project.home, project.said.append)
    project.materialize("prompts")
    project.land("b.jsonl", prompt_rows(1, 3))
    project.materialize("prompts")
    with project.instance() as instance:
        first, second = batches(instance)
        assert outdated_batches(project.warehouse, [first, second]) == {}
        instance.delete_dynamic_partition("prompt_batch", first)
        for name in ("a.jsonl",) if file_stays else ("a.jsonl", "b.jsonl"):
            (project.home / "prompts" / name).unlink()
        stale = explained(instance, project.definitions, project.recipe, project.engines, project.warehouse)["stale"]
    (found,) = [row["reason"] for row in stale if row["asset"] == "prompts"]
    assert found.startswith("1 questions duplicated in removed batches (")
    project.materialize("prompts")
    assert outdated_batches(project.warehouse, [second]) == {}
    kept = project.read("SELECT source_file, source_line FROM prompts WHERE batch = $batch ORDER BY ALL", batch=second)
    assert kept.rows() == [("b.jsonl", 1), ("b.jsonl", 2)]
    assert project.count("rejected_prompts WHERE batch = (SELECT max(batch) FROM prompts)") == 0


def test_a_line_whose_owner_and_text_are_gone_is_a_kind_of_its_own(project: Project) -> None:
    """Its prompt was withdrawn before its owner was deleted, so there is nothing left to take over."""
    project.land("a.jsonl", prompt_rows(0, 2))
    with project.instance() as instance:
        register_batches(instance, project.recipe, project.home, project.said.append)
    project.materialize("prompts")
    project.land("b.jsonl", prompt_rows(1, 3))
    project.materialize("prompts")
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
    project.materialize("prompts")
    assert project.read(rejected).rows() == [("duplicate_file_gone", prompt_id, owner)]
    assert outdated_batches(project.warehouse, [second]) == {}


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
