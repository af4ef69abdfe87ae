"""How a page is laid out: a title, named lines, sections; wrapped so that a terminal shows it whole."""

import textwrap
from collections.abc import Iterable, Sequence

from dasd_assets.audit.prompt import Record

WIDTH = 120
LABEL = 14
Rows = Sequence[Record]


def page(title: str, fields: Iterable[tuple[str, str]], *sections: str) -> str:
    """A title, named values, and the sections that are not empty."""
    lines = [title, *[_wrapped(f"{name:<{LABEL}}", value) for name, value in fields]]
    return "\n\n".join(["\n".join(lines), *filter(None, sections)])


def section(title: str, lines: Iterable[str]) -> str:
    """A title and its lines; `none` where there is no line."""
    listed = [_wrapped("  ", line).rstrip() for line in lines]
    return "\n".join([title, *(listed or ["  none"])])


def _wrapped(start: str, text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=start, subsequent_indent=" " * max(len(start), 4), drop_whitespace=False
    )


def run(row: Record) -> str:
    """The Dagster run that wrote a row."""
    return f"run {row['run_id']}" if row.get("run_id") else "run not recorded"
