"""Which landed rows become prompts, and what is said of the others."""

from pathlib import Path

import dagster as dg
import pytest

from dasd_assets.prompts import find_landed, split_owned
from dasd_resources.landing import Prompt, RejectedPrompt
from dasd_resources.landing_folder import LandingFolder


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
    records = [prompt("p1", 1), RejectedPrompt("a.jsonl", 2, "not JSON"), prompt("p2", 3)]
    prompts, rejected = split_owned(records, "b2", {"p1": "b1", "p9": "b1"})
    assert [row["prompt_id"] for row in prompts] == ["p2"]
    assert rejected == [
        {"batch": "b2", "source_file": "a.jsonl", "source_line": 1, "reason": "duplicate of prompt p1 in batch b1"},
        {"batch": "b2", "source_file": "a.jsonl", "source_line": 2, "reason": "not JSON"},
    ]


def test_no_records_make_no_rows() -> None:
    assert split_owned([], "b1", {"p1": "b0"}) == ([], [])


def test_a_batch_whose_file_is_gone_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(dg.Failure, match=r"batch b-000000000000: no file in .*prompts has this content.*Put it back"):
        find_landed(LandingFolder.of(None, tmp_path), "b-000000000000")
