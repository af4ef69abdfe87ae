"""The columns of every table (not view): names and types from the migrations themselves, what they mean from here.

One source of truth for the web UI and the docs: `columns` runs the migrations in an empty in-memory DuckDB, so a new
migration shows at once; a test compares the result with a real catalog, and demands a description of every column.
"""

from dataclasses import dataclass
from functools import cache

import duckdb

from dasd_resources.storage.schema import MIGRATIONS


@dataclass(frozen=True)
class Column:
    """A column as DuckDB declares it, with its meaning."""

    name: str
    type: str
    nullable: bool
    description: str


# What a column of this name means in every table that has it; a table's own meaning of it stands in OF_TABLE.
COMMON = {
    "batch": "Prompt batch: name and content hash of the landed file.",
    "benchmark": "Name of the benchmark in the recipe.",
    "checkpoint_id": "Hash of parent, training examples and settings; a model's fingerprint where it is untrained.",
    "continuation_id": "Hash of everything that decides the continuation.",
    "cut_version": "Version of the rule that drew the cut.",
    "dataset": "`t060`, `t100`, … after the sampling temperature; `mixed` for the mixed-policy stage.",
    "dataset_id": "Hash of the dataset's content and of the recipe's parts that made it.",
    "domain": "Domain of the question (`math`, `code`, …); selection has a budget for each.",
    "dtype": "Precision the model ran in.",
    "engine": "Inference engine that produced the log-probabilities.",
    "example_id": "Hash of the example's source and of its every token and label.",
    "filter": "`length`, `truncation`, `structure`, `repetition` or `correctness` (report §6.2).",
    "filter_version": "Hash of the filter's code, its limits and the tokenizer that counts length.",
    "finish_reason": "`stop` at the end of turn, `length` at the token limit.",
    "kind": "Code of what is wrong, or of why nothing could be judged (`rules/filters.py`); NULL where it passes.",
    "logprobs": "Natural log-probability of each token at temperature 1, before any sampling transform.",
    "max_tokens": "Token limit of the request.",
    "metadata": "The row's other fields as JSON; the verifier may need them.",
    "num_sentences": "Sentences with tokens on both sides, those a share or mean counts.",
    "num_tokens": "Tokens of the answer.",
    "offsets": "Code point at which each token starts in the canonical text; -1: not in the text.",
    "passed": "Whether the text passes the filter.",
    "policy": "`das`: divergence-aware sampling; `random`: the control.",
    "prompt_id": "Hash of question, system prompt, domain, verifier and reference answer.",
    "question": "The question, as the user wrote it.",
    "question_id": "Hash of the held-out question and what judges it.",
    "reason": "The same for people, with all that is wrong.",
    "recipe": "Name of the recipe; several can share one warehouse.",
    "reference_answer": "What the verifier compares the final answer with.",
    "response_id": "Hash of everything that decides the response: prompt, teacher, template, sampling, sample index.",
    "rollout_id": "Hash of everything that decides the rollout.",
    "run_id": "Dagster run that wrote the row.",
    "sample_index": "Which of the samples of one question, from 0.",
    "score": "The response's score; NULL where no sentence counts.",
    "score_name": "Which score; the recipe picks the one that ranks.",
    "seed": "Seed of the row's own noise, derived from its id.",
    "segmenter_version": "Version of the rules that cut text into sentences.",
    "sentence_index": "Number of the sentence in its response, from 0.",
    "snapshot_id": "Snapshot of the warehouse that holds exactly the rows trained on.",
    "source_file": "Landed file the row came from.",
    "source_line": "Line of that file, from 1; 0: the file as a whole.",
    "stage": "`teacher`, `student` (untrained), `stage1`, `stage2`, …",
    "student_fingerprint": "Content hash of the student as the recipe prompts it.",
    "system_prompt": "System prompt of the question; NULL: the model's own.",
    "teacher_fingerprint": "Content hash of the teacher as the recipe prompts it.",
    "temperature": "Sampling temperature; log-probabilities are never tempered.",
    "template_version": "Hash of the chat template that rendered the prompt.",
    "text": "Canonical text: `<think>`, body, `</think>`, answer.",
    "threshold": "How far apart the two models must be for a sentence to be one's own.",
    "threshold_version": "Hash of segmenter, measure, threshold and code that typed sentences and scored responses.",
    "token_ids": "Token ids as sampled.",
    "tool_call": "Whether the text calls a tool.",
    "top_p": "Nucleus of the sampling distribution; 1: all of it.",
    "verifier": "How a final answer is judged: `math`, `exact`, `multiple_choice`, `reasoning_gym:…`.",
    "verifier_version": "Version of the verifiers' code.",
}

