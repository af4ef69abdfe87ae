from collections.abc import Callable
from itertools import product
from random import Random
from typing import get_args

import polars as pl
import pytest
from conftest import Project, change
from test_scores import sentences

from dasd_assets.divergence import whole_responses, write_scores, write_types
from dasd_assets.rules.scores import SCORES
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_resources.recipe import Measure, Per, Recipe
from dasd_resources.storage.warehouse import Warehouse

MADE = {"sentence_types": write_types, "response_scores": write_scores}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_no_part_holds_a_response_by_halves(size: int) -> None:
    draw = Random(size)
    names = sorted(draw.choice("abcdef") for _ in range(30))
    rows = pl.DataFrame({"response_id": names, "sentence_index": range(30)})
    parts = list(whole_responses(rows.iter_slices(size)))
    assert pl.concat(parts).equals(rows)
    assert sum(part["response_id"].n_unique() for part in parts) == len(set(names))


def test_nothing_comes_of_no_rows() -> None:
    empty = pl.DataFrame(schema={"response_id": pl.String})
    assert list(whole_responses([])) == list(whole_responses([empty])) == []


# Of the sentences of `test_scores`, by hand: exp(-0.02) - exp(-0.2) = 0.161 and exp(-0.25) - exp(-0.05) = -0.172.
BY_HAND = {
    ("probability", "token"): (0.25, ["teacher", "student", None]),
    ("log", "token"): (0.39, ["teacher", "student", None]),
    ("probability", "character"): (0.17, ["close", "student", None]),
    ("log", "character"): (0.19, ["close", "student", None]),
}


@pytest.mark.parametrize(("measure", "per"), [*product(get_args(Measure), get_args(Per))])
def test_sentences_are_typed_and_responses_scored_by_each_measure(
    warehouse: Warehouse, tiny: Recipe, measure: Measure, per: Per
) -> None:
    threshold, types = BY_HAND[measure, per]
    recipe = change(tiny, "selection.divergence", {"measure": measure, "per": per, "threshold": threshold})
    keys = {"batch": "b", "student_fingerprint": "s", "segmenter_version": SEGMENTER_VERSION}
    rows = sentences().with_columns(pl.lit(value).alias(name) for name, value in keys.items())
    with warehouse.commit("test") as transaction:
        transaction.append_missing("sentence_probabilities", rows)
    write_types(warehouse, "b", "s", recipe, "test")
    write_scores(warehouse, "b", "s", recipe, "test")
    typed = warehouse.read("SELECT sentence_type FROM sentence_types ORDER BY sentence_index")
    assert typed["sentence_type"].to_list() == types
    assert warehouse.read("FROM response_scores").height == len(SCORES)


class Killed(Exception):
    """What ends a step between two commits."""


class Doomed(Warehouse):
    """A warehouse whose process ends at its third commit."""

    num_left: int = 2

    def commit(self, origin: str):  # type: ignore[no-untyped-def]
        if self.num_left == 0:
            raise Killed
        object.__setattr__(self, "num_left", self.num_left - 1)
        return super().commit(origin)


@pytest.mark.parametrize("table", MADE)
def test_a_killed_step_goes_on_and_ends_with_the_same_rows(copy: Project, table: str) -> None:
    write: Callable[..., None] = MADE[table]
    every = f"SELECT * EXCLUDE (run_id) FROM {table} ORDER BY ALL"
    before = copy.read(every)
    [batch, student] = copy.read(f"SELECT batch, student_fingerprint FROM {table} ORDER BY ALL LIMIT 1").row(0)
    with copy.warehouse.commit("test") as transaction:
        transaction.replace(table, {"batch": batch}, pl.DataFrame())
    with pytest.raises(Killed):
        write(Doomed(home=str(copy.home)), batch, student, copy.recipe, "test", at_once=5)
    num_others = before.filter(pl.col("batch") != batch).height
    assert num_others < copy.count(table) < before.height
    write(copy.warehouse, batch, student, copy.recipe, "test", at_once=5)
    assert copy.read(every).equals(before)
    snapshot = copy.warehouse.snapshot_id()
    write(copy.warehouse, batch, student, copy.recipe, "test")
    assert copy.warehouse.snapshot_id() == snapshot, "what is complete was committed again"


def test_types_read_a_batch_once_however_many_parts_it_has(copy: Project, streamed: list[str]) -> None:
    [batch, student] = copy.read("SELECT batch, student_fingerprint FROM sentence_types ORDER BY ALL LIMIT 1").row(0)
    with copy.warehouse.commit("test") as transaction:
        transaction.replace("sentence_types", {"batch": batch}, pl.DataFrame())
    before = copy.warehouse.snapshot_id()
    write_types(copy.warehouse, batch, student, copy.recipe, "test", at_once=5)
    assert copy.warehouse.snapshot_id() > before + 2, "several parts"
    assert len(streamed) == 1


def test_a_response_that_lacks_one_score_is_scored_again(copy: Project) -> None:
    every = "SELECT * EXCLUDE (run_id) FROM response_scores ORDER BY ALL"
    before = copy.read(every)
    lost = before.row(0, named=True)
    key = {name: lost[name] for name in ("response_id", "score_name")}
    with copy.warehouse.commit("test") as transaction:
        transaction.replace("response_scores", key, pl.DataFrame())
    assert copy.count("response_scores") == before.height - 1
    write_scores(copy.warehouse, lost["batch"], lost["student_fingerprint"], copy.recipe, "test")
    assert copy.read(every).equals(before)
    assert before.height % len(SCORES) == 0


def test_a_response_that_is_typed_by_halves_is_scored_when_it_is_whole(copy: Project) -> None:
    """As where a killed step left it so, and somebody materializes the scores alone."""
    every = "SELECT * EXCLUDE (run_id) FROM response_scores ORDER BY ALL"
    before = copy.read(every)
    lost = before.row(0, named=True)
    key = {"response_id": lost["response_id"]}
    with copy.warehouse.commit("test") as transaction:
        transaction.replace("response_scores", key, pl.DataFrame())
        transaction.replace("sentence_types", {**key, "sentence_index": 0}, pl.DataFrame())
    which = (copy.warehouse, lost["batch"], lost["student_fingerprint"], copy.recipe, "test")
    write_scores(*which)
    assert copy.count("response_scores") == before.height - len(SCORES)
    write_types(*which)
    write_scores(*which)
    assert copy.read(every).equals(before)
