"""One question of several landed lines is one prompt: whose it is, what each line brought, and what becomes of it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from dasd_assets.prompts import store_prompts
from dasd_assets.rules.prompt_ids import find_prompts
from dasd_assets.withdrawals import outdated_batches, undo_withdrawal, withdraw
from dasd_resources.landing.prompt_files import read_prompts
from dasd_resources.landing.question_identity import judged_question_id, question_key
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.storage.lake import Lake

SUM = {"question": "What is 2 + 3?"}
FULL = {**SUM, "domain": "math", "reference_answer": "5", "verifier": "math", "level": 2}
KEY = question_key("What is 2 + 3?", None)


@dataclass
class Landing:
    """A warehouse without a pipeline: files land as batches, and what is out of date is landed again."""

    home: Path
    files: dict[str, Sequence[object]] = field(default_factory=dict)
    recipe: Recipe = field(default_factory=lambda: load_recipe("demo"))

    @property
    def lake(self) -> Lake:
        return Lake(str(self.home))

    def land(self, batch: str, *rows: object) -> None:
        """A new file, read at once."""
        self.files[batch] = rows
        self.read_again(batch)

    def read_again(self, batch: str) -> None:
        path = self.home / f"{batch}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in self.files[batch]))
        with self.lake.commit("{}") as transaction:
            store_prompts(transaction, self.recipe, read_prompts(path), batch, list(self.files))

    def settle(self) -> list[str]:
        """Land again what is out of date until nothing is; returns the batches in order."""
        done: list[str] = []
        while outdated := outdated_batches(self.lake, list(self.files)):
            batch = next(name for name in self.files if name in outdated)
            done.append(batch)
            assert len(done) < 10, f"never settles: {outdated}"
            self.read_again(batch)
        return done

    def rows(self, table: str, columns: str) -> list[tuple[object, ...]]:
        return self.lake.read(f"SELECT {columns} FROM {table} ORDER BY ALL").rows()

    @property
    def prompts(self) -> list[tuple[object, ...]]:
        return self.rows("prompts", "batch, source_line, domain, reference_answer, verifier, metadata")

    @property
    def kinds(self) -> list[tuple[object, ...]]:
        return self.rows("rejected_prompts", "batch, source_line, kind")


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path)


def test_a_prompt_keeps_every_field_and_a_bad_row_is_rejected_beside_it(landing: Landing) -> None:
    landing.land("a", {**FULL, "system_prompt": "Be brief."}, {"question": ""})
    [row] = landing.lake.read("SELECT * EXCLUDE (run_id) FROM prompts").to_dicts()
    key = question_key("What is 2 + 3?", "Be brief.")
    assert row == {
        **{"prompt_id": key, "question_key": key, "id_fields": None, "language": "en"},
        **{"batch": "a", "source_file": "a.jsonl", "source_line": 1},
        **{"question": "What is 2 + 3?", "system_prompt": "Be brief."},
        **{"domain": "math", "reference_answer": "5", "verifier": "math", "metadata": '{"level":2}'},
    }
    assert landing.kinds == [("a", 2, "invalid_field")]


def test_a_copy_that_says_nothing_more_is_a_plain_duplicate(landing: Landing) -> None:
    landing.land("a", FULL)
    landing.land("b", {"question": " What  is 2 + 3?", "level": 9})
    [row] = landing.lake.read("SELECT * EXCLUDE (run_id) FROM rejected_prompts").to_dicts()
    assert row == {
        **{"batch": "b", "source_file": "b.jsonl", "source_line": 1, "kind": "duplicate"},
        **{"reason": f"duplicate of prompt {KEY} in batch a", "prompt_id": KEY, "owner_batch": "a"},
    }
    assert landing.settle() == []


def test_what_a_later_batch_brings_is_merged_once_the_owner_is_landed_again(landing: Landing) -> None:
    landing.land("a", {**SUM, "source": "x"})
    landing.land("b", FULL)
    [reason] = outdated_batches(landing.lake, ["a", "b"]).values()
    assert reason.startswith("1 questions with lines to merge (")
    assert landing.settle() == ["a"]
    assert landing.prompts == [("a", 1, "math", "5", "math", '{"level":2,"source":"x"}')]
    assert landing.kinds == [("b", 1, "duplicate_merged")]
    brought = landing.lake.read("SELECT line_batch, brought, kind FROM prompt_merges ORDER BY ALL").rows()
    fields = ["domain", "reference_answer", "verifier", "metadata"]
    assert brought == [("a", ["metadata"], None), ("b", fields, None)]


def test_what_a_batch_brought_goes_with_it(landing: Landing) -> None:
    landing.land("a", {**SUM, "source": "x"})
    landing.land("b", FULL)
    landing.settle()
    del landing.files["b"]
    [reason] = outdated_batches(landing.lake, ["a"]).values()
    assert reason.startswith("1 questions merged with lines that are gone (")
    assert landing.settle() == ["a"]
    assert landing.prompts == [("a", 1, "general", None, None, '{"source":"x"}')]
    assert landing.lake.read("FROM prompt_merges").is_empty()


def test_the_owner_gone_the_next_batch_has_the_prompt_by_its_own_line(landing: Landing) -> None:
    landing.land("a", FULL)
    landing.land("b", {**SUM, "domain": "sums"})
    landing.settle()
    assert landing.rows("prompt_merges", "line_batch, kind") == [("a", None), ("b", "conflicting_domain")]
    del landing.files["a"]
    assert landing.settle() == ["b"]
    assert landing.prompts == [("b", 1, "sums", None, None, "{}")]
    assert landing.rows("prompts", "prompt_id") == [(KEY,)]


def test_lines_of_one_file_are_merged_at_once(landing: Landing) -> None:
    landing.land("a", SUM, FULL, {**SUM, "reference_answer": "6"}, SUM)
    assert landing.prompts == [("a", 1, "math", "5", "math", '{"level":2}')]
    assert landing.kinds == [("a", 2, "duplicate_merged"), ("a", 3, "duplicate_merged"), ("a", 4, "duplicate_line")]
    refused = landing.lake.read("SELECT source_line, reason FROM prompt_merges WHERE kind = 'conflicting_reference'")
    assert refused.rows() == [(3, "reference_answer '6' is not the '5' of before")]
    assert landing.settle() == []


@pytest.mark.parametrize("order", ["abc", "cba"])
def test_the_order_in_which_batches_are_read_does_not_matter(landing: Landing, order: str) -> None:
    rows = {
        "a": {**SUM, "source": "x"},
        "b": {**SUM, "reference_answer": "5", "domain": "math"},
        "c": {**FULL, "reference_answer": "6"},
    }
    landing.files = {batch: [row] for batch, row in rows.items()}
    for batch in order:
        landing.read_again(batch)
    landing.settle()
    expected = ("math", "5", "math", '{"level":2,"source":"x"}')
    assert [row[2:] for row in landing.prompts] == [expected]
    assert landing.rows("prompts", "prompt_id") == [(KEY,)]
    refused = landing.rows("prompt_merges", "line_batch, kind")
    assert refused == [("a", None), ("b", None), ("c", "conflicting_reference")]


def test_two_system_prompts_are_two_prompts(landing: Landing) -> None:
    landing.land("a", SUM, {**FULL, "system_prompt": "Be brief."})
    assert len(landing.prompts) == 2
    assert landing.kinds == []


def test_a_withdrawn_question_takes_its_copies_along_and_comes_back_merged(landing: Landing) -> None:
    landing.land("a", SUM)
    landing.land("b", FULL)
    landing.settle()
    withdraw(landing.lake, [KEY], [], "a claim")
    landing.settle()
    assert landing.prompts == []
    landing.read_again("b")
    assert landing.kinds == [("a", 1, "withdrawn"), ("b", 1, "withdrawn")]
    undo_withdrawal(landing.lake, [KEY], [])
    landing.settle()
    assert [row[2:] for row in landing.prompts] == [("math", "5", "math", '{"level":2}')]
    assert landing.rows("prompts", "prompt_id") == [(KEY,)]


def test_find_prompts_names_the_prompt_in_use(landing: Landing) -> None:
    landing.land("a", SUM)
    with landing.lake.reading() as reading:
        keys = [KEY, question_key("What is 2 + 4?", None)]
        found = find_prompts(reading, keys, ["a"])
        assert {key: (one.prompt_id, one.batch) for key, one in found.items()} == {KEY: (KEY, "a")}
        assert find_prompts(reading, keys, ["b"]) == {}


def earlier_row(batch: str, line: int, row: dict[str, object]) -> dict[str, object]:
    """A row of `prompts` as an earlier release wrote it."""
    fields = [row.get("domain") or "general", row.get("verifier"), row.get("reference_answer")]
    identity = judged_question_id(str(row["question"]), None, *fields)  # type: ignore[arg-type]
    return {
        **{"prompt_id": identity, "batch": batch, "source_file": f"{batch}.jsonl", "source_line": line},
        **{"question": row["question"], "domain": fields[0], "verifier": fields[1], "reference_answer": fields[2]},
        **{"system_prompt": None, "metadata": "{}"},
    }


def open_earlier_home(landing: Landing, **files: Sequence[dict[str, object]]) -> dict[str, list[str]]:
    """A home whose files an earlier release has landed; returns the ids it gave, per batch."""
    rows = [earlier_row(batch, line, row) for batch, lines in files.items() for line, row in enumerate(lines, 1)]
    landing.files = dict(files)
    with landing.lake.commit("{}") as transaction:
        transaction.append_missing("prompts", pl.DataFrame(rows, infer_schema_length=None))
    return {batch: [str(row["prompt_id"]) for row in rows if row["batch"] == batch] for batch in files}


OTHER: dict[str, object] = {"question": "What is 1 + 1?", "domain": "math"}
MATHS: dict[str, object] = {**SUM, "domain": "math", "reference_answer": "5", "verifier": "math"}


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_prompts_of_an_earlier_release_keep_their_ids_whatever_is_read_first(landing: Landing, order: str) -> None:
    """The same question was two prompts: the earliest stays, the other is a line of it, its id retired."""
    ids = open_earlier_home(landing, a=[OTHER, SUM], b=[MATHS])
    for batch in order:
        landing.read_again(batch)
    landing.settle()
    assert landing.rows("prompts", "prompt_id, batch") == sorted((key, "a") for key in ids["a"])
    [merged] = landing.lake.read("SELECT * FROM prompts WHERE source_line = 2").to_dicts()
    assert (merged["domain"], merged["reference_answer"], merged["verifier"]) == ("math", "5", "math")
    assert merged["id_fields"] == '["general", null, null]'
    retired = landing.rows("prompt_lines", "batch, prompt_id, retired_id")
    assert retired == [("a", ids["a"][1], None), ("b", ids["a"][1], ids["b"][0])]
    for batch in order:  # and stays so
        landing.read_again(batch)
    assert landing.rows("prompt_lines", "batch, prompt_id, retired_id") == retired
    assert landing.settle() == []


def test_ids_of_earlier_releases_outlive_a_takedown_and_the_file(landing: Landing) -> None:
    ids = open_earlier_home(landing, a=[MATHS])
    landing.read_again("a")
    withdraw(landing.lake, ids["a"], [], "a claim")
    landing.settle()
    assert landing.prompts == []
    undo_withdrawal(landing.lake, ids["a"], [])
    landing.settle()
    assert landing.rows("prompts", "prompt_id") == [(ids["a"][0],)]
    landing.files = {"b": [SUM]}
    landing.read_again("b")
    fields = landing.rows("prompts", "prompt_id, batch, domain, id_fields")
    assert fields == [(ids["a"][0], "b", "general", '["math", "math", "5"]')]


def test_a_takedown_names_what_was_trained_under_a_retired_id(landing: Landing) -> None:
    ids = open_earlier_home(landing, a=[SUM], b=[MATHS])
    for batch in "ab":
        landing.read_again(batch)
    landing.settle()
    named = withdraw(landing.lake, ids["a"], [], "a claim").named
    assert sorted(named) == sorted([*ids["a"], *ids["b"]])


def test_a_takedown_by_a_retired_id_withdraws_the_prompt_in_use(landing: Landing) -> None:
    ids = open_earlier_home(landing, a=[SUM], b=[MATHS])
    for batch in "ab":
        landing.read_again(batch)
    landing.settle()
    every = sorted([*ids["a"], *ids["b"]])
    taken = withdraw(landing.lake, ids["b"], [], "a claim")
    assert [row["prompt_id"] for row in taken.prompts] == ids["a"]
    assert sorted(taken.named) == every
    landing.settle()
    assert landing.prompts == []
    assert withdraw(landing.lake, ids["b"], [], "again").num_already == 1
    assert undo_withdrawal(landing.lake, ids["b"], []).named == every
    landing.settle()
    assert landing.rows("prompts", "prompt_id") == [(ids["a"][0],)]
    again = undo_withdrawal(landing.lake, ids["b"], [])
    assert (again.num_already, again.named) == (1, every)
