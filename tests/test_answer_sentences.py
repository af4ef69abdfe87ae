"""Sentences of the checkpoints' answers: sums that add up to the answer, types that follow a changed threshold."""

import numpy as np
import polars as pl
import pytest
from conftest import Project, change

from dasd_assets.rules.answer_types import FOUR_TYPES, MODELS, answer_threshold_version, four_types
from dasd_assets.rules.answers import sampled_answers
from dasd_assets.rules.sentences import attribute, sentence_spans

SCORED_BY = {"teacher": "teacher_fingerprint", "student": "student_fingerprint", "distilled": "checkpoint_id"}


def test_every_answer_is_split_and_its_sums_and_the_unattributed_rest_are_the_answer(finished: Project) -> None:
    answers = sampled_answers(finished.warehouse, finished.recipe).unique(["answer_id", "checkpoint_id"])
    stored = finished.read("SELECT * FROM answer_sentences ORDER BY sentence_index")
    scores = {(row["answer_id"], row["checkpoint_id"]): row
              for row in finished.read("SELECT * FROM answer_logprobs").to_dicts()}  # fmt: skip
    for answer in answers.to_dicts():
        own = stored.filter(
            pl.col("answer_id") == answer["answer_id"], pl.col("checkpoint_id") == answer["checkpoint_id"]
        )
        spans = sentence_spans(answer["text"])
        assert list(own.select("start", "stop").iter_rows()) == spans
        for model in MODELS:
            scored = scores[answer["answer_id"], own[SCORED_BY[model]][0]]
            logprobs, owner = np.asarray(scored["logprobs"]), attribute(answer["text"], scored["offsets"], spans)
            rest = logprobs[owner < 0].sum()
            assert own[f"{model}_sum_logprob"].sum() + rest == pytest.approx(logprobs.sum(), abs=1e-6)
            assert own[f"{model}_num_tokens"].to_list() == [int((owner == n).sum()) for n in range(len(spans))]


def test_every_sentence_has_the_type_that_its_sums_give(finished: Project) -> None:
    query = """SELECT s.*, t.sentence_type, t.threshold_version FROM answer_sentences s
        JOIN answer_sentence_types t
            USING (answer_id, checkpoint_id, teacher_fingerprint, student_fingerprint, sentence_index)"""
    rows = finished.read(query)
    assert rows.height == finished.count("answer_sentences") == finished.count("answer_sentence_types")
    assert (
        rows["sentence_type"].to_list()
        == rows.select(four_types(finished.recipe.selection.divergence)).to_series().to_list()
    )
    assert set(rows["sentence_type"]) <= set(FOUR_TYPES)
    assert rows["threshold_version"].unique().to_list() == [answer_threshold_version(finished.recipe)]


def test_another_threshold_types_anew_and_scores_nothing(copy: Project) -> None:
    sentences, scored = copy.count("answer_sentences"), copy.count("answer_logprobs")
    copy.recipe = change(copy.recipe, "selection.divergence.threshold", 0.4)
    assert copy.materialize("answer_sentence_types") == 1
    assert copy.count("answer_sentence_types") == 2 * sentences == 2 * copy.count("answer_sentences")
    assert copy.materialize("answer_sentence_types") == 1
    assert copy.count("answer_sentence_types") == 2 * sentences
    assert (copy.count("answer_logprobs"), copy.fake.scored) == (scored, [])


def test_a_lost_part_of_the_sentences_is_made_again_alone(copy: Project) -> None:
    before = copy.read("SELECT * EXCLUDE (run_id) FROM answer_sentences ORDER BY ALL")
    with copy.warehouse.commit("test") as transaction:
        transaction.read(
            "DELETE FROM answer_sentences WHERE answer_id IN (SELECT max(answer_id) FROM answer_sentences)"
        )
    copy.materialize("answer_sentences")
    assert copy.read("SELECT * EXCLUDE (run_id) FROM answer_sentences ORDER BY ALL").equals(before)
    assert copy.read("SELECT count(DISTINCT run_id) FROM answer_sentences").item() == 2


CHANGED = {
    "answer_sentences SET teacher_sum_logprob = teacher_sum_logprob - 1": "its sentences are not",
    "answer_sentence_types SET sentence_type = 'boosted'": "it is no boosted sentence",
    "answer_logprobs SET answer_logprobs_id = md5(answer_logprobs_id)": "its answer_logprobs_id is",
}


def test_verify_finds_what_was_changed(copy: Project) -> None:
    def told() -> list[str]:
        titles = ("ids of answer_logprobs", "sentences of answers", "types of answers' sentences")
        return [fault.what for fault in copy.faults(*titles)]

    assert told() == []
    with copy.warehouse.commit("test") as transaction:
        for change_of in CHANGED:
            transaction.read(f"UPDATE {change_of}")
    found = told()
    assert [what for what in CHANGED.values() if not any(one.startswith(what) for one in found)] == []
