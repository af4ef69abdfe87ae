"""Both models' probability of every sentence (report §4): sums, from which everything later is cheap to redo.

`responses`, `student_tokens`, `student_logprobs` -> `sentence_probabilities`, split by `rules/sentences.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.plots import inline, labelled_axes, shape, with_legend
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.sentence_table import SENTENCE_SUMS, sentence_table
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_assets.rules.stored_tokens import require_tokens
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.passes import enough
from dasd_resources.storage.spool import joined
from dasd_resources.storage.warehouse import Warehouse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESPONSES_AT_ONCE = 64  # in Python; of 65,536 tokens, 85 MB of lists and text
SENTENCES_AT_ONCE = 200_000  # 550 bytes each while they are written
PLOTTED = 100_000  # sentences of a batch, drawn at random
SENTENCES = """FROM sentence_probabilities WHERE batch = $batch AND student_fingerprint = $student_fingerprint
    AND segmenter_version = $segmenter_version"""
_MEANS = f"SELECT count(*), avg(teacher_prob), avg(student_prob) {SENTENCES}"
PROBS = f"""SELECT teacher_prob AS teacher, student_prob AS student FROM (FROM (SELECT * {SENTENCES})
    USING SAMPLE reservoir({PLOTTED} ROWS) REPEATABLE (1))"""


def probability_densities(probs: Mapping[str, Sequence[float]]) -> "Figure":
    """Density of response probabilities, the geometric mean over tokens, one curve per group (Figure 3)."""
    figure, axes = labelled_axes("response probability (geometric mean of its tokens')", "density")
    for name, values in probs.items():
        heights, edges = np.histogram(values, bins=40, range=(0.0, 1.0), density=len(values) > 0)
        axes.stairs(heights, edges, label=f"{name} (n={len(values):,})", fill=False)
    return with_legend(figure, axes)


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`sentence_probabilities`."""
    return [_sentence_probabilities(recipe)]


def _sentence_probabilities(recipe: Recipe) -> dg.AssetsDefinition:
    generations = list(map(generation_asset, recipe.datasets))
    declared = declare(
        recipe,
        "sentence_probabilities",
        "sentence_probabilities",
        reads={"student_logprobs": "student_logprobs"},
        looks_up={"responses": generations, "prompts": "prompts", "student_tokens": "student_tokens"},
        models=["student_model"],
        rules=[SENTENCE_SUMS],
    )

    @declared.asset(
        group="scores",
        kinds={"ducklake", "polars"},
        description="One row per sentence of a scored response: its logprob sum and token count under both models.",
    )
    def sentence_probabilities(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.fingerprint(recipe.student, "student.model")
        batch = context.partition_key
        write_sentences(warehouse, batch, student, origin(context))
        current = {"batch": batch, "student_fingerprint": student, "segmenter_version": SEGMENTER_VERSION}
        num_sentences, mean_teacher_prob, mean_student_prob = warehouse.read(_MEANS, current).row(0)
        probs = warehouse.read(PROBS, current)
        values = {name: probs[name].drop_nulls().to_list() for name in probs.columns}
        return dg.MaterializeResult(
            data_version=content_version([*_scored(warehouse, batch, student), student, SEGMENTER_VERSION]),
            metadata=declared.result(
                warehouse,
                num_sentences,
                current,
                mean_teacher_prob=mean_teacher_prob,
                mean_student_prob=mean_student_prob,
                teacher_prob_shape=shape(values["teacher"]),
                student_prob_shape=shape(values["student"]),
                densities=inline(probability_densities(values)) if any(values.values()) else None,
            ),
        )

    return sentence_probabilities


def _scored(warehouse: Warehouse, batch: str, student: str) -> list[str]:
    query = "SELECT response_id FROM student_logprobs WHERE batch = $batch AND student_fingerprint = $student"
    return warehouse.read(query, {"batch": batch, "student": student})["response_id"].to_list()


def write_sentences(
    warehouse: Warehouse,
    batch: str,
    student: str,
    origin: str,
    at_once: int = SENTENCES_AT_ONCE,
    num_read: int = RESPONSES_AT_ONCE,
) -> None:
    """Split, sum and commit what the batch's scored responses lack, about `at_once` sentences at a time.

    num_read: so many responses are in memory.
    """
    tables = map(_sentences, _unsplit(warehouse, batch, student, num_read))
    while part := list(enough(tables, len, at_once)):
        table = pl.concat(part).with_columns(
            batch=pl.lit(batch),
            student_fingerprint=pl.lit(student),
            segmenter_version=pl.lit(SEGMENTER_VERSION),
        )
        with warehouse.commit(origin) as transaction:
            transaction.append_missing("sentence_probabilities", table, batch)


def _sentences(rows: pl.DataFrame) -> pl.DataFrame:
    require_tokens(rows["student_offsets"].count(), rows.height, "student_tokens")
    return sentence_table(rows)


def _unsplit(warehouse: Warehouse, batch: str, student: str, num_read: int) -> Iterator[pl.DataFrame]:
    """Scored responses that have no sentences of this segmenter version yet, as `token_lists` gives them.

    Those to withdrawn questions are left out: nothing reads their sentences, and they may have no tokens any more.
    """
    ids = warehouse.read(_UNSPLIT, {"batch": batch, "student": student, "version": SEGMENTER_VERSION})["response_id"]
    yield from token_lists(warehouse, batch, student, ids, num_read)


def token_lists(
    lake: Lake, batch: str, student: str, ids: pl.Series, num_read: int = RESPONSES_AT_ONCE
) -> Iterator[pl.DataFrame]:
    """What `sentence_table` takes, of these responses in this order, `num_read` in memory; NULL where a table has none.

    Each table is read once, before the first is given.
    """
    of_batch = {"batch": batch, "student": student}
    return joined(lake, _TOKEN_LISTS, of_batch, "response_id", ids, num_read)


_UNSPLIT = """SELECT response_id FROM student_logprobs
        SEMI JOIN (SELECT response_id FROM responses SEMI JOIN (FROM prompts WHERE batch = $batch) USING (prompt_id)
            WHERE batch = $batch) USING (response_id)
    WHERE batch = $batch AND student_fingerprint = $student
      AND response_id NOT IN (SELECT response_id FROM sentence_probabilities
        WHERE batch = $batch AND student_fingerprint = $student AND segmenter_version = $version)
    ORDER BY response_id"""
_THESE = "batch = $batch AND response_id IN (SELECT unnest($keys::VARCHAR[]))"
_TOKEN_LISTS = f"""SELECT response_id, text, logprobs AS teacher_logprobs, offsets AS teacher_offsets
        FROM responses WHERE {_THESE}
    UNION ALL BY NAME SELECT response_id, logprobs AS student_logprobs
        FROM student_logprobs WHERE {_THESE} AND student_fingerprint = $student
    UNION ALL BY NAME SELECT response_id, offsets AS student_offsets
        FROM student_tokens WHERE {_THESE} AND student_fingerprint = $student"""
