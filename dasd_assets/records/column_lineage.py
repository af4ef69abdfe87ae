"""Where every column comes from: column -> the columns, of the tables upstream, that its values are computed from.

Left out are columns that only say which rows there are (a filter's `passed` decides what is scored, not what the score
is), and values that come from the recipe or from the code. An asset names the assets that wrote each of these tables.
"""

from collections.abc import Mapping, Sequence

import dagster as dg

Sources = Mapping[str, str | Sequence[str]]  # table -> the asset or assets that wrote it

_ASKED = ("prompts.question", "prompts.system_prompt")
_JUDGED = (*_ASKED, "prompts.reference_answer", "prompts.verifier", "prompts.metadata")
_SAMPLED = (*_ASKED, "checkpoints.path")
_PREFIX = ("student_rollouts.text", "prefix_cuts.cut_char")
_CONTINUED = (*_PREFIX, *_SAMPLED)
_TAUGHT = (*_ASKED, "responses.text", "teacher_continuations.text")
_TRAINED = ("checkpoints.path", "sft_examples.input_ids", "sft_examples.labels")
_BENCHMARK = ("benchmark_questions.question", "benchmark_questions.system_prompt", "checkpoints.path")
_SUMS = ("teacher_sum_logprob", "teacher_num_tokens", "student_sum_logprob", "student_num_tokens", "start", "stop")
_GAPS = tuple(f"sentence_probabilities.{column}" for column in _SUMS)
_TEACHER = ("responses.text", "responses.logprobs", "responses.offsets")
_STUDENT = ("responses.text", "student_logprobs.logprobs", "student_logprobs.offsets")


def _same(table: str, *columns: str) -> dict[str, tuple[str, ...]]:
    """Columns taken over as they are."""
    return {column: (f"{table}.{column}",) for column in columns}


def _judged(table: str) -> tuple[str, ...]:
    return (*(f"{table}.{column}" for column in ("text", "token_ids", "finish_reason", "tool_call")), *_JUDGED)


