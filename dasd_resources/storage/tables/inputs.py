"""Questions as they landed: those in use, those rejected, those withdrawn."""

from dasd_resources.storage.tables.recurring import (
    BATCH,
    DOMAIN,
    KIND,
    METADATA,
    PROMPT_ID,
    QUESTION,
    REASON,
    REFERENCE_ANSWER,
    RUN_ID,
    SOURCE_FILE,
    SOURCE_LINE,
    SYSTEM_PROMPT,
    TIME,
    VERIFIER,
)
from dasd_resources.storage.tables.table import Column, Table

PROMPTS = Table(
    name="prompts",
    one_row_per="question",
    notes="Owned by the first `batch` that brought it.",
    columns=(
        PROMPT_ID,
        BATCH,
        DOMAIN,
        QUESTION,
        SYSTEM_PROMPT,
        REFERENCE_ANSWER,
        VERIFIER,
        METADATA,
        SOURCE_FILE,
        SOURCE_LINE,
        RUN_ID,
    ),
    key=("prompt_id",),
    derived=True,
    permanent=True,
    shown=("prompt_id", "domain", "question", "reference_answer"),
)

REJECTED_PROMPTS = Table(
    name="rejected_prompts",
    one_row_per="landed line that is not a prompt",
    notes="Line 0: the file as a whole.",
    columns=(
        BATCH,
        SOURCE_FILE,
        SOURCE_LINE,
        KIND.here("[Code](kinds.md) of why the line is not in `prompts`."),
        REASON.here("The same for people, with the offending value."),
        PROMPT_ID.here("Prompt it repeats, or the withdrawn one it is; NULL for a malformed line.").optional(),
        Column("owner_batch", "VARCHAR", "Batch that had the prompt it repeats; NULL for any other.", nullable=True),
        RUN_ID,
    ),
    key=("batch", "source_file", "source_line"),
    derived=True,
)

WITHDRAWN_PROMPTS = Table(
    name="withdrawn_prompts",
    one_row_per="prompt of a withdrawn question",
    notes="By `question_hash`, so that copies stay out ([takedown](audit.md)).",
    columns=(
        PROMPT_ID,
        Column("question_hash", "VARCHAR", "Hash of the question alone, by which later copies of it are known."),
        REASON.here("Why it was withdrawn."),
        Column("withdrawn_at", TIME, "When."),
        RUN_ID,
    ),
    key=("prompt_id",),
    in_summary=False,
)

TABLES = (PROMPTS, REJECTED_PROMPTS, WITHDRAWN_PROMPTS)
