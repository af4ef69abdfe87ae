"""What the service remembers of its own work."""

from dasd_resources.storage.tables.recurring import BATCH, REASON, RUN_ID, TIME
from dasd_resources.storage.tables.table import Column, Table

QUARANTINED_BATCHES = Table(
    name="quarantined_batches",
    one_row_per="time a batch was quarantined",
    columns=(
        BATCH,
        REASON.here("Why the batch was quarantined."),
        Column("step", "VARCHAR", "What kept failing."),
        Column("num_attempts", "INTEGER", "How often it was tried."),
        Column("failed_run_id", "VARCHAR", "The last Dagster run that failed."),
        Column("quarantined_at", TIME, "When it was quarantined."),
        Column("released_at", TIME, "When it was released; NULL while it is quarantined.", nullable=True),
        RUN_ID,
    ),
    key=("batch", "quarantined_at"),
    in_summary=False,
)

REPAIRED_FILES = Table(
    name="repaired_files",
    one_row_per="data file that `dasd repair` has dropped",
    notes="What wrote its rows is out of date until it has been made again.",
    columns=(
        Column("path", "VARCHAR", "The file, under the home's `data`."),
        Column("table_name", "VARCHAR", "Table whose rows it held."),
        BATCH.here("Batch of all its rows; NULL if it held rows of several, or of none.").optional(),
        Column("num_rows", "BIGINT", "Rows, or places of deleted rows, in it."),
        Column("what", "VARCHAR", "What was wrong with it."),
        Column("last_event", "BIGINT", "Last event of Dagster's log before it was dropped."),
        Column("repaired_at", TIME, "When it was dropped."),
        RUN_ID,
    ),
    key=("path",),
    in_summary=False,
)

TABLES = (QUARANTINED_BATCHES, REPAIRED_FILES)
