"""Child processes that end when their parent does, even if it was killed, and what they have started with them.

Those of ours look after themselves. Those that a library starts do not, so another process watches
(`python -m dasd_resources.orphans`).
"""

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from dasd_resources.interruption import kill_children

SECONDS_BETWEEN_LOOKS = 1.0


def end_with_holder(pipe: int) -> None:
    """End this process, and its children, once no process holds the other end of a pipe. Returns at once.

    Data that arrive are ignored.
    """
    threading.Thread(target=_end_when_closed, args=(pipe,), daemon=True).start()


def end_with_starter() -> None:
    """End this process with the one that started it by `multiprocessing`, if any. Returns at once."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with_holder(parent.sentinel)


def _end_when_closed(pipe: int) -> None:
    while os.read(pipe, 4096):
        pass
    try:
        kill_children(seconds=0)  # such as vLLM's, which would go on, with a GPU
    finally:
        os._exit(1)


@contextmanager
def children_watched() -> Iterator[None]:
    """Meanwhile, what this process starts ends with it, if it is killed: a process of a session of its own watches."""
    command = [sys.executable, "-m", __name__, str(os.getpid())]
    nowhere = subprocess.DEVNULL  # it must not keep a pipe of this process open
    with subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True) as watcher:
        try:
            yield
        finally:
            watcher.kill()


def _watch(parent: int) -> None:
    """Note what this process's parent has started, and what that has, again and again; when it is gone, kill it."""
    import psutil

    started: set[psutil.Process] = set()
    while os.getppid() == parent:
        with suppress(psutil.Error):
            started |= {child for child in psutil.Process(parent).children(recursive=True) if child.pid != os.getpid()}
        time.sleep(SECONDS_BETWEEN_LOOKS)
    for child in started:
        with suppress(psutil.Error):
            child.kill()


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
