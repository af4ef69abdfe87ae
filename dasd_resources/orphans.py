"""A child process that ends when its parent is gone, however the parent ended."""

import multiprocessing
import os
import threading


def end_with_holder(pipe: int) -> None:
    """From now on, end this process once nobody holds the other end of a pipe; what comes through it is thrown away."""
    threading.Thread(target=_end_when_closed, args=(pipe,), daemon=True).start()


def end_with_starter() -> None:
    """From now on, end this process with the one that started it by `multiprocessing`, if one did."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with_holder(parent.sentinel)


def _end_when_closed(pipe: int) -> None:
    while os.read(pipe, 4096):
        pass
    os._exit(1)
