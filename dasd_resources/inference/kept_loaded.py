"""The engine that this process keeps loaded from one use to the next: who asks for the same model need not load it.

At most one is kept, and none while it is in use. Whoever loads another model, or trains, has it freed first, as both
may not fit on a GPU; so does idleness. That holds for all processes of a home: one that keeps an engine holds a lock,
and looks for the file by which another asks for room. What an engine does never depends on what it has done before, so
rows are the same either way. Left out: sharing it with another process.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.util import Finalize
from pathlib import Path

from filelock import FileLock, Timeout

from dasd_resources.inference.engine import InferenceEngine

LOCK, WANTED = "kept_engine.lock", "kept_engine.wanted"  # of the home
POLL_SECONDS = 0.2
PATIENCE_SECONDS = 60.0  # with another process that is to free its engine; then it is loaded beside that

log = logging.getLogger(__name__)


@dataclass(eq=False)
class Kept:
    """A loaded engine that nobody uses. key: of the model and all that it was loaded with."""

    key: str
    engine: InferenceEngine
    held: FileLock


_kept: Kept | None = None
_lock = threading.RLock()  # held while one is closed, so that none is loaded beside it
_at_exit: Finalize | None = None


@contextmanager
def kept_engine(home: Path, key: str, load: Callable[[], InferenceEngine], seconds: float) -> Iterator[InferenceEngine]:
    """The engine of this key, kept or loaded; afterwards it is kept, for so many seconds if nobody asks for it.

    After an error it is closed: what it was in the middle of is not known.
    """
    engine = _take(key)
    if engine is None:
        make_room(home)
        engine = load()
    try:
        yield engine
    except BaseException:
        engine.close()
        raise
    _keep(home, key, engine, seconds)


def make_room(home: Path) -> None:
    """Close the engine that this process keeps, if any, and wait until any other process of the home has closed its."""
    free_kept_engine()
    if not (home / LOCK).exists():
        return
    others = FileLock(home / LOCK)
    try:
        others.acquire(timeout=0)
    except Timeout:
        if not _wait_for(others, home / WANTED):
            log.warning("another process keeps a model loaded, and has not freed it in %.0f s", PATIENCE_SECONDS)
    others.release()


def _wait_for(others: FileLock, wanted: Path) -> bool:
    """Ask for room until the lock is free and taken. Asked again and again: who begins to keep one removes the file."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        wanted.touch()
        with suppress(Timeout):
            others.acquire(timeout=POLL_SECONDS)
            return True
    return False


def free_kept_engine() -> None:
    """Close the engine that this process keeps, if any."""
    global _kept
    with _lock:
        kept, _kept = _kept, None
        if kept is not None:
            kept.engine.close()
            kept.held.release()


def _take(key: str) -> InferenceEngine | None:
    """The kept engine, if it is of this key."""
    global _kept
    with _lock:
        if _kept is None or _kept.key != key:
            return None
        kept, _kept = _kept, None
        kept.held.release()
        return kept.engine


def _keep(home: Path, key: str, engine: InferenceEngine, seconds: float) -> None:
    global _kept, _at_exit
    with _lock:
        free_kept_engine()  # of whoever had one loaded beside this one, and was done first
        kept = Kept(key, engine, FileLock(home / LOCK, thread_local=False))  # the thread that watches may release it
        try:
            kept.held.acquire(timeout=0)
        except Timeout:  # another process keeps one
            engine.close()
            return
        (home / WANTED).unlink(missing_ok=True)
        _kept = kept
        # Before Python waits for child processes at its end: replicas would wait for us.
        _at_exit = _at_exit or Finalize(None, free_kept_engine, exitpriority=100)
    threading.Thread(target=_watch, args=(home, kept, time.monotonic() + seconds), daemon=True).start()


def _watch(home: Path, kept: Kept, until: float) -> None:
    """Free it when another process asks for room, or when it has been idle for long."""
    while _kept is kept:
        with _lock, suppress(OSError):
            if _kept is kept and ((home / WANTED).exists() or time.monotonic() >= until):
                free_kept_engine()
        time.sleep(POLL_SECONDS)
