"""A question, and all that it touched: responses, rollouts, continuations, datasets, checkpoints and their descendants.

A checkpoint is touched where it was trained on an example of the question, or descends from one that was; that is read
from `checkpoint_examples`, which outlives datasets and snapshots.
"""

import json
from collections.abc import Sequence
from typing import Any

from dasd_assets.rules.candidates import is_held_out
from dasd_assets.rules.typed_ids import AuditError
from dasd_resources.storage.lake import Reading

Record = dict[str, Any]  # plain values, of the types that the tables' columns have


def prompt_record(reading: Reading, prompt_id: str) -> Record:
    """The question with the file and line it came from, and the lines that were merged into it.

    A withdrawn one has only its line, and why it is withdrawn. An id that is retired names the prompt in its stead.
    """
    known = reading.read("SELECT * FROM prompts WHERE prompt_id = $id", {"id": prompt_id}).to_dicts()
    withdrawn = reading.read(
        "SELECT reason, withdrawn_at FROM withdrawn_prompts WHERE prompt_id = $id", {"id": prompt_id}
    ).to_dicts()
    copies = reading.read(
        """SELECT source_file, source_line, batch, kind, reason FROM rejected_prompts
            WHERE prompt_id = $id ORDER BY ALL""",
        {"id": prompt_id},
    ).to_dicts()
    merged = reading.read(_MERGED, {"id": prompt_id}).to_dicts()
    retired = reading.read(_RETIRED, {"id": prompt_id}).to_dicts()
    asked = reading.read(_ASKED, {"id": prompt_id}).to_dicts()
    if not known and not withdrawn and not retired and not copies:
        raise AuditError(f"there is no prompt {prompt_id}")
    return {
        "prompt_id": prompt_id,
        **(known[0] if known else {}),
        "withdrawn": withdrawn[0] if withdrawn else None,
        "retired": retired[0] if retired else None,
        "merged_lines": merged,
        "asked": asked,
        "held_out_by": _holding_out(reading, prompt_id),
        "other_lines": copies,
    }


def _holding_out(reading: Reading, prompt_id: str) -> list[str]:
    """The recipes that hold a question out of training, by the rules of their selections."""
    rules = reading.read("SELECT recipe, rule FROM selection_rules").iter_rows()
    shares = {(recipe, json.loads(rule).get("held_out_share", 0.0)) for recipe, rule in rules}
    return sorted({recipe for recipe, share in shares if is_held_out(reading, share, prompt_id)})


def question_record(reading: Reading, prompt_id: str, batch: str) -> Record:
    """The question alone, without the other lines it has, from its batch's own files; `prompt_record` if it is gone."""
    query = "SELECT * FROM prompts WHERE prompt_id = $id AND batch = $batch"
    known = reading.read(query, {"id": prompt_id, "batch": batch}).to_dicts()
    return known[0] if known else prompt_record(reading, prompt_id)


def downstream(reading: Reading, prompt_id: str) -> Record:
    """Every row that the question led to."""
    params = {"id": prompt_id}
    return {
        "responses": reading.read(_RESPONSES, params).to_dicts(),
        "rollouts": reading.read(_ROLLOUTS, params).to_dicts(),
        "continuations": reading.read(_CONTINUATIONS, params).to_dicts(),
        "datasets": _datasets(reading, prompt_id),
        "checkpoints": touched_checkpoints(reading, [prompt_id]),
    }


def touched_checkpoints(reading: Reading, prompt_ids: Sequence[str]) -> list[Record]:
    """Checkpoints trained on examples of these questions (`num_examples` of them), and all that descend from such."""
    return reading.read(_CHECKPOINTS, {"ids": list(prompt_ids)}).to_dicts()


def _datasets(reading: Reading, prompt_id: str) -> list[Record]:
    """Examples in the datasets as they are now. Ids first: joins on two keys at once would read every response."""
    responses = reading.read("SELECT response_id FROM responses WHERE prompt_id = $id", {"id": prompt_id})
    continuations = reading.read(
        "SELECT continuation_id FROM teacher_continuations WHERE prompt_id = $id", {"id": prompt_id}
    )
    ids = {"responses": responses["response_id"].to_list(), "others": continuations["continuation_id"].to_list()}
    return reading.read(_DATASETS, ids).to_dicts()


_MERGED = """SELECT source_file, source_line, line_batch, brought, kind, reason FROM prompt_merges
    WHERE prompt_id = $id ORDER BY line_batch, source_line"""
_RETIRED = """SELECT prompt_id AS now, source_file, source_line, batch FROM prompt_lines
    WHERE retired_id = $id ORDER BY ALL"""
_ASKED = "SELECT recipe, asked, place, quota FROM asked_prompts WHERE prompt_id = $id ORDER BY recipe"
_RESPONSES = """SELECT response_id, temperature, sample_index, teacher_fingerprint, finish_reason, run_id
    FROM responses WHERE prompt_id = $id ORDER BY temperature, sample_index, response_id"""
_ROLLOUTS = """SELECT rollout_id, checkpoint_id, reference_response_id, cut_off, run_id
    FROM student_rollouts WHERE prompt_id = $id ORDER BY rollout_id"""
_CONTINUATIONS = """SELECT continuation_id, rollout_id, teacher_fingerprint, run_id
    FROM teacher_continuations WHERE prompt_id = $id ORDER BY continuation_id"""
_DATASETS = """SELECT recipe, dataset, policy, example_id, response_id, continuation_id, dataset_id, snapshot_id, run_id
    FROM sft_examples WHERE response_id IN (SELECT unnest($responses::VARCHAR[]))
        OR continuation_id IN (SELECT unnest($others::VARCHAR[])) ORDER BY ALL"""
_CHECKPOINTS = """WITH RECURSIVE direct AS (
        SELECT checkpoint_id, count(*) AS num_examples FROM checkpoint_examples
        WHERE prompt_id IN (SELECT unnest($ids::VARCHAR[])) GROUP BY checkpoint_id),
    touched AS (
        SELECT checkpoint_id FROM direct
        UNION SELECT c.checkpoint_id FROM checkpoints c JOIN touched t ON c.parent_checkpoint_id = t.checkpoint_id)
    SELECT c.recipe, c.name, c.stage, c.checkpoint_id, coalesce(d.num_examples, 0) AS num_examples, c.dataset,
        c.snapshot_id, c.parent_checkpoint_id, c.path
    FROM touched JOIN checkpoints c USING (checkpoint_id) LEFT JOIN direct d USING (checkpoint_id)
    ORDER BY c.recipe, c.materialized_at"""
