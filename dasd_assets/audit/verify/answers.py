"""The checkpoints' own answers again: texts from tokens, sentences from logprobs and offsets, types from sums."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import polars as pl

from dasd_assets.audit.files import AGAIN, Fault
from dasd_assets.audit.verify.chats import Chats, NoChat
from dasd_assets.audit.verify.sampling import CHUNK, drawn, first_by_hash, part
from dasd_assets.audit.verify.scores import close
from dasd_assets.records.wording import number_of
from dasd_assets.rules.answer_types import MODELS, answer_threshold_version, four_types
from dasd_assets.rules.answers import ANSWER_ID
from dasd_assets.rules.sentence_table import sentence_table
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Reading

_MODELS = "checkpoint_id = $checkpoint_id AND teacher_fingerprint = $teacher_fingerprint"
_MODELS += " AND student_fingerprint = $student_fingerprint"
_LISTS = ", ".join(f"{model}.{column} AS {model}_{column}" for model in MODELS for column in ("logprobs", "offsets"))
_SOUND = " AND ".join(
    f"len({m}.logprobs) = len({m}.offsets) AND isfinite(coalesce(list_sum({m}.logprobs), 0)) "
    f"AND coalesce(list_max({m}.offsets), -1) < length(e.text)"
    for m in MODELS
)
_TOKEN_LISTS = f"""SELECT answer_id, e.text, {_LISTS}
    FROM (SELECT DISTINCT ON (answer_id) {ANSWER_ID} AS answer_id, response_text AS text FROM evaluations
            WHERE checkpoint_id = $checkpoint_id) e
        JOIN (FROM answer_logprobs WHERE checkpoint_id = $teacher_fingerprint) teacher USING (answer_id)
        JOIN (FROM answer_logprobs WHERE checkpoint_id = $student_fingerprint) student USING (answer_id)
        JOIN (FROM answer_logprobs WHERE checkpoint_id = $checkpoint_id) distilled USING (answer_id)
    WHERE answer_id IN (SELECT unnest($ids::VARCHAR[])) AND {_SOUND}"""  # the others are reported already
_STORED = f"""SELECT * FROM answer_sentences WHERE {_MODELS} AND segmenter_version = $segmenter
    AND answer_id IN (SELECT unnest($ids::VARCHAR[]))"""
_GROUPS = "SELECT DISTINCT checkpoint_id, teacher_fingerprint, student_fingerprint FROM answer_sentences ORDER BY ALL"


_ANSWERS = f"""SELECT DISTINCT ON (answer_id) {ANSWER_ID} AS answer_id, question_id, response_text AS text
    FROM evaluations"""


def answer_texts(reading: Reading, chats: Chats, sample: int | None, say: Callable[[str], None]) -> Iterator[Fault]:
    """Scored answers that no evaluation holds, or whose tokens say another text; those without a model are counted."""
    query = f"""SELECT l.*, a.text, a.question_id AS asked
        FROM {drawn("answer_logprobs", "answer_logprobs_id", sample)} l LEFT JOIN ({_ANSWERS}) a USING (answer_id)"""
    unread: Counter[str] = Counter()
    for chunk in reading.stream(query, {}, CHUNK):
        for row in chunk.iter_rows(named=True):
            if row["asked"] != row["question_id"]:
                what = f"no answer to question {row['question_id']} in evaluations has answer_id {row['answer_id']}"
                yield Fault("answer_logprobs", row["answer_logprobs_id"], what, AGAIN)
                continue
            try:
                said = chats.find(row["checkpoint_id"]).read_response(row["token_ids"])
            except NoChat as error:
                unread[str(error)] += 1
                continue
            for column, value in (("text", said.text), ("offsets", list(said.offsets))):
                if row[column] != value:
                    what = f"its {column} is not what its tokens say"
                    yield Fault("answer_logprobs", row["answer_logprobs_id"], what, AGAIN)
    for why, number in unread.items():
        say(f"  the text of {number:,} answer_logprobs could not be compared with its tokens: {why}")


def answer_sentences(reading: Reading, sample: int | None) -> Iterator[Fault]:
    """Sentences split and summed again, for three models: spans, counts and sums must be the stored ones."""
    groups = reading.read(_GROUPS)
    each = "SELECT DISTINCT answer_id FROM answer_sentences WHERE segmenter_version = $segmenter AND "
    query = first_by_hash(f"SELECT answer_id FROM ({each} {_MODELS})", "answer_id", part(sample, groups))
    for key in groups.iter_rows(named=True):
        params = {**key, "segmenter": SEGMENTER_VERSION}
        for chunk in reading.read(query, params).iter_slices(CHUNK):
            of_chunk = {**params, "ids": chunk["answer_id"].to_list()}
            again = sentence_table(reading.read(_TOKEN_LISTS, of_chunk), "answer_id", MODELS)
            stored = reading.read(_STORED, of_chunk).join(again, on="answer_id", how="semi")
            for answer in _changed(stored, again):
                what = "its sentences are not those that its text, tokens and logprobs give"
                yield Fault(
                    "answer_sentences", f"answer_id {answer}, checkpoint_id {key['checkpoint_id']}", what, AGAIN
                )


def _changed(stored: pl.DataFrame, again: pl.DataFrame) -> list[str]:
    both = stored.join(again, on=["answer_id", "sentence_index"], how="full", coalesce=True, suffix="_again")
    exact = ("start", "stop", *(f"{model}_num_tokens" for model in MODELS))
    same = [pl.col(column).eq_missing(pl.col(f"{column}_again")) for column in exact]
    same += [close(f"{model}_{column}") for model in MODELS for column in ("sum_logprob", "prob")]
    return both.filter(~pl.all_horizontal(same))["answer_id"].unique().sort().to_list()


def answer_types(reading: Reading, recipes: Sequence[Recipe], say: Callable[[str], None]) -> Iterator[Fault]:
    """Types again, from the sums; those by the rule of a recipe that is not recorded are counted."""
    rules = {answer_threshold_version(recipe): recipe.selection.divergence for recipe in recipes}
    query = """SELECT s.* EXCLUDE (run_id), t.sentence_type, t.threshold FROM answer_sentence_types t
        JOIN answer_sentences s
            USING (answer_id, checkpoint_id, teacher_fingerprint, student_fingerprint, sentence_index)
        WHERE t.threshold_version = $version AND s.segmenter_version = $segmenter"""
    versions = reading.read("SELECT threshold_version, count(*) FROM answer_sentence_types GROUP BY ALL ORDER BY ALL")
    for version, number in versions.iter_rows():
        if version not in rules:
            say(f"  {number_of(number, 'row')} of answer_sentence_types not made again: no recipe with their rule")
            continue
        rule, params = rules[version], {"version": version, "segmenter": SEGMENTER_VERSION}
        for chunk in reading.stream(query, params, CHUNK):
            right = pl.col("sentence_type").eq_missing(four_types(rule)) & (pl.col("threshold") == rule.threshold)
            for row in chunk.filter(~right).iter_rows(named=True):
                name = f"answer_id {row['answer_id']}, sentence_index {row['sentence_index']}"
                yield Fault("answer_sentence_types", name, f"it is no {row['sentence_type']} sentence", AGAIN)
