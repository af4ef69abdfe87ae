"""Which landed rows become prompts, and what is said of the others."""

from pathlib import Path

import dagster as dg
import pytest

from dasd_assets.prompts import find_landed, landed_batches, split_owned
from dasd_resources.landing import Prompt, RejectedPrompt


def prompt(key: str, line: int) -> Prompt:
    return Prompt(key, "math", "1 + 1?", "2", "exact", "Be brief.", '{"k":1}', "a.jsonl", line)


def land(home: Path, content: str) -> str:
    """The batch of `prompts/a.jsonl` with this content."""
    file = home / "prompts" / "a.jsonl"
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    [batch] = landed_batches(home)
    return batch


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
    records = [prompt("p1", 1), RejectedPrompt("a.jsonl", 2, "not JSON"), prompt("p2", 3)]
    prompts, rejected = split_owned(records, "b2", {"p1": "b1", "p9": "b1"})
    assert [row["prompt_id"] for row in prompts] == ["p2"]
    assert rejected == [
        {"batch": "b2", "source_file": "a.jsonl", "source_line": 1, "reason": "duplicate of prompt p1 in batch b1"},
        {"batch": "b2", "source_file": "a.jsonl", "source_line": 2, "reason": "not JSON"},
    ]


def test_no_records_make_no_rows() -> None:
    assert split_owned([], "b1", {"p1": "b0"}) == ([], [])


def test_a_batch_is_found_by_name_and_content(tmp_path: Path) -> None:
    batch = land(tmp_path, '{"question": "a"}\n')
    assert batch.startswith("a")
    assert find_landed(tmp_path, batch) == tmp_path / "prompts" / "a.jsonl"


def test_an_edited_file_is_another_batch_and_the_old_one_is_gone(tmp_path: Path) -> None:
    old = land(tmp_path, '{"question": "a"}\n')
    new = land(tmp_path, '{"question": "b"}\n')
    assert old != new
    with pytest.raises(dg.Failure, match=rf"batch {old}: no file in .*prompts has this name and content.*Put it back"):
        find_landed(tmp_path, old)


def test_without_a_landing_folder_there_are_no_batches(tmp_path: Path) -> None:
    assert landed_batches(tmp_path) == {}
    with pytest.raises(dg.Failure, match="batch b1: no file in"):
        find_landed(tmp_path, "b1")
