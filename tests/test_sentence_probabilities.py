import polars as pl
import pytest
from conftest import Project
from test_divergence import Doomed, Killed

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
