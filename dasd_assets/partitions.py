"""The one partition: a prompt batch is a landed file, keyed by name and content, never reused."""

import dagster as dg

PROMPT_BATCH = dg.DynamicPartitionsDefinition(name="prompt_batch")


def batches(instance: dg.DagsterInstance) -> list[str]:
    """The prompt batches that exist now; rows of removed ones stay in the warehouse but are not used."""
    assert PROMPT_BATCH.name is not None
    return list(instance.get_dynamic_partitions(PROMPT_BATCH.name))
