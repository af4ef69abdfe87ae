"""Views that follow a row's origin over several tables, for people: `dasd sql`, notebooks, `docs/audit.md`."""

from collections.abc import Iterable

from dasd_resources.storage.tables import Table

LINEAGE_EXAMPLES = """
    SELECT e.recipe, e.dataset, e.policy, e.example_id, e.response_id, e.continuation_id, c.rollout_id,
        coalesce(r.prompt_id, c.prompt_id) AS prompt_id, p.batch, p.source_file, p.source_line, e.run_id
    FROM sft_examples e LEFT JOIN responses r ON r.response_id = e.response_id
        LEFT JOIN teacher_continuations c ON c.continuation_id = e.continuation_id
        LEFT JOIN prompts p ON p.prompt_id = coalesce(r.prompt_id, c.prompt_id)"""

LINEAGE_CHECKPOINTS = """
    WITH RECURSIVE chain AS (
        SELECT checkpoint_id, recipe, name, stage, checkpoint_id AS ancestor_id, 0 AS distance,
            parent_checkpoint_id
        FROM checkpoints
        UNION SELECT c.checkpoint_id, c.recipe, c.name, c.stage, p.checkpoint_id, c.distance + 1,
            p.parent_checkpoint_id
        FROM chain c JOIN checkpoints p ON p.checkpoint_id = c.parent_checkpoint_id)
    SELECT DISTINCT c.checkpoint_id, c.recipe, c.name, c.stage, c.distance, c.ancestor_id,
        a.name AS ancestor_name, a.stage AS ancestor_stage, a.dataset, a.dataset_id, a.snapshot_id, a.run_id
    FROM chain c JOIN checkpoints a ON a.checkpoint_id = c.ancestor_id AND a.recipe = c.recipe"""


def views(tables: Iterable[Table]) -> dict[str, str]:
    """Name -> query of every view."""
    return {
        "lineage_examples": LINEAGE_EXAMPLES,
        "lineage_checkpoints": LINEAGE_CHECKPOINTS,
        "lineage_runs": _lineage_runs(tables),
    }


def _lineage_runs(tables: Iterable[Table]) -> str:
    """Which run wrote which row, of every table whose rows one column names."""
    return " UNION ALL ".join(
        f"SELECT '{table.name}' AS table_name, {table.row_name[0]} AS row_id, run_id FROM {table.name}"
        for table in tables
        if len(table.row_name) == 1 and table.has("run_id")
    )
