"""What dead processes left under a home, outside the warehouse: half-made checkpoints, training rows, locks, spills.

A half-made checkpoint is what a killed training goes on from, so it lives long; one whose checkpoint was published is
waste. Nothing that a living process holds locked is touched. Published checkpoints are never deleted.
"""

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import psutil
from filelock import FileLock, Timeout

from dasd_resources.home import CHECKPOINT_FOLDER
from dasd_resources.storage.connections import SPILL
from dasd_resources.storage.upkeep import Swept

PARTIAL, DOOMED, ROWS, SNAPSHOT = ".partial", ".deleting", ".rows.parquet", ".snapshot"


def unfinished_beside(rows: Path) -> Path:
    """Where to write what shall lie beside a training's rows, or be them: a name of one writer's, swept as rows are."""
    return rows.with_name(rows.name.replace(".", f".{uuid4().hex}.", 1))


def pin_snapshot(rows: Path, snapshot: int) -> Path:
    """Note beside a training's rows which snapshot they were read from: it is kept until the checkpoint names it."""
    unfinished = unfinished_beside(rows)
    unfinished.write_text(str(snapshot))
    return unfinished.replace(rows.with_suffix(SNAPSHOT))


def pinned_snapshots(home: Path) -> set[int]:
    """The snapshots of trainings that are under way, or were killed and may go on."""
    found = set[int]()
    for pin in (home / CHECKPOINT_FOLDER).glob(f"*.rows{SNAPSHOT}"):
        with suppress(FileNotFoundError):  # the training has just ended: its checkpoint names the snapshot
            found.add(int(pin.read_text()))
    return found


def sweep_checkpoints(home: Path, grace_seconds: float, keep_unfinished_seconds: float) -> Swept:
    """Delete half-made checkpoints, and the rows they were trained on, that nothing has touched for so long."""
    folder, swept = home / CHECKPOINT_FOLDER, Swept()
    for partial in sorted(folder.glob(f"*{PARTIAL}")):
        published = partial.with_suffix("").is_dir()
        with _training_lock(partial.with_suffix("")) as ours:
            if ours and _age(partial) > (grace_seconds if published else keep_unfinished_seconds):
                partial.rename(partial.with_suffix(DOOMED))  # first: a half-deleted one must never be gone on from
    for doomed in folder.glob(f"*{DOOMED}"):
        swept += _delete(doomed)
    for rows in [*folder.glob(f"*{ROWS}"), *folder.glob(f"*.rows{SNAPSHOT}")]:
        training = folder / (rows.name.partition(".")[0] + PARTIAL)
        if not training.exists() and _age(rows) > keep_unfinished_seconds:
            swept += _delete(rows)
    return swept


def sweep_owner_locks(home: Path, grace_seconds: float) -> Swept:
    """Delete the lock files of dead processes that executed runs."""
    swept = Swept()
    for lock in (home / "dagster" / "owners").glob("*"):
        if _age(lock) > grace_seconds and _is_free(lock):
            swept += _delete(lock)
    return swept


def sweep_spilled(home: Path, grace_seconds: float) -> Swept:
    """Delete what queries of dead processes had spilled to disk; of those on another machine, by its age alone."""
    swept = Swept()
    for folder in home.glob(f"{SPILL}*"):
        if (age := _age(folder)) > grace_seconds and not _has_owner(folder.name, time.time() - age):
            swept += _delete(folder)
    return swept


def _has_owner(name: str, written: float) -> bool:
    """Whether the process of this machine that spills there lives; one that began since it was written is another."""
    host, number = [*name.removeprefix(SPILL).rsplit("-", 2), ""][:2]
    if host != socket.gethostname() or not number.isdecimal():
        return False
    try:
        return bool(psutil.Process(int(number)).create_time() <= written)
    except psutil.NoSuchProcess:
        return False


def _delete(path: Path) -> Swept:
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    swept = Swept(len(files), sum(file.lstat().st_size for file in files))
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    return swept


def _age(path: Path) -> float:
    """Seconds since anything in a file or folder was written; 0 of what vanishes meanwhile: somebody is at work."""
    try:
        return time.time() - max(part.lstat().st_mtime for part in [path, *path.rglob("*")])
    except FileNotFoundError:
        return 0.0


@contextmanager
def _training_lock(destination: Path) -> Iterator[bool]:
    """Whether the lock that a training of this checkpoint holds could be had."""
    lock = os.open(destination.with_name(f".{destination.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(lock)


def _is_free(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return True
    except Timeout:
        return False
