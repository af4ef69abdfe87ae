"""Sentences and scores again, from logprobs and offsets, by the code that made them."""

from collections.abc import Callable, Iterator, Sequence

import polars as pl

from dasd_assets.audit.files import AGAIN, Fault
from dasd_assets.audit.verify.sampling import first_by_hash, part
from dasd_assets.divergence import SENTENCES_AT_ONCE
from dasd_assets.records.wording import number_of
from dasd_assets.rules.scores import SCORES, response_scores, sentence_type, threshold_version
from dasd_assets.rules.sentence_table import sentence_table
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_assets.sentence_probabilities import token_lists
from dasd_resources.recipe import Divergence, Recipe
from dasd_resources.storage.lake import Lake, Reading
from dasd_resources.storage.passes import parts

TOLERANCE = 1e-6
MODELS = ("teacher", "student")


def sentences(lake: Lake, reading: Reading, sample: int | None) -> Iterator[Fault]:
    """Sentences split and summed again, for both models: spans, counts and sums must be the stored ones."""
    groups = reading.read("SELECT DISTINCT batch, student_fingerprint AS student FROM student_logprobs ORDER BY ALL")
    query = first_by_hash(_WITH_LOGPROBS, "response_id", part(sample, groups))
    for key in groups.iter_rows(named=True):
        ids = reading.read(query, key)["response_id"].sort()
        for chunk in map(_sound, token_lists(lake, key["batch"], key["student"], ids)):
            params = {**key, "ids": chunk["response_id"].to_list(), "segmenter": SEGMENTER_VERSION}
            for response in _changed_sentences(reading.read(_STORED, params), chunk):
                what = "its sentences are not those that its text, tokens and logprobs give"
                yield Fault("sentence_probabilities", f"response_id {response}", what, AGAIN)


def _sound(rows: pl.DataFrame) -> pl.DataFrame:
    """Without the responses whose lists are lacking or do not fit to each other: they are reported already."""
    logprobs, offsets = ([pl.col(f"{model}_{what}").list for model in MODELS] for what in ("logprobs", "offsets"))
    return rows.filter(
        *(values.len() == places.len() for values, places in zip(logprobs, offsets, strict=True)),
        *(values.sum().is_finite() for values in logprobs),
        pl.max_horizontal(places.max() for places in offsets) < pl.col("text").str.len_chars(),
    )


def _changed_sentences(stored: pl.DataFrame, responses: pl.DataFrame) -> list[str]:
    """Of the responses that have sentences, those whose sentences come out otherwise."""
    again = sentence_table(responses.filter(pl.col("response_id").is_in(stored["response_id"].unique().implode())))
    both = stored.join(again, on=["response_id", "sentence_index"], how="full", coalesce=True, suffix="_again")
    same = [pl.col(c).eq_missing(pl.col(f"{c}_again")) for c in _COUNTS]
    same += [close(c) for c in _VALUES]
    return both.filter(~pl.all_horizontal(same))["response_id"].unique().sort().to_list()


def close(column: str) -> pl.Expr:
    """Whether a column is, but for rounding, what was found again; a value that is missing is so both times."""
    stored, again = pl.col(column), pl.col(f"{column}_again")
    return ((stored - again).abs() <= TOLERANCE).fill_null(stored.is_null() & again.is_null())


_COUNTS = ("start", "stop", "teacher_num_tokens", "student_num_tokens")
_VALUES = ("teacher_sum_logprob", "student_sum_logprob", "teacher_prob", "student_prob")
_WITH_LOGPROBS = """SELECT response_id FROM student_logprobs
    SEMI JOIN (FROM responses WHERE batch = $batch) r USING (response_id)
    WHERE batch = $batch AND student_fingerprint = $student"""
_STORED = """SELECT * FROM sentence_probabilities WHERE batch = $batch AND segmenter_version = $segmenter
    AND student_fingerprint = $student AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""


def scores(
    reading: Reading, recipes: Sequence[Recipe], sample: int | None, say: Callable[[str], None]
) -> Iterator[Fault]:
    """Scores again from their sentences and types, and types from probabilities, some responses at a time.

    recipes: those recorded; types by the rule of another one are taken as they are. Scores that are no longer in the
    catalogue are counted.
    """
    for name, number in reading.read(_REMOVED, {"names": list(SCORES)}).iter_rows():
        say(f"  {number_of(number, 'row')} of response_scores not made again: there is no score {name!r}")
    rules = {threshold_version(recipe): recipe.selection.divergence for recipe in recipes}
    groups = reading.read(
        "SELECT DISTINCT batch, student_fingerprint, threshold_version FROM response_scores ORDER BY ALL"
    )
    query = first_by_hash(_NUM_SENTENCES, "response_id", part(sample, groups))
    for key in groups.iter_rows(named=True):
        params = {**key, "segmenter": SEGMENTER_VERSION}
        for ids in parts(reading.read(query, params).sort("response_id").rows(), SENTENCES_AT_ONCE):
            sentences, stored = (reading.read(query, {**params, "ids": ids}) for query in (_TYPED, _SCORED))
            if key["threshold_version"] in rules:
                yield from _types(sentences, rules[key["threshold_version"]])
            yield from _scores(sentences, stored)


def _scores(sentences: pl.DataFrame, stored: pl.DataFrame) -> Iterator[Fault]:
    both = stored.join(response_scores(sentences), on=["response_id", "score_name"], suffix="_again")
    wrong = both.filter(~close("score") | (pl.col("num_sentences") != pl.col("num_sentences_again")))
    for row in wrong.iter_rows(named=True):
        old, new = (f"{row[f'score{end}']} of {row[f'num_sentences{end}']} sentences" for end in ("", "_again"))
        what = f"its {row['score_name']} is {old}, its sentences give {new}"
        yield Fault("response_scores", f"response_id {row['response_id']}", what, AGAIN)


def _types(sentences: pl.DataFrame, rule: Divergence) -> Iterator[Fault]:
    right = pl.col("sentence_type").eq_missing(sentence_type(rule)) & (pl.col("threshold") == rule.threshold)
    wrong = sentences.filter(~right).group_by("response_id").agg(pl.len(), pl.col("sentence_index").min())
    for response, number, first in wrong.sort("response_id").iter_rows():
        what = f"its probabilities give {number_of(number, 'other sentence type')}, first for sentence {first}"
        yield Fault("sentence_types", f"response_id {response}", what, AGAIN)


_REMOVED = """SELECT score_name, count(*) FROM response_scores WHERE NOT list_contains($names, score_name)
    GROUP BY ALL ORDER BY ALL"""
_KEYED = "batch = $batch AND student_fingerprint = $student_fingerprint"
_THESE = f"{_KEYED} AND response_id IN (SELECT unnest($ids::VARCHAR[]))"
_NUM_SENTENCES = f"""SELECT response_id, count(*) FROM sentence_probabilities WHERE {_KEYED}
    AND segmenter_version = $segmenter GROUP BY response_id"""
_TYPED = f"""SELECT p.*, t.sentence_type, t.threshold FROM (FROM sentence_probabilities WHERE {_THESE}
        AND segmenter_version = $segmenter) p JOIN (FROM sentence_types WHERE {_THESE}
        AND threshold_version = $threshold_version) t USING (response_id, student_fingerprint, sentence_index)"""
_SCORED = f"""SELECT response_id, score_name, score, num_sentences FROM response_scores WHERE {_THESE}
    AND threshold_version = $threshold_version ORDER BY response_id, score_name"""
