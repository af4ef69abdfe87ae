"""Counts with singular or plural nouns, for messages."""


def number_of(count: int, noun: str, plural: str | None = None) -> str:
    """`1 run`, `2 runs`, `1,000 batches`."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
