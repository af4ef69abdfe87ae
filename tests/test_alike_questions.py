"""Landed questions that are held out, or nearly another prompt: rejected with their twin, and back when it goes."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
from conftest import Project, change, prompt_rows

from dasd_assets.prompts import outdated_prompts, store_prompts
from dasd_assets.withdrawals import withdraw
from dasd_resources.landing.prompt_files import read_prompts
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.storage.lake import Lake

LONG = "A farmer has twelve brown hens and fifteen white hens, and every brown hen lays two eggs on each day of May"
NEARLY = LONG.replace("fifteen", "sixteen")
OTHER = "How many ways are there to seat nine guests at three round tables if no guest may sit alone at a table"


def with_near(recipe: Recipe, threshold: float = 0.6) -> Recipe:
    return change(recipe, "near_duplicates", {"threshold": threshold})


@dataclass
class Landing:
    """A warehouse without a pipeline."""

    home: Path
    recipe: Recipe = field(default_factory=lambda: with_near(load_recipe("demo")))
    files: dict[str, Sequence[str]] = field(default_factory=dict)

    @property
    def lake(self) -> Lake:
        return Lake(str(self.home))

    def hold_out(self, *questions: str) -> None:
        held_out = {"recipe": "demo", "source": "exam"}
        rows = [{**held_out, "question_id": f"q{i}", "question": text} for i, text in enumerate(questions)]
        with self.lake.commit("{}") as transaction:
            transaction.replace("held_out_questions", {"recipe": "demo"}, pl.DataFrame(rows))

    def land(self, batch: str, *questions: str) -> None:
        self.files[batch] = questions
        self.read_again(batch)

    def read_again(self, batch: str) -> None:
        path = self.home / f"{batch}.jsonl"
        path.write_text("".join(json.dumps({"question": question}) + "\n" for question in self.files[batch]))
        with self.lake.commit("{}") as transaction:
            store_prompts(transaction, self.recipe, read_prompts(path), batch, list(self.files))

    @property
    def outdated(self) -> list[str]:
        with self.lake.reading() as reading:
            return sorted(outdated_prompts(reading, self.recipe, list(self.files)))

    @property
    def kinds(self) -> list[tuple[str, int, str]]:
        query = "SELECT batch, source_line, kind FROM rejected_prompts ORDER BY ALL"
        return list(self.lake.read(query).iter_rows())

    def prompt_ids(self, batch: str) -> list[str]:
        query = "SELECT prompt_id FROM prompts WHERE batch = $batch ORDER BY source_line"
        return self.lake.read(query, {"batch": batch})["prompt_id"].to_list()


def test_a_held_out_question_is_rejected_with_its_twin(tmp_path: Path) -> None:
    landing = Landing(tmp_path, change(load_recipe("demo"), "decontamination.min_share", 0.0))
    landing.hold_out(LONG)
    landing.land("a", LONG.upper(), f"{LONG}. How many eggs are there on Sunday?", OTHER)
    assert landing.kinds == [("a", 1, "held_out"), ("a", 2, "overlaps_held_out")]
    overlaps = landing.lake.read("SELECT * FROM held_out_overlaps ORDER BY source_line").to_dicts()
    assert [(row["source"], row["question_id"]) for row in overlaps] == [("exam", "q0")] * 2
    assert [row["num_shared"] for row in overlaps] == [0, 10]
    assert overlaps[1]["overlap"].startswith("a farmer has twelve brown hens")
    landing.hold_out(OTHER)
    landing.read_again("a")
    assert landing.kinds == [("a", 3, "held_out")]
    assert len(landing.prompt_ids("a")) == 2


def test_of_near_duplicates_in_one_file_the_first_stays(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.land("a", OTHER, LONG, NEARLY, LONG)
    assert landing.kinds == [("a", 3, "near_duplicate"), ("a", 4, "duplicate_line")]
    query = "SELECT reason, prompt_id, owner_batch FROM rejected_prompts WHERE kind = 'near_duplicate'"
    reason, *twin = landing.lake.read(query).row(0)
    assert twin == [landing.prompt_ids("a")[1], "a"]
    assert "almost prompt" in reason and "% of their n-grams" in reason


def test_across_batches_what_is_a_prompt_stays_and_no_order_loses_both(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.land("a", OTHER, LONG)
    landing.land("b", NEARLY)
    assert landing.kinds == [("b", 1, "near_duplicate")] and landing.outdated == []
    for batch in ("a", "b", "a"):
        landing.read_again(batch)
        assert landing.kinds == [("b", 1, "near_duplicate")]


def test_a_near_duplicate_comes_back_when_its_twin_goes(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.land("a", LONG)
    landing.land("b", NEARLY)
    del landing.files["a"]
    assert landing.outdated == ["b"]
    landing.read_again("b")
    assert landing.kinds == [] and landing.outdated == []


def test_a_near_duplicate_comes_back_when_its_twin_is_withdrawn(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    landing.land("a", LONG)
    landing.land("b", NEARLY)
    withdraw(landing.lake, landing.prompt_ids("a"), [], "asked to")
    landing.read_again("a")
    assert landing.outdated == ["b"]
    landing.read_again("b")
    assert landing.kinds == [("a", 1, "withdrawn")] and landing.outdated == []


def test_without_the_setting_nearly_the_same_questions_are_both_asked(tmp_path: Path) -> None:
    landing = Landing(tmp_path, load_recipe("demo"))
    landing.land("a", LONG, NEARLY)
    assert landing.kinds == []


def test_a_run_leaves_out_what_a_benchmark_holds_until_it_does_no_more(project: Project) -> None:
    held_out = Path(project.recipe.evaluation.benchmarks[0].path)
    questions = held_out.read_text().splitlines()
    project.land("a.jsonl", [*prompt_rows(0, 3), json.loads(questions[0])])
    project.make_batches()
    assert project.read("SELECT source_line, kind FROM rejected_prompts").rows() == [(4, "held_out")]
    assert project.count("prompts") == 3
    assert project.make_batches() == 0
    fewer = project.home / "fewer.jsonl"
    fewer.write_text("\n".join(questions[1:]) + "\n")
    benchmark = {"name": "held_out", "path": str(fewer), "max_tokens": 200}
    project.recipe = change(project.recipe, "evaluation.benchmarks", [benchmark])
    project.make_batches()
    assert (project.count("prompts"), project.count("rejected_prompts")) == (4, 0)


def test_other_batches_are_compared_by_settings_they_were_not_made_with(tmp_path: Path) -> None:
    """Else a batch that is made again first would bring back what another rejects, and that one lose its prompt."""
    landing = Landing(tmp_path, load_recipe("demo"))
    landing.land("a", LONG, OTHER)
    landing.recipe = with_near(landing.recipe, 0.6)
    landing.land("b", NEARLY)
    assert landing.kinds == [("b", 1, "near_duplicate")]
    for changed in ({"threshold": 0.3}, {"threshold": 0.6, "ngram_size": 2}):
        landing.recipe = change(landing.recipe, "near_duplicates", changed)
        for batch in ("b", "a", "b"):
            landing.read_again(batch)
            assert landing.kinds == [("b", 1, "near_duplicate")]
