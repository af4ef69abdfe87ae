"""The typed sentences of the checkpoints' own answers, and what is found in them."""

import re
from dataclasses import dataclass

import polars as pl

from dasd_assets.records.wording import number_of
from dasd_assets.rules.answer_types import FOUR_TYPES, answer_threshold_version, strength
from dasd_assets.rules.answers import sampled_answers
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_assets.rules.type_shares import (
    answer_shares,
    differences_within_questions,
    mean_shares,
    pooled_differences,
    position_shares,
    sensitivity,
)
from dasd_assets.rules.verdict import UNDECIDED
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Divergence, Recipe
from dasd_resources.storage.warehouse import Warehouse

NUM_CHARACTERISTIC = 8  # sentences of each type
MAX_SHOWN_SENTENCES = 40  # of the one answer that is drawn
_GIVEN = ["answer_id", "checkpoint_id"]


@dataclass(frozen=True)
class Findings:
    """What the sample of answers shows; tables with `low` and `high` hold intervals of 95 %.

    sample: of which questions the answers are. num_answers: how many; num_typed: those with a typed sentence. newest:
    the last checkpoint with answers, of which positions, thresholds and sentences are shown; None without any.
    stages: checkpoint, type, mean, low, high, num_answers, num_questions. pooled, within: checkpoint, type, right,
    wrong, difference, low, high, num_questions. positions: correct, position, type, mean, low, high. differences:
    position, type, difference, low, high. thresholds: see `sensitivity`. answer: sentence_index, the three
    probabilities, sentence_type and sentence of one answer. characteristic: type, score, num_answers, sentence.
    """

    divergence: Divergence
    sample: str
    newest: str | None
    num_answers: int
    num_typed: int
    stages: pl.DataFrame
    pooled: pl.DataFrame
    within: pl.DataFrame
    positions: pl.DataFrame
    differences: pl.DataFrame
    thresholds: pl.DataFrame
    answer: pl.DataFrame
    characteristic: pl.DataFrame


