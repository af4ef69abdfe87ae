"""Child processes that end when their parent does, even if it was killed."""

import multiprocessing
import os
import threading


def end_with_holder(pipe: int) -> None:
    """End this process once no process holds the other end of a pipe; data that arrive are ignored. Returns at once."""
    threading.Thread(target=_end_when_closed, args=(pipe,), daemon=True).start()


def end_with_starter() -> None:
    """End this process with the one that started it by `multiprocessing`, if any. Returns at once."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        end_with_holder(parent.sentinel)


def _end_when_closed(pipe: int) -> None:
    while os.read(pipe, 4096):
        pass
    os._exit(1)
