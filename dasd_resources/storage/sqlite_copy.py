"""A consistent copy of a SQLite file that others are writing, as `python -m dasd_resources.storage.sqlite_copy`.

In a process of its own, because DuckDB brings a second SQLite into ours: two copies of SQLite in one process drop each
other's locks on a file, and commits are lost.
"""

import fcntl
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from dasd_resources.errors import UserError


class NotCopied(UserError, RuntimeError):
    """A database that is damaged or cannot be read; the message says how."""


def copy_apart(source: Path, copy: Path) -> None:
    """Copy `source` as of one moment, in a child process. Raises NotCopied with what the child says."""
    command = [sys.executable, "-m", "dasd_resources.storage.sqlite_copy", str(source), str(copy)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    folder = os.open(copy.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)  # which the child holds, too: one whose parent was killed is waited for
        done = subprocess.run(command, capture_output=True, text=True, env=environment, pass_fds=[folder])
    finally:
        os.close(folder)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"the process that copied it ended with code {done.returncode}"]
        raise NotCopied(f"{source} cannot be copied: {said[-1]}")


def copy_database(source: Path, copy: Path) -> None:
    """All pages in one read transaction: writers go on (WAL) or wait. Raises sqlite3.Error for a damaged file."""
    temporary = copy.with_name(f"{copy.name}.tmp")
    temporary.unlink(missing_ok=True)
    readable = f"{source.resolve().as_uri()}?mode=ro"
    with closing(sqlite3.connect(readable, uri=True, timeout=60)) as old, closing(sqlite3.connect(temporary)) as new:
        old.backup(new)
        new.execute("PRAGMA journal_mode = DELETE")  # one file, complete
        (verdict,) = new.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(f"{source} is damaged: {verdict}")
    temporary.replace(copy)


if __name__ == "__main__":
    copy_database(Path(sys.argv[1]), Path(sys.argv[2]))
