"""Tables that are gone while Dagster's history is not: nothing would be made again, as the history says it was made."""

import dagster as dg

from dasd_resources.errors import UserError
from dasd_resources.storage.lake import Reading


class LostTables(UserError):
    """The message says what to do."""


def require_tables(instance: dg.DagsterInstance, reading: Reading) -> None:
    """Raise LostTables where a model was registered, and its row, the first of all, is not there."""
    registered = instance.get_latest_materialization_event(dg.AssetKey("student_model")) is not None
    if registered and reading.read("SELECT count(*) FROM checkpoints").item() == 0:
        raise LostTables(
            "the tables are empty, but Dagster's history says that they were made: restore a backup (`dasd restore`), "
            "or set DASD_HOME to a new folder and start again"
        )
