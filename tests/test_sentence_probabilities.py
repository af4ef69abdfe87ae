import polars as pl
import pytest
from conftest import Project
from test_divergence import Doomed, Killed

from dasd_assets.rules.stored_tokens import NoTokens
from dasd_assets.sentence_probabilities import write_sentences


def test_a_killed_step_goes_on_and_ends_with_the_same_rows(copy: Project) -> None:
    every = "SELECT * EXCLUDE (run_id) FROM sentence_probabilities ORDER BY ALL"
    before = copy.read(every)
    batch, student = before.select("batch", "student_fingerprint").row(0)
    with copy.warehouse.commit("test") as transaction:
        transaction.replace("sentence_probabilities", {"batch": batch}, pl.DataFrame())
    with pytest.raises(Killed):
        write_sentences(Doomed(home=str(copy.home)), batch, student, "test", at_once=5, num_read=1)
    num_others = before.filter(pl.col("batch") != batch).height
    assert num_others < copy.count("sentence_probabilities") < before.height
    write_sentences(copy.warehouse, batch, student, "test", at_once=5, num_read=1)
    assert copy.read(every).equals(before)
    snapshot = copy.warehouse.snapshot_id()
    write_sentences(copy.warehouse, batch, student, "test")
    assert copy.warehouse.snapshot_id() == snapshot, "what is complete was committed again"


def test_a_batch_is_read_once_whatever_is_in_memory(copy: Project, streamed: list[str]) -> None:
    every = "SELECT * EXCLUDE (run_id) FROM sentence_probabilities ORDER BY ALL"
    before = copy.read(every)
    batch, student = before.select("batch", "student_fingerprint").row(0)
    with copy.warehouse.commit("test") as transaction:
        transaction.replace("sentence_probabilities", {"batch": batch}, pl.DataFrame())
    write_sentences(copy.warehouse, batch, student, "test", num_read=1)
    assert copy.read(every).equals(before)
    assert before.filter(pl.col("batch") == batch)["response_id"].n_unique() > 1
    [query] = streamed
    assert [query.count(f"FROM {table} ") for table in ("responses", "student_logprobs", "student_tokens")] == [1, 1, 1]


def test_a_response_without_tokens_is_an_error(copy: Project) -> None:
    batch, student, some = copy.read("""SELECT batch, student_fingerprint, response_id
        FROM student_logprobs ORDER BY ALL LIMIT 1""").row(0)
    with copy.warehouse.commit("test") as transaction:
        for table in ("student_tokens", "sentence_probabilities"):
            transaction.delete_keys(table, {"batch": batch}, "response_id", [some])
    with pytest.raises(NoTokens, match="student_tokens has the tokens of 0 of 1 texts"):
        write_sentences(copy.warehouse, batch, student, "test")
