"""Held-out losses: which responses are held out, sums per type of sentence by hand, each scored once."""

import polars as pl
import pytest
from conftest import Project

from dasd_assets.heldout_losses import build, loss_by_stage
from dasd_assets.records.plots import png
from dasd_assets.rules.heldout import losses_by_type, sentence_sums
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
