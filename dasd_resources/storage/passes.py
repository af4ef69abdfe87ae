"""Large tables in passes: a part of the ids at a time, where all of their rows joined would not fit into memory.

Tables hold their rows in different orders, so a join as a whole would keep one of them in memory or spill it; read
again for every part of the ids, only that part is kept. Rows may be a thousand times as long as others, so ids are
counted by a size: their sentences, say. Reading costs time, so there are at most MAX_PASSES: beyond that many times
`at_once`, what is kept grows with the whole. Where rows hold long lists, `spool` reads them once instead.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

ROWS_OF_OBJECTS = 32  # of a part that are Python objects at once: of 65,536 tokens and their text, 75 MB
MAX_PASSES = 64  # over the tables; where there is more, a pass is for more of it
Item = TypeVar("Item")


def passes(sizes: Sequence[tuple[str, int]], at_once: int, most: float = MAX_PASSES) -> list[tuple[str, str]]:
    """First and last id of each of the `parts` of these ids, which are in order."""
    return [(ids[0], ids[-1]) for ids in parts(sizes, at_once, most)]


def parts(sizes: Sequence[tuple[str, int]], at_once: int, most: float = MAX_PASSES) -> list[list[str]]:
    """The ids of each pass: of size `at_once` together and one id more at most, or of more where there is much.

    sizes: each id with its size, at least 1. most: passes; infinite where each reads only its own files.
    """
    size_of_part = max(at_once, math.ceil(sum(size for _, size in sizes) / most))
    found, before = defaultdict[int, list[str]](list), 0
    for name, size in sizes:
        found[before // size_of_part].append(name)
        before += size
    return list(found.values())


def enough(items: Iterator[Item], size: Callable[[Item], int], at_once: int) -> Iterator[Item]:
    """The next items, until they are of size `at_once` together; the iterator goes on after them."""
    total = 0
    for item in items:
        yield item
        total += size(item)
        if total >= at_once:
            return
