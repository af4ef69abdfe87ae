"""Which of the responses in a warehouse belong to a recipe's pool, where other recipes have left theirs."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from dasd_assets.records.partitions import batches
from dasd_assets.rules.candidates import (
    candidate_params,
    drop_counts,
    is_held_out,
    responses_to_score,
    to_score_params,
)
from dasd_assets.rules.filters.catalogue import CORRECTNESS, FILTERS, filter_version, required_filters
from dasd_assets.rules.pool import create_pool_table, pool_params
from dasd_assets.rules.scores import threshold_version
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import HeldOut, Recipe, load_recipe
from dasd_resources.storage.warehouse import Row, Warehouse

RECIPE = load_recipe("demo")  # temperatures 0.6 and 1.0, three candidates, filters first, correctness required
SCORE = RECIPE.selection.score
CURRENT, REMOVED = "b1", "b0"
# Of p0 to p399: another hash would train on questions that homes have held out.
FIRST_HELD_OUT = ["p10", "p104", "p114"]


def changed(**filters: object) -> Recipe:
    return RECIPE.model_copy(update={"filters": RECIPE.filters.model_copy(update=filters)})


AFTER = changed(apply="after_selection")
ANY_ANSWER = changed(require_correct=False)


@dataclass(frozen=True)
class Home:
    """A warehouse with two prompts of the batch `b1` and one of the removed batch `b0`."""

    warehouse: Warehouse
    teacher: PromptedModel
    student: PromptedModel
    instance: dg.DagsterInstance

    def to_score(self, recipe: Recipe = RECIPE, batch: str = CURRENT) -> list[str]:
        version = filter_version(recipe, self.student.fingerprint)
        params = to_score_params(recipe, self.teacher.fingerprint, batch, version, required_filters(False))
        return responses_to_score(self.warehouse, params)

    def scored(self, recipe: Recipe = RECIPE, dataset: str = "t060") -> pl.DataFrame:
        existing = batches(self.instance)
        params = pool_params(recipe, self.teacher.fingerprint, self.student.fingerprint, dataset, existing)
        with self.warehouse.reading() as reading:
            create_pool_table(reading, params)
            return reading.read("FROM pool ORDER BY response_id")

    def drops(self) -> pl.DataFrame:
        params = {
            **candidate_params(RECIPE, self.teacher.fingerprint),
            "temperatures": list(RECIPE.generation.temperatures),
            "batches": batches(self.instance),
            "filter_version": filter_version(RECIPE, self.student.fingerprint),
        }
        return drop_counts(self.warehouse, params, FILTERS)


# Every response differs from `good` in what its name says.
RESPONSES: dict[str, Row] = {
    "good": {"filters": [*FILTERS, "removed"], "failed": ["removed"]},  # by a filter that there was once
    "last": {"sample_index": 2},
    "wrong": {"failed": ["correctness"]},
    "repeats": {"failed": ["repetition"]},
    "of_p2": {"prompt_id": "p2", "without_verifier": True},
    "hot": {"temperature": 1.0},
    "unjudged": {"filters": ["length", "truncation"]},
    "judged_by_old_rules": {"filter_version": "old"},
    "of_other_teacher": {"teacher_fingerprint": "other"},
    "of_other_temperature": {"temperature": 0.8},
    "of_other_top_p": {"top_p": 0.9},
    "of_other_budget": {"max_tokens": 128},
    "beyond_n": {"sample_index": 3},
    "of_removed_batch": {"batch": REMOVED, "prompt_id": "p0"},
    "scored_for_other_student": {"student_fingerprint": "other"},
    "scored_by_old_threshold": {"threshold_version": "old"},
    "scored_otherwise": {"score_name": "sum_log_token"},
}


def prompt(prompt_id: str, batch: str, domain: str, system_prompt: str | None = None) -> Row:
    fields = {"question": f"{prompt_id}?", "system_prompt": system_prompt, "source_file": "f", "source_line": 1}
    return {"prompt_id": prompt_id, "batch": batch, "domain": domain, **fields}


def response(name: str, teacher: str) -> Row:
    row = {
        "response_id": name,
        "prompt_id": "p1",
        "batch": CURRENT,
        "temperature": 0.6,
        "top_p": 1.0,
        "max_tokens": 256,
        "sample_index": 0,
        "seed": 1,
        "teacher_fingerprint": teacher,
        "template_version": "t",
        "engine": "transformers",
        "dtype": "float32",
        "text": f"text of {name}",
        "token_ids": [1],
        "logprobs": [-0.5],
        "offsets": [0],
        "tool_call": False,
        "finish_reason": "stop",
    }
    return {**row, **{key: value for key, value in RESPONSES[name].items() if key in row}}


def verdicts(name: str, version: str) -> Iterator[Row]:
    special = RESPONSES[name]
    for rule in special.get("filters", FILTERS):
        passed = rule not in special.get("failed", [])
        kept = {"batch": special.get("batch", CURRENT), "filter_version": special.get("filter_version", version)}
        unjudged = rule == CORRECTNESS and "without_verifier" in special
        yield {
            "response_id": name,
            "filter": rule,
            "passed": passed,
            "kind": "no_verifier" if unjudged else None,
            **kept,
        }


def score(name: str, number: int, student: str) -> Row:
    row = {
        "response_id": name,
        "batch": CURRENT,
        "student_fingerprint": student,
        "score_name": SCORE,
        "score": number / 100,
        "num_sentences": 1,
        "threshold_version": threshold_version(RECIPE),
    }
    return {**row, **{key: value for key, value in RESPONSES[name].items() if key in row}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("home")
    warehouse, engines = Warehouse(home=str(folder)), Engines(home=str(folder))
    teacher, student = engines.find(RECIPE.teacher, "k"), engines.find(RECIPE.student, "k")
    version = filter_version(RECIPE, student.fingerprint)
    prompts = [prompt("p0", REMOVED, "math"), prompt("p1", CURRENT, "math"), prompt("p2", CURRENT, "code", "Be brief.")]
    with warehouse.commit("test") as transaction:
        for table, rows in {
            "prompts": prompts,
            "responses": [response(name, teacher.fingerprint) for name in RESPONSES],
            "response_verdicts": [row for name in RESPONSES for row in verdicts(name, version)],
            "response_scores": [score(name, i, student.fingerprint) for i, name in enumerate(RESPONSES)],
        }.items():
            transaction.append_missing(table, pl.DataFrame(rows, infer_schema_length=None))
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("prompt_batch", [CURRENT])
        yield Home(warehouse, teacher, student, instance)


SCORED_ELSEWHERE = ["scored_by_old_threshold", "scored_for_other_student", "scored_otherwise"]
OF_RECIPE = ["good", "hot", "judged_by_old_rules", "last", "of_p2", "repeats", *SCORED_ELSEWHERE, "unjudged", "wrong"]


def test_the_student_scores_what_passed_every_quality_filter_right_or_wrong(home: Home) -> None:
    assert home.to_score() == ["good", "hot", "last", "of_p2", *SCORED_ELSEWHERE, "wrong"]
    assert home.to_score(ANY_ANSWER) == home.to_score()


def test_the_student_scores_all_of_the_recipe_where_filters_come_after_selection(home: Home) -> None:
    assert home.to_score(AFTER) == OF_RECIPE


def test_another_batch_has_its_own_pool(home: Home) -> None:
    assert home.to_score(batch=REMOVED) == ["of_removed_batch"]
    assert home.to_score(batch="b9") == []


def test_fewer_candidates_or_other_sampling_shrink_the_pool(home: Home) -> None:
    def sampling(**values: object) -> Recipe:
        return RECIPE.model_copy(update={"generation": RECIPE.generation.model_copy(update=values)})

    assert "last" not in home.to_score(sampling(num_candidates=2))
    assert "beyond_n" in home.to_score(sampling(num_candidates=4))
    assert home.to_score(sampling(top_p=0.9)) == ["of_other_top_p"]
    assert home.to_score(sampling(max_tokens=128)) == ["of_other_budget"]
    assert home.to_score(sampling(temperatures=(0.8, 1.0))) == ["hot", "of_other_temperature"]


def test_selection_sees_the_accepted_responses_of_its_temperature_in_batches_that_exist(home: Home) -> None:
    assert home.scored()["response_id"].to_list() == ["good", "last", "of_p2"]
    assert home.scored(dataset="t100")["response_id"].to_list() == ["hot"]


def test_wrong_answers_are_selected_from_where_the_recipe_does_not_require_right_ones(home: Home) -> None:
    assert home.scored(ANY_ANSWER)["response_id"].to_list() == ["good", "last", "of_p2", "wrong"]


def test_where_filters_come_after_selection_all_are_seen_and_the_accepted_marked(home: Home) -> None:
    rows = home.scored(AFTER).select("response_id", "accepted").rows()
    assert rows == [
        ("good", True),
        ("judged_by_old_rules", False),
        ("last", True),
        ("of_p2", True),
        ("repeats", False),
        ("unjudged", False),
        ("wrong", False),
    ]


def test_a_scored_response_brings_its_question_domain_and_score(home: Home) -> None:
    row = home.scored().filter(response_id="of_p2").row(0, named=True)
    number = list(RESPONSES).index("of_p2")
    assert row == {
        "response_id": "of_p2",
        "prompt_id": "p2",
        "domain": "code",
        "score": number / 100,
        "key": number / 100,
        "accepted": True,
        "cost": 1,
        "num_sentences": 1,
    }


def test_a_held_out_question_is_scored_and_in_no_pool(home: Home) -> None:
    heldout = HeldOut(num_responses=1, questions=0.6)  # its hash puts p2 at 0.59 and p1 at 0.83
    for recipe in (RECIPE, AFTER, ANY_ANSWER):
        held = recipe.model_copy(update={"heldout": heldout})
        assert home.to_score(held) == home.to_score(recipe)
        kept = home.scored(recipe).filter(pl.col("prompt_id") != "p2")
        assert 0 < kept.height < home.scored(recipe).height
        assert home.scored(held).equals(kept)
        for none in (None, HeldOut(num_responses=1)):
            assert home.scored(recipe.model_copy(update={"heldout": none})).equals(home.scored(recipe))


def test_the_side_of_a_question_is_its_own_and_a_larger_share_only_adds(home: Home) -> None:
    ids = [f"p{i}" for i in range(400)]
    with home.warehouse.reading() as reading:
        held = {share: {p for p in ids if is_held_out(reading, share, p)} for share in (0.0, 0.1, 0.5)}
    assert held[0.0] == set() < held[0.1] < held[0.5]
    assert 0.05 * 400 < len(held[0.1]) < 0.15 * 400
    assert sorted(held[0.1])[:3] == FIRST_HELD_OUT


def test_a_removed_batch_comes_back_with_its_partition(home: Home) -> None:
    home.instance.add_dynamic_partitions("prompt_batch", [REMOVED])
    try:
        assert "of_removed_batch" in home.scored()["response_id"]
    finally:
        home.instance.delete_dynamic_partition("prompt_batch", REMOVED)
    assert "of_removed_batch" not in home.scored()["response_id"]


def test_drops_are_counted_per_temperature_and_filter(home: Home) -> None:
    counts = {row[:2]: row[2:] for row in home.drops().iter_rows()}
    assert {key: dropped for key, (dropped, _) in counts.items() if dropped} == {
        (0.6, "correctness"): 1,
        (0.6, "repetition"): 1,
    }
    assert counts[0.6, "length"][1] == counts[0.6, "correctness"][1] + 2  # so were `unjudged`, and `of_p2`
    assert {name for _, name in counts} == set(FILTERS)
    assert counts[1.0, "length"] == (0, 1)


def test_drops_of_a_removed_batch_are_not_counted(home: Home) -> None:
    judged = home.drops()["num_judged"].sum()
    home.instance.add_dynamic_partitions("prompt_batch", [REMOVED])
    try:
        assert home.drops()["num_judged"].sum() == judged + len(FILTERS)
    finally:
        home.instance.delete_dynamic_partition("prompt_batch", REMOVED)


def test_a_home_without_rows_has_an_empty_pool(home: Home, tmp_path: Path) -> None:
    empty = Home(Warehouse(home=str(tmp_path)), home.teacher, home.student, home.instance)
    assert empty.to_score() == []
    assert empty.scored().is_empty()
