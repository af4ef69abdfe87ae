"""Responses as they landed, with a recipe that imports them (`imports`): texts, logprobs, and what was not taken."""

from dasd_resources.storage.tables.recurring import (
    BATCH,
    FINISH_REASON,
    ITEM,
    KIND,
    LANDED_ID,
    LOGPROBS,
    PROMPT_ID,
    REASON,
    RUN_ID,
    SAMPLE,
    SAMPLE_INDEX,
    SOURCE_FILE,
    SOURCE_LINE,
    TEMPERATURE,
    TEXT,
    TOKEN_IDS,
)
from dasd_resources.storage.tables.table import Column, Table

LANDED_FILES = Table(
    name="landed_files",
    one_row_per="landed file whose responses were read to its end",
    columns=(
        BATCH,
        SOURCE_FILE,
        Column("reading_version", "VARCHAR", "Version of the rules that read it."),
        RUN_ID,
    ),
    key=("batch", "source_file"),
    derived=True,
    in_summary=False,
)

LANDED_RESPONSES = Table(
    name="landed_responses",
    one_row_per="landed response",
    notes="Its question may be of another batch, which landed it first.",
    columns=(
        LANDED_ID,
        PROMPT_ID.here("The prompt it answers."),
        SAMPLE,
        Column("sample_uuid", "VARCHAR", "By which its row names it, so that a companion can.", nullable=True),
        BATCH.here("Prompt batch of the file that brought it."),
        SOURCE_FILE,
        SOURCE_LINE,
        ITEM,
        TEXT.here("The text as it was landed."),
        TEMPERATURE.here("Sampling temperature that its row names; NULL: the recipe says it.").optional(),
        SAMPLE_INDEX.here("Which of its question's samples its row says it is.").optional(),
        FINISH_REASON,
        RUN_ID,
    ),
    key=("batch", "source_line", "item"),
    derived=True,
    partitioned_by_batch=True,
    shown=("landed_id", "source_line", "text"),
    in_summary=False,
)

LANDED_LOGPROBS = Table(
    name="landed_logprobs",
    one_row_per="response whose logprobs landed",
    notes="In its own row, or in a companion's.",
    columns=(
        SAMPLE,
        BATCH.here("Prompt batch of the file that brought them."),
        SOURCE_FILE,
        SOURCE_LINE,
        ITEM,
        TOKEN_IDS.here("The teacher's token ids, as they were landed."),
        LOGPROBS,
        RUN_ID,
    ),
    key=("batch", "source_line", "item"),
    derived=True,
    partitioned_by_batch=True,
    shown=("sample", "source_line"),
    in_summary=False,
)

REJECTED_RESPONSES = Table(
    name="rejected_responses",
    one_row_per="landed response, or logprobs of one, that was not taken",
    columns=(
        BATCH,
        SOURCE_FILE,
        SOURCE_LINE,
        ITEM,
        KIND.here("[Code](kinds.md) of why it was not taken."),
        REASON.here("The same for people, with the offending value."),
        RUN_ID,
    ),
    key=("batch", "source_line", "item"),
    derived=True,
    in_summary=False,
)

TABLES = (LANDED_FILES, LANDED_RESPONSES, LANDED_LOGPROBS, REJECTED_RESPONSES)
