"""Keys, references and lists: what a query can tell of a table's rows."""

from collections.abc import Iterator

from dasd_assets.audit.files import AGAIN, Fault
from dasd_resources.recipe import SCORE_NAMES
from dasd_resources.storage.lake import Reading

KEYS = {
    "prompts": "prompt_id",
    "responses": "response_id",
    "response_verdicts": "response_id, filter, filter_version",
    "student_logprobs": "response_id, student_fingerprint",
    "sentence_probabilities": "response_id, student_fingerprint, segmenter_version, sentence_index",
    "sentence_types": "response_id, student_fingerprint, threshold_version, sentence_index",
    "response_scores": "response_id, student_fingerprint, threshold_version, score_name",
    "selected_responses": "recipe, dataset, policy, response_id",
    "sft_examples": "recipe, dataset, policy, example_id",
    "published_datasets": "recipe, dataset, policy",
    "checkpoints": "checkpoint_id, recipe, stage",
    "checkpoint_examples": "checkpoint_id, example_id",
    "student_rollouts": "rollout_id",
    "prefix_cuts": "rollout_id, cut_version",
    "teacher_continuations": "continuation_id",
    "continuation_verdicts": "continuation_id, filter, filter_version",
    "evaluations": "evaluation_id",
    "withdrawn_prompts": "prompt_id",
}
REFERENCES = (  # table, columns, the table that must have such a row; its columns have the same names unless given
    ("responses", "prompt_id", "prompts"),
    ("responses", "teacher_fingerprint", "checkpoints", "checkpoint_id"),
    ("response_verdicts", "response_id, batch", "responses"),
    ("student_logprobs", "response_id, batch", "responses"),
    ("student_logprobs", "student_fingerprint", "checkpoints", "checkpoint_id"),
    ("sentence_probabilities", "response_id, batch, student_fingerprint", "student_logprobs"),
    ("sentence_types", "response_id, batch, student_fingerprint, sentence_index", "sentence_probabilities"),
    ("response_scores", "response_id, batch, student_fingerprint, threshold_version", "sentence_types"),
    ("selected_responses", "response_id, prompt_id", "responses"),
    ("sft_examples", "response_id", "responses"),
    ("sft_examples", "continuation_id", "teacher_continuations"),
    ("checkpoints", "parent_checkpoint_id", "checkpoints", "checkpoint_id"),
    ("checkpoint_examples", "checkpoint_id", "checkpoints"),
    ("checkpoint_examples", "response_id, prompt_id", "responses"),
    ("checkpoint_examples", "continuation_id, prompt_id", "teacher_continuations"),
    ("student_rollouts", "checkpoint_id", "checkpoints"),
    ("student_rollouts", "reference_response_id, prompt_id", "responses", "response_id, prompt_id"),
    ("prefix_cuts", "rollout_id", "student_rollouts"),
    ("teacher_continuations", "rollout_id, prompt_id", "student_rollouts"),
    ("teacher_continuations", "teacher_fingerprint", "checkpoints", "checkpoint_id"),
    ("continuation_verdicts", "continuation_id", "teacher_continuations"),
    ("evaluations", "checkpoint_id", "checkpoints"),
)
_TOKENS = "len(token_ids) <> len(logprobs) OR len(token_ids) <> len(offsets)"
_VALUES = "NOT coalesce(list_max(logprobs) <= 0 AND isfinite(list_min(logprobs)), len(logprobs) = 0)"
_OFFSETS = "coalesce(list_max(offsets) >= length(text) OR list_min(offsets) < -1, FALSE)"
_UNREASONED = """passed = (kind IS NOT NULL AND NOT (filter = 'correctness' AND kind = 'no_verifier'))
    OR (kind IS NULL) <> (reason IS NULL)"""
_UNKNOWN_SCORE = f"score_name NOT IN {SCORE_NAMES}"
CONDITIONS = (  # table, its id, what is wrong where the condition holds
    *[
        (table, key, what, condition)
        for table, key in (
            ("responses", "response_id"),
            ("student_logprobs", "response_id"),
            ("student_rollouts", "rollout_id"),
            ("teacher_continuations", "continuation_id"),
        )
        for what, condition in (
            ("its token ids, logprobs and offsets differ in number", _TOKENS),
            ("it has a logprob that is above 0 or not finite", _VALUES),
        )
    ],
    ("responses", "response_id", "an offset lies outside its text", _OFFSETS),
    ("student_rollouts", "rollout_id", "an offset lies outside its text", _OFFSETS),
    *[
        (table, key, "it passes for a reason, or fails without one", condition)
        for table, key, condition in (
            ("response_verdicts", "response_id || ' ' || filter", _UNREASONED),
            ("continuation_verdicts", "continuation_id || ' ' || filter", _UNREASONED),
            ("evaluations", "evaluation_id", "correct = (kind IS NOT NULL) OR (kind IS NULL) <> (reason IS NULL)"),
        )
    ],
    (
        "response_scores",
        "response_id || ' ' || score_name",
        "there is no such score",
        f"score_name NOT IN {SCORE_NAMES}",
    ),
    ("sft_examples", "example_id", "its token ids and labels differ in number", "len(input_ids) <> len(labels)"),
)


def doubled(reading: Reading, table: str, key: str) -> Iterator[Fault]:
    query = f"SELECT {key}, count(*) AS num FROM {table} GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL"
    for row in reading.read(query).iter_rows(named=True):
        name = " ".join(str(value) for column, value in row.items() if column != "num")
        yield Fault(table, name, f"there are {row['num']} rows of this key", "delete all but one of them")


def orphans(reading: Reading, table: str, columns: str, parent: str, named: str | None = None) -> Iterator[Fault]:
    """Rows whose parent is missing; a withdrawn question is no missing one, nor is where no parent is named."""
    withdrawn = "UNION ALL SELECT prompt_id FROM withdrawn_prompts" if parent == "prompts" else ""
    own = columns.split(", ")
    names = ", ".join(f"{name} AS {column}" for name, column in zip((named or columns).split(", "), own, strict=True))
    query = f"""SELECT DISTINCT {columns} FROM {table} ANTI JOIN (SELECT {names} FROM {parent} {withdrawn})
        USING ({columns}) WHERE {own[0]} IS NOT NULL ORDER BY ALL"""
    for row in reading.read(query).iter_rows(named=True):
        name = " ".join(f"{column} {value}" for column, value in row.items())
        yield Fault(table, name, f"{parent} has no such row", AGAIN)


def wrong(reading: Reading, table: str, key: str, what: str, condition: str) -> Iterator[Fault]:
    query = f"SELECT {key} AS id FROM {table} WHERE {condition} ORDER BY id"
    for row in reading.read(query).iter_rows(named=True):
        yield Fault(table, row["id"], what, AGAIN)
