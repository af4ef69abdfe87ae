"""Large tables in passes: so many ids at a time, where all of their rows joined would not fit into memory.

Tables hold their rows in different orders, so a join as a whole would keep one of them in memory or spill it; read
again for every part of the ids, only that part is kept. Reading costs time, so there are at most MAX_PASSES: beyond
that many times `at_once` ids, what is kept grows with their number.
"""

import math
from collections.abc import Sequence

ROWS_OF_OBJECTS = 32  # of a part that are Python objects at once: of 65,536 tokens and their text, 75 MB
MAX_PASSES = 64  # over the tables; where there are more ids, a pass is for more of them


def passes(ids: Sequence[str], at_once: int) -> list[tuple[str, str]]:
    """First and last of each part of these ids, which are in order: `at_once` of them, or more where there are many."""
    size = max(at_once, math.ceil(len(ids) / MAX_PASSES))
    return [(ids[start], ids[min(start + size, len(ids)) - 1]) for start in range(0, len(ids), size)]