LINEAGE: Mapping[str, Mapping[str, Sequence[str]]] = {
    "responses": {
        **_same("prompts", "prompt_id", "batch"),
        "response_id": ("prompts.prompt_id", "checkpoints.checkpoint_id"),
        "seed": ("prompts.prompt_id", "checkpoints.checkpoint_id"),
        "teacher_fingerprint": ("checkpoints.checkpoint_id",),
        **dict.fromkeys(("text", "token_ids", "logprobs", "offsets", "tool_call", "finish_reason"), _SAMPLED),
    },
    "response_verdicts": {
        **_same("responses", "response_id", "batch"),
        **dict.fromkeys(("passed", "kind", "reason"), _judged("responses")),
        "filter_version": ("checkpoints.checkpoint_id",),
    },
    "student_logprobs": {
        **_same("responses", "response_id", "batch"),
        "student_fingerprint": ("checkpoints.checkpoint_id",),
        "token_ids": ("responses.text", *_ASKED),
        "logprobs": ("responses.text", *_SAMPLED),
        "offsets": ("responses.text",),
    },
    "sentence_probabilities": {
        **_same("student_logprobs", "response_id", "batch", "student_fingerprint"),
        **dict.fromkeys(("sentence_index", "start", "stop"), ("responses.text",)),
        **dict.fromkeys(("teacher_sum_logprob", "teacher_prob"), _TEACHER),
        **dict.fromkeys(("student_sum_logprob", "student_prob"), _STUDENT),
        "teacher_num_tokens": ("responses.text", "responses.offsets"),
        "student_num_tokens": ("responses.text", "student_logprobs.offsets"),
    },
    "sentence_types": {
        **_same("sentence_probabilities", "response_id", "batch", "student_fingerprint", "sentence_index"),
        "sentence_type": _GAPS,
    },
    "response_scores": {
        **_same("sentence_probabilities", "response_id", "batch", "student_fingerprint"),
        **_same("sentence_types", "threshold_version"),
        "score": ("sentence_types.sentence_type", *_GAPS),
        "num_sentences": ("sentence_types.sentence_type",),
    },
    "selected_responses": {
        **_same("response_scores", "response_id", "score", "score_name"),
        **_same("responses", "prompt_id"),
        **_same("prompts", "domain"),
        "rank": ("response_scores.score", "prompts.domain"),
        "dataset_id": ("response_scores.response_id",),
    },
    "sft_examples": {
        **_same("selected_responses", "response_id"),
        **_same("teacher_continuations", "continuation_id"),
        "example_id": ("selected_responses.response_id", "teacher_continuations.continuation_id", *_TAUGHT),
        "input_ids": _TAUGHT,
        "labels": (*_TAUGHT, "teacher_continuations.prefix_text"),
        "dataset_id": ("selected_responses.response_id", "teacher_continuations.continuation_id", *_TAUGHT),
    },
    "checkpoints": {
        **_same("sft_examples", "dataset", "dataset_id"),
        "checkpoint_id": ("checkpoints.checkpoint_id", "sft_examples.example_id"),
        "parent_checkpoint_id": ("checkpoints.checkpoint_id",),
        "num_examples": ("sft_examples.example_id",),
        **dict.fromkeys(("path", "content_hash", "final_loss"), _TRAINED),
    },
    "student_rollouts": {
        **_same("selected_responses", "prompt_id"),
        **_same("checkpoints", "checkpoint_id"),
        "rollout_id": (
            "checkpoints.checkpoint_id",
            "selected_responses.prompt_id",
            "selected_responses.response_id",
            "student_logprobs.offsets",
        ),
        "reference_response_id": ("selected_responses.response_id",),
        **dict.fromkeys(("reference_num_tokens", "max_tokens"), ("student_logprobs.offsets",)),
        **dict.fromkeys(("text", "token_ids", "logprobs", "offsets", "finish_reason", "cut_off"), _SAMPLED),
    },
    "prefix_cuts": {
        **_same("student_rollouts", "rollout_id"),
        "seed": ("student_rollouts.rollout_id",),
        **dict.fromkeys(("cut_token", "cut_char", "reason"), ("student_rollouts.text", "student_rollouts.offsets")),
    },
    "teacher_continuations": {
        **_same("student_rollouts", "rollout_id", "prompt_id"),
        "continuation_id": ("student_rollouts.rollout_id", *_PREFIX, "checkpoints.checkpoint_id"),
        "teacher_fingerprint": ("checkpoints.checkpoint_id",),
        **dict.fromkeys(("prefix_text", "max_tokens"), _PREFIX),
        **dict.fromkeys(
            ("continuation_text", "text", "token_ids", "logprobs", "offsets", "tool_call", "finish_reason"), _CONTINUED
        ),
    },
    "continuation_verdicts": {
        **_same("teacher_continuations", "continuation_id"),
        **dict.fromkeys(("passed", "kind", "reason"), _judged("teacher_continuations")),
        "filter_version": ("checkpoints.checkpoint_id",),
    },
    "evaluations": {
        **_same("checkpoints", "checkpoint_id"),
        **_same("benchmark_questions", "benchmark", "question_id"),
        "evaluation_id": (
            "checkpoints.checkpoint_id",
            "benchmark_questions.benchmark",
            "benchmark_questions.question_id",
        ),
        **dict.fromkeys(("response_text", "num_tokens", "finish_reason"), _BENCHMARK),
        **dict.fromkeys(
            ("correct", "kind", "reason"),
            (
                *_BENCHMARK,
                *(f"benchmark_questions.{column}" for column in ("reference_answer", "verifier", "metadata")),
            ),
        ),
    },
}


def column_lineage(table: str, sources: Sources) -> dg.TableColumnLineage:
    """The lineage of a table's columns in an asset that reads other tables from `sources`.

    A column of a table that the asset does not read has no part in it, nor has a table that only says which rows there
    are. That `sources` are the tables that the asset's queries touch is held by tests/test_declarations.py.
    """
    upstream = LINEAGE.get(table, {})
    deps = {column: _deps(parts, sources) for column, parts in upstream.items()}
    return dg.TableColumnLineage(deps_by_column={column: found for column, found in deps.items() if found})


def _deps(parts: Sequence[str], sources: Sources) -> list[dg.TableColumnDep]:
    found = []
    for part in parts:
        table, _, column = part.partition(".")
        assets = sources.get(table, ())
        for asset in [assets] if isinstance(assets, str) else assets:
            found.append(dg.TableColumnDep(asset_key=dg.AssetKey(asset), column_name=column))
    return found
