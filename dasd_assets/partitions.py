"""The one partition: a prompt batch is a landed file, keyed by name and content, never reused."""

import dagster as dg

PROMPT_BATCH = dg.DynamicPartitionsDefinition(name="prompt_batch")
