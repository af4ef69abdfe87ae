"""Keys, references and lists: what a query can tell of a table's rows."""

from collections.abc import Iterator

from dasd_assets.audit.files import AGAIN, Fault
from dasd_resources.lake import Reading

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
REFERENCES = (  # table, column, the table it must be in; the column has the same name there unless given
    ("responses", "prompt_id", "prompts", "prompt_id"),
    ("response_verdicts", "response_id", "responses", "response_id"),
    ("student_logprobs", "response_id", "responses", "response_id"),
    ("sentence_probabilities", "response_id", "student_logprobs", "response_id"),
    ("sentence_types", "response_id", "sentence_probabilities", "response_id"),
    ("response_scores", "response_id", "sentence_types", "response_id"),
    ("selected_responses", "response_id", "responses", "response_id"),
    ("sft_examples", "response_id", "responses", "response_id"),
    ("sft_examples", "continuation_id", "teacher_continuations", "continuation_id"),
    ("checkpoints", "parent_checkpoint_id", "checkpoints", "checkpoint_id"),
    ("checkpoint_examples", "checkpoint_id", "checkpoints", "checkpoint_id"),
    ("student_rollouts", "checkpoint_id", "checkpoints", "checkpoint_id"),
    ("student_rollouts", "reference_response_id", "responses", "response_id"),
    ("prefix_cuts", "rollout_id", "student_rollouts", "rollout_id"),
    ("teacher_continuations", "rollout_id", "student_rollouts", "rollout_id"),
    ("continuation_verdicts", "continuation_id", "teacher_continuations", "continuation_id"),
    ("evaluations", "checkpoint_id", "checkpoints", "checkpoint_id"),
)
_TOKENS = "len(token_ids) <> len(logprobs) OR len(token_ids) <> len(offsets)"
_VALUES = "NOT coalesce(list_max(logprobs) <= 0 AND isfinite(list_min(logprobs)), len(logprobs) = 0)"
_OFFSETS = "coalesce(list_max(offsets) >= length(text) OR list_min(offsets) < -1, FALSE)"
_UNREASONED = "passed = (reason IS NOT NULL AND NOT (filter = 'correctness' AND reason = 'no verifier'))"
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
            ("evaluations", "evaluation_id", "correct = (reason IS NOT NULL)"),
        )
    ],
    ("sft_examples", "example_id", "its token ids and labels differ in number", "len(input_ids) <> len(labels)"),
)


def doubled(reading: Reading, table: str, key: str) -> Iterator[Fault]:
    query = f"SELECT {key}, count(*) AS num FROM {table} GROUP BY ALL HAVING count(*) > 1 ORDER BY ALL"
    for row in reading.read(query).iter_rows(named=True):
        name = " ".join(str(value) for column, value in row.items() if column != "num")
        yield Fault(table, name, f"there are {row['num']} rows of this key", "delete all but one of them")


def orphans(reading: Reading, table: str, column: str, parent: str, parent_column: str) -> Iterator[Fault]:
    """Rows whose parent is missing; a withdrawn question is no missing one."""
    withdrawn = "UNION ALL SELECT prompt_id FROM withdrawn_prompts" if parent == "prompts" else ""
    query = f"""SELECT DISTINCT {column} AS id FROM {table} WHERE {column} IS NOT NULL AND {column} NOT IN (
        SELECT {parent_column} FROM {parent} {withdrawn}) ORDER BY id"""
    for row in reading.read(query).iter_rows(named=True):
        yield Fault(table, f"{column} {row['id']}", f"{parent} has no such row", AGAIN)


def wrong(reading: Reading, table: str, key: str, what: str, condition: str) -> Iterator[Fault]:
    query = f"SELECT {key} AS id FROM {table} WHERE {condition} ORDER BY id"
    for row in reading.read(query).iter_rows(named=True):
        yield Fault(table, row["id"], what, AGAIN)
