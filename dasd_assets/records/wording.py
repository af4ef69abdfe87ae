"""Counts with singular or plural nouns, sizes, numbers with what is known of their error, names that others chose."""

from collections.abc import Sequence

from dasd_resources.visible_text import excerpt_line, unlinked

NAME_CHARS, NUM_LISTED = 40, 20


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """`1 run`, `2 runs`, `1,000 batches`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def size_of(num_bytes: float) -> str:
    """`512 B`, `719 GB`, `1.08 TB`."""
    for unit, size in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if num_bytes >= size:
            return f"{num_bytes / size:.3g} {unit}"
    return f"{num_bytes:.0f} B"


def with_error(value: float, error: float | None, form: str) -> str:
    """`26.1 ± 1.2`; of an error that is not known nothing is said. form: `.1f`; a sign is the value's alone."""
    return f"{value:{form}}" + ("" if error is None else f" ± {error:{form.removeprefix('+')}}")


def with_interval(value: float, low: float | None, high: float | None, form: str) -> str:
    """`-8.4 [-10.6, -6.1]`; of an interval that is not known nothing is said. form: `+.1f`."""
    return f"{value:{form}}" + ("" if low is None or high is None else f" [{low:{form}}, {high:{form}}]")


def short(name: str) -> str:
    """A name that others chose, a domain or a file's say, as it may stand in a message."""
    return unlinked(excerpt_line(name, NAME_CHARS))


def listed(names: Sequence[str]) -> str:
    """`a, b, c`; of many names the first, and how many more there are."""
    more = [f"{len(names) - NUM_LISTED:,} more"] if len(names) > NUM_LISTED else []
    return ", ".join([*names[:NUM_LISTED], *more])
