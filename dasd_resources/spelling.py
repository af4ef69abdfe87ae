"""What a mistyped name was meant to be: of a recipe's key, a command, an option or an asset."""

from collections.abc import Iterable
from difflib import get_close_matches


def meant(name: str, known: Iterable[str]) -> str:
    """`; did you mean epochs?`, to be put behind a message about `name`; empty where nothing known is like it."""
    close = get_close_matches(name, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""