OF_TABLE = {
    "rejected_prompts": {
        "kind": "Code of why the line is not in `prompts` (`landing/rejections.py`).",
        "reason": "The same for people, with the offending value.",
        "prompt_id": "Prompt it repeats, or the withdrawn one it is; NULL for a malformed line.",
        "owner_batch": "Batch that had the prompt it repeats; NULL for any other line.",
    },
    "withdrawn_prompts": {
        "question_hash": "Hash of the question alone, by which later copies of it are known.",
        "reason": "Why it was withdrawn.",
        "withdrawn_at": "When.",
    },
    "selection_rules": {
        "rule": "The rule that selected, as JSON.",
        "selected_at": "When the dataset was selected by it.",
    },
    "failed_requests": {
        "request_id": "Id of the row the request was for.",
        "asset": "Table the row would be in.",
        "batch": "Prompt batch of the request, if it has one.",
        "kind": "Code of why it failed (`inference/engine.py`).",
        "reason": "The same for people: what the engine reported.",
        "num_attempts": "How often it has failed.",
        "failed_at": "When it failed last; the row goes when a later run succeeds.",
    },
    "quarantined_batches": {
        "reason": "Why the batch was set aside.",
        "step": "What kept failing.",
        "num_attempts": "How often it was tried.",
        "failed_run_id": "The last Dagster run that failed.",
        "quarantined_at": "When it was set aside.",
        "released_at": "When it was brought back; NULL while it is aside.",
    },
    "student_logprobs": {"token_ids": "The student's own tokens of the same text, end of turn included."},
    "sentence_probabilities": {
        "start": "First code point of the sentence.",
        "stop": "Code point after its last.",
        "teacher_sum_logprob": "Sum of the teacher's token log-probabilities in the sentence.",
        "teacher_num_tokens": "Number of the teacher's tokens in it.",
        "student_sum_logprob": "Sum of the student's token log-probabilities in it.",
        "student_num_tokens": "Number of the student's tokens in it.",
        "teacher_prob": "exp(sum / tokens): the geometric mean per token (report §4); NULL without a token.",
        "student_prob": "The same under the student.",
    },
    "sentence_types": {"sentence_type": "`teacher`, `student` or `close`; NULL where a side owns no token."},
    "selected_responses": {
        "rank": "Place within the domain, from 1.",
        "selection_version": "Hash of the rule that selected it.",
    },
    "sft_examples": {
        "response_id": "The response it teaches; NULL for a continuation.",
        "continuation_id": "The continuation it teaches; NULL for a response.",
        "input_ids": "The student's token ids: prompt, response, end of turn.",
        "labels": "The same ids where a token carries loss, -100 elsewhere.",
    },
    "published_datasets": {
        "snapshot_id": "Snapshot of the warehouse that holds its rows; maintenance keeps it.",
        "num_examples": "Examples in it.",
        "published_at": "When its content became this.",
    },
    "checkpoints": {
        "parent_checkpoint_id": "The model training started from; NULL for an untrained one.",
        "dataset": "Dataset it was trained on; NULL for an untrained one.",
        "path": "Folder of weights, configuration and tokenizer.",
        "content_hash": "Hash of the files in it.",
        "training_version": "Hash of code and settings of the training.",
        "num_examples": "Examples trained on.",
        "num_steps": "Optimiser steps.",
        "seconds": "Time the training took.",
        "final_loss": "Training loss at the last step, nats per token.",
        "materialized_at": "When it was registered.",
        "recipe_document": "The recipe it was trained by, as JSON.",
        "environment": "Versions of the packages it was trained with, as JSON.",
    },
    "student_rollouts": {
        "checkpoint_id": "The distilled student that answered.",
        "reference_response_id": "The selected teacher response to the same question.",
        "reference_num_tokens": "Its length in student tokens.",
        "cut_off": "Whether the rollout hit its token limit.",
    },
    "prefix_cuts": {
        "cut_token": "How many of the rollout's tokens are kept; NULL where it cannot be cut.",
        "cut_char": "How many code points of its text that is.",
        "reason": "Why it cannot be cut, for people: NULL where it can.",
    },
    "teacher_continuations": {
        "max_response_tokens": "Token limit of prefix and continuation together; NULL in rows of earlier releases.",
        "prefix_text": "The student's part.",
        "continuation_text": "The teacher's part.",
        "text": "Both together, canonical.",
        "logprobs": "Natural log-probability of each token of the continuation at temperature 1.",
        "offsets": "Code point at which each of its tokens starts in `text`; -1: not in the text.",
        "token_ids": "Token ids of the continuation as sampled.",
    },
    "evaluations": {
        "evaluation_id": "Hash of checkpoint, question, sampling and verifier.",
        "correct": "Whether the final answer is right.",
        "kind": "Code of why it is not (`rules/filters.py`); NULL where it is.",
        "reason": "The same for people.",
        "response_text": "Canonical text of the answer.",
    },
}


def describe(table: str, column: str) -> str:
    """What a column means; empty for one that nobody has described, which a test finds."""
    return OF_TABLE.get(table, {}).get(column) or COMMON.get(column, "")


@cache
def tables() -> dict[str, tuple[Column, ...]]:
    """Table -> its columns in order, as the migrations leave them; the version table is left out."""
    found: dict[str, tuple[Column, ...]] = {}
    with duckdb.connect() as connection:
        for migration in MIGRATIONS:
            _run(connection, migration)
        query = """SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns()
            WHERE NOT internal AND table_name IN (SELECT table_name FROM duckdb_tables())
            ORDER BY table_oid, column_index"""
        for table, name, kind, nullable in connection.sql(query).fetchall():
            found[table] = (*found.get(table, ()), Column(name, kind, nullable, describe(table, name)))
    return found


def _run(connection: duckdb.DuckDBPyConnection, migration: str) -> None:
    """All of a migration but what only DuckLake knows, such as the partitioning of files: that changes no column."""
    for statement in connection.extract_statements(migration):
        try:
            connection.execute(statement)
        except duckdb.NotImplementedException:
            continue