def find(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> Findings:
    """Read the sample's typed sentences and count in them."""
    answers, sentences = sampled_sentences(warehouse, engines, recipe)
    return findings(answers, sentences, recipe.selection.divergence)


def sampled_sentences(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The answers of the sample, and the sentences of each, with sums, type, and the answer's columns but its text."""
    answers = decided(sampled_answers(warehouse, recipe))
    return answers, _sentences(warehouse, engines, recipe).join(answers.drop("text"), on=_GIVEN)


def findings(answers: pl.DataFrame, sentences: pl.DataFrame, divergence: Divergence) -> Findings:
    """answers: see `sampled_answers`. sentences: of all of them, each with its answer's columns and its type."""
    sentences = sentences.sort("checkpoint", "answer_id", "sample_index", "sentence_index")
    shares = answer_shares(sentences)
    newest = shares["checkpoint"].max() if shares.height else None
    of_newest = sentences.filter(pl.col("checkpoint").eq_missing(newest))
    places = position_shares(of_newest)
    texts = answers.unique(_GIVEN, keep="first", maintain_order=True)
    return Findings(
        divergence,
        sample(answers),
        None if newest is None else str(newest),
        answers.height,
        shares.height // len(FOUR_TYPES),
        mean_shares(shares, ["checkpoint", "type"]),
        pooled_differences(shares, ["checkpoint", "type"]),
        differences_within_questions(shares, ["checkpoint", "type"]),
        mean_shares(places.drop_nulls("correct"), ["correct", "position", "type"]),
        differences_within_questions(places, ["position", "type"]),
        sensitivity(of_newest, divergence),
        one_answer(of_newest, texts),
        characteristic(of_newest, texts, divergence),
    )


def decided(answers: pl.DataFrame) -> pl.DataFrame:
    """The answers with `correct` NULL where the verifier could not tell: neither right nor known to be wrong."""
    unknown = pl.col("kind").is_in(UNDECIDED).fill_null(False)
    return answers.with_columns(correct=pl.when(~unknown).then("correct"))


def sample(answers: pl.DataFrame) -> str:
    """`200 questions of chain_sum at T = 1, up to 4 answers of a checkpoint to each`."""
    temperatures = ", ".join(f"{temperature:g}" for temperature in answers["temperature"].unique().sort())
    benchmarks = ", ".join(answers["benchmark"].unique().sort())
    questions = number_of(answers.select("benchmark", "question_id").unique().height, "question")
    most = max(answers.group_by("checkpoint", "benchmark", "question_id", "temperature").len()["len"], default=0)
    return f"{questions} of {benchmarks} at T = {temperatures}, up to {most} answers of a checkpoint to each"


def one_answer(sentences: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """The answer that is drawn: of those that are not too long to show, one with most types, then most sentences."""
    each = sentences.group_by(_GIVEN).agg(
        num_types=pl.col("sentence_type").drop_nulls().n_unique(), num_sentences=pl.col("sentence_index").n_unique()
    )
    short = each.filter(pl.col("num_sentences") <= MAX_SHOWN_SENTENCES)
    first = (short if short.height else each).sort(
        "num_types", "num_sentences", "answer_id", descending=[True, True, False]
    )
    chosen = sentences.join(first.head(1), on=_GIVEN, how="semi").unique(["sentence_index"], maintain_order=True)
    columns = ["sentence_index", "teacher_prob", "student_prob", "distilled_prob", "sentence_type", "sentence"]
    return with_text(chosen, texts).select(columns).sort("sentence_index").head(MAX_SHOWN_SENTENCES)


def characteristic(sentences: pl.DataFrame, texts: pl.DataFrame, divergence: Divergence) -> pl.DataFrame:
    """The sentences most characteristic of each type: type, score, num_answers, sentence.

    score: sum of `strength` over the answers that hold the sentence, so that it is one that comes often and clearly.
    Sentences that differ in numbers and white space alone are one, shown as where it is clearest.
    """
    once = sentences.unique([*_GIVEN, "sentence_index"], maintain_order=True).drop_nulls("sentence_type")
    named = with_text(once.with_columns(strength=strength(divergence)), texts)
    wording = pl.col("sentence").map_elements(alike, return_dtype=pl.String)
    each = named.with_columns(wording=wording).sort("strength", descending=True, maintain_order=True)
    answers = each.group_by("sentence_type", "wording", "answer_id", maintain_order=True).agg(
        pl.col("strength").max(), pl.col("sentence").first()
    )
    scored = answers.group_by("sentence_type", "wording", maintain_order=True).agg(
        score=pl.col("strength").sum(), num_answers=pl.len(), sentence=pl.col("sentence").first()
    )
    ranked = scored.sort("score", "wording", descending=[True, False])
    best = ranked.group_by("sentence_type", maintain_order=True).head(NUM_CHARACTERISTIC)
    order = pl.col("sentence_type").cast(pl.Enum(FOUR_TYPES)).alias("type")
    return best.select(order, "score", "num_answers", "sentence").sort("type", maintain_order=True)


def alike(sentence: str) -> str:
    """What two sentences share that differ in numbers and white space alone."""
    return re.sub(r"[-−]?\d+(?:[.,]\d+)*", "0", " ".join(sentence.split()))


def with_text(sentences: pl.DataFrame, texts: pl.DataFrame) -> pl.DataFrame:
    """The sentences with their own text; an answer's whole text is in memory once, not for each sentence."""
    known = {tuple(key): text for *key, text in texts.select(*_GIVEN, "text").iter_rows()}
    places = sentences.select(*_GIVEN, "start", "stop").iter_rows()
    cut = [known[answer, checkpoint][start:stop] for answer, checkpoint, start, stop in places]
    return sentences.with_columns(sentence=pl.Series(cut, dtype=pl.String))


def _sentences(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> pl.DataFrame:
    query = """SELECT s.* EXCLUDE (run_id), t.sentence_type FROM answer_sentences s JOIN answer_sentence_types t
            USING (answer_id, checkpoint_id, teacher_fingerprint, student_fingerprint, sentence_index)
        WHERE teacher_fingerprint = $teacher AND student_fingerprint = $student
          AND s.segmenter_version = $segmenter AND t.threshold_version = $threshold"""
    params = {
        "teacher": engines.fingerprint(recipe.teacher, "teacher.model"),
        "student": engines.fingerprint(recipe.student, "student.model"),
        "segmenter": SEGMENTER_VERSION,
        "threshold": answer_threshold_version(recipe),
    }
    return warehouse.read(query, params)
