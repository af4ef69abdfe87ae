"""Checkpoints: weights, snapshots, and the rows they saw."""

from collections.abc import Iterator
from pathlib import Path

from dasd_assets.audit.checkpoint import audit_checkpoint
from dasd_assets.audit.files import Fault
from dasd_assets.audit.prompt import Record
from dasd_resources.checkpoint import CheckpointError, published
from dasd_resources.lake import Lake, Reading


def checkpoints(lake: Lake, reading: Reading) -> Iterator[Fault]:
    """Each trained checkpoint's weights, its record, and the rows it saw."""
    rows = reading.read("SELECT * FROM checkpoints ORDER BY checkpoint_id").to_dicts()
    for row in {row["checkpoint_id"]: row for row in rows}.values():
        for what in audit_checkpoint(lake, reading, row["checkpoint_id"], all_tokens=True)["faults"]:
            yield Fault("checkpoints", row["checkpoint_id"], what, "or delete its row, and run `dasd run`")
        if row["dataset"] is not None:
            yield from _weights(row)


def _weights(row: Record) -> Iterator[Fault]:
    try:
        trained = published(Path(row["path"]), row["checkpoint_id"])
    except (CheckpointError, ValueError, KeyError) as error:
        yield Fault("checkpoints", row["checkpoint_id"], str(error), "then run `dasd run`")
        return
    if trained is not None and trained.content_hash != row["content_hash"]:
        what = f"its weights hash to {trained.content_hash[:16]}…, the record says {row['content_hash'][:16]}…"
        yield Fault("checkpoints", row["checkpoint_id"], what, "restore a backup")
