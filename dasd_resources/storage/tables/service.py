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

TABLES = (QUARANTINED_BATCHES,)
