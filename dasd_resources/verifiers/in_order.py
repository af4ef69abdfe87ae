"""Work on many rows at once, in threads that mostly wait for child processes; results in the order of the rows."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from dasd_resources.machine import num_cores

Item = TypeVar("Item")
Result = TypeVar("Result")
AHEAD = 4  # rows per thread that are read before the first result is taken, which bounds the memory


def in_order(items: Iterable[Item], work: Callable[[Item], Result], patience: float = 0.0) -> Iterator[Result]:
    """`work(item)` of each item; what it raises is raised in its place.

    patience: seconds to wait for a result before the next item is asked for, where that may take long and a result
    should not lie about meanwhile.
    """
    num_threads = num_cores() + 1
    threads = ThreadPoolExecutor(num_threads, thread_name_prefix="judging")
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(threads.submit(work, item))
            while waiting and (len(waiting) > AHEAD * num_threads or _is_done(waiting[0], patience)):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        threads.shutdown(cancel_futures=True)


def _is_done(future: Future[Result], patience: float) -> bool:
    if patience > 0:
        with suppress(TimeoutError):
            future.exception(patience)
    return future.done()
