"""Child processes that end when their parent does, even if it was killed, and what they have started with them."""

import multiprocessing
import os
import threading

from dasd_resources.interruption import kill_children


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
