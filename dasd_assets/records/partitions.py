"""Prompt batches, the only partitions: one per landed file, its key made of name and content hash, never reused."""

import dagster as dg

PROMPT_BATCH = dg.DynamicPartitionsDefinition(name="prompt_batch")


def batches(instance: dg.DagsterInstance) -> list[str]:
    """The prompt batches that exist now; rows of removed ones stay in the warehouse but are not used."""
    assert PROMPT_BATCH.name is not None
    return list(instance.get_dynamic_partitions(PROMPT_BATCH.name))


def batch_of(context: dg.AssetCheckExecutionContext) -> str:
    """The batch that a check runs for.

    Raises dg.Failure if the run names none, as a run by "Execute all" in the web UI does: Dagster cannot record the
    outcome of such a check for all batches together.
    """
    if not context.has_partition_key:
        message = "this check is of one batch at a time: choose batches in the asset's Materialize dialog, and it runs"
        raise dg.Failure(message, allow_retries=False)
    return str(context.partition_key)
