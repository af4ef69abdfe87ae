"""What others wrote, as a person may be shown it: nothing in it is hidden, moves the cursor or becomes a link.

A question, a file name, a server's message or a model's answer may hold terminal escapes, characters without width or
ones that turn the direction of writing. Each is shown as its escape. `show` is the only way to a terminal.
"""

import re
import sys
import unicodedata
from functools import lru_cache
from typing import TextIO

HIDDEN = {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}  # Unicode's categories; spaces of every width (Zs) are shown
ODD = re.compile("[^ -~]")  # what may be hidden


def visible(text: str) -> str:
    r"""One line: each character that nobody would see, newlines among them, as Python writes it (`\x1b`, `\u202e`)."""
    return ODD.sub(lambda found: _shown(found[0]), text)


def visible_page(text: str) -> str:
    """Several lines, each of them visible."""
    return "\n".join(map(visible, text.split("\n")))


def excerpt_line(text: str, num_chars: int) -> str:
    """The beginning of a text on one line, with single spaces."""
    line = visible(" ".join(text[: 4 * num_chars].split()))
    return line if len(line) <= num_chars and len(text) <= 4 * num_chars else f"{line[: num_chars - 1]}…"


def excerpt(value: object, num_chars: int = 80) -> str:
    """A value for a message: quoted, unprintable characters escaped, shortened."""
    shown = repr(value[: num_chars + 1] if isinstance(value, str) else value)
    return shown if len(shown) <= num_chars else f"{shown[:num_chars]}…"


def unlinked(text: str) -> str:
    """Visible, on one line, and without an address that the run log's page would turn into a link: `http[:]//host`."""
    return visible(text).replace("://", "[:]//")


def show(page: str, to: TextIO | None = None, end: str = "\n") -> None:
    """Print a page at once; `to` is standard output unless given. end: nothing, where more of its last line follows."""
    print(visible_page(page), file=to or sys.stdout, flush=True, end=end)


def hand_over(text: str) -> None:
    """Write a whole text to standard output: as it is into a file or another program, visible on a terminal."""
    if sys.stdout.isatty():
        show(text.rstrip())
    else:
        sys.stdout.write(text)


def show_message(text: str, to: TextIO | None = None) -> None:
    """Print a message; its further lines are indented, so that none of them looks like a message of its own."""
    show(text.replace("\n", "\n    "), to)


@lru_cache(maxsize=4096)
def _shown(char: str) -> str:
    return char.encode("unicode_escape").decode() if unicodedata.category(char) in HIDDEN else char
