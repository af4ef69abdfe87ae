"""The states that a training saves and a killed one goes on from: a folder each, marked once all of it is on disk.

Transformers deletes old ones before the new one is marked, by when they were written: after the clock was set back that
is the new one. So it is done here, by their steps.
"""

import shutil
from pathlib import Path

from dasd_resources.sft.checkpoint import flush
from dasd_resources.sft.disk import KEPT_STATES

MARK = "complete"


def complete(folder: Path) -> None:
    """Mark a state that was saved to its end, and delete those before it but for the last."""
    flush(folder)
    (folder / MARK).touch()
    for early in _by_step(folder.parent)[:-KEPT_STATES]:
        (early / MARK).unlink(missing_ok=True)  # first: one that is deleted in part must never be gone on from
        shutil.rmtree(early, ignore_errors=True)


def last_complete(folder: Path) -> Path | None:
    """The newest state that was saved to its end; those that the child was killed in are deleted."""
    for state in _by_step(folder):
        if not (state / MARK).is_file():
            shutil.rmtree(state)
    return next(reversed(_by_step(folder)), None)


def _by_step(folder: Path) -> list[Path]:
    return sorted(folder.glob("checkpoint-*"), key=lambda state: int(state.name.removeprefix("checkpoint-")))
