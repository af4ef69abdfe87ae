"""The one partition: a prompt batch is a landed file, keyed by name and content, never reused."""

import dagster as dg

PROMPT_BATCH = dg.DynamicPartitionsDefinition(name="prompt_batch")


def batches(instance: dg.DagsterInstance) -> list[str]:
    """The prompt batches that exist now; rows of removed ones stay in the warehouse but are not used."""
    assert PROMPT_BATCH.name is not None
    return list(instance.get_dynamic_partitions(PROMPT_BATCH.name))


def batch_of(context: dg.AssetCheckExecutionContext) -> str:
    """The batch that a check is run for.

    Raises dg.Failure where the run names none, as by "Execute all" in the web UI: Dagster keeps no outcome of a check
    over all batches.
    """
    if not context.has_partition_key:
        told = "this check is of one batch at a time: choose batches in the asset's Materialize dialog, and it runs"
        raise dg.Failure(told, allow_retries=False)
    return str(context.partition_key)
