"""Progress of long work, in the run log: how much is done, how fast, how long it will take."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def logged(
    items: Iterable[Item], total: int, unit: str, log: Callable[[str], None], every: float = 10.0
) -> Iterator[Item]:
    """Pass items on; every `every` seconds, and at the end, log how many of `total` have come and the time left."""
    started = spoken = time.monotonic()
    for done, item in enumerate(items, start=1):
        now = time.monotonic()
        if now - spoken >= every or done == total:
            log(progress_line(done, total, unit, now - started))
            spoken = now
        yield item


def seldom(log: Callable[[str], None], every: float = 10.0) -> Callable[[str], None]:
    """A log that passes on at most one message in `every` seconds."""
    last = -every

    def say(message: str) -> None:
        nonlocal last
        if time.monotonic() - last >= every:
            last = time.monotonic()
            log(message)

    return say


def progress_line(done: int, total: int, unit: str, seconds: float) -> str:
    """`120/400 responses (30 %), 24.0/s, 12 s left`."""
    rate = done / max(seconds, 1e-6)
    left = "" if done >= total else f", {(total - done) / rate:.0f} s left"
    return f"{done:,}/{total:,} {unit} ({100 * done / max(total, 1):.0f} %), {rate:.1f}/s{left}"
