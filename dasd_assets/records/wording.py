"""Counts with singular or plural nouns, and names that others chose, for messages."""

from collections.abc import Sequence

from dasd_resources.visible_text import excerpt_line, unlinked

NAME_CHARS, NUM_LISTED = 40, 20


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """`1 run`, `2 runs`, `1,000 batches`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def short(name: str) -> str:
    """A name that others chose, a domain or a file's say, as it may stand in a message."""
    return unlinked(excerpt_line(name, NAME_CHARS))


def listed(names: Sequence[str]) -> str:
    """`a, b, c`; of many names the first, and how many more there are."""
    more = [f"{len(names) - NUM_LISTED:,} more"] if len(names) > NUM_LISTED else []
    return ", ".join([*names[:NUM_LISTED], *more])
