"""Markdown for the web UI, and the only ways in which text of others gets onto its pages.

The UI parses Markdown values and all descriptions (CommonMark with GFM, without HTML): there a text could be an image,
which the browser loads, or a link. Escaping does not prevent it: GFM looks for addresses when escapes are undone, and a
table's cell ends at a pipe even within code. A code span does, outside of tables: `code`. Rows are table metadata,
which the UI shows as plain text: `table`.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from urllib.parse import quote, urlencode

import dagster as dg

from dasd_resources.home import viewer_of
from dasd_resources.visible_text import excerpt_line, visible

CELL_CHARS = 72
REASON_CHARS = 300

Cell = str | int | float | bool


def code(text: str) -> str:
    """A text as a code span, on one line; separate it by a space from what stands around it."""
    shown = visible(text) or " "
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", shown)), default=0))
    padded = f" {shown} " if shown[0] in "` " or shown[-1] in "` " else shown
    return f"{fence}{padded}{fence}"


def codes(texts: Iterable[str]) -> str:
    """Texts of others, such as reasons, in a message: each as code, cut where it is long."""
    return "; ".join(code(excerpt_line(text, REASON_CHARS)) for text in texts)


def code_value(text: str) -> dg.MarkdownMetadataValue:
    """A command or query, to be copied from the page."""
    return dg.MetadataValue.md(code(text))


def picture(png: str) -> dg.MarkdownMetadataValue:
    """A PNG, in base 64, that is part of the page."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{png})")


def viewer_link(page: str, **query: object) -> dg.UrlMetadataValue:
    """A page of `dasd view`, where DASD_VIEWER says it is; nothing of a text can leave the query."""
    asked = f"?{urlencode(query)}" if query else ""
    return dg.MetadataValue.url(f"{viewer_of(os.environ)}/{quote(page)}{asked}")


def table(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> dg.TableMetadataValue:
    """Rows as a table on the page; the columns are named because there may be no row."""
    records = [dg.TableRecord({name: cell(row[name]) for name in columns}) for row in rows]
    return dg.MetadataValue.table(records, schema=dg.TableSchema([dg.TableColumn(name) for name in columns]))


def cell(value: object) -> Cell:
    """A value as a table shows it: a text cut and on one line, a number rounded, a list by its length and beginning."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, bool | int):
        return value
    if isinstance(value, list):
        begun = ", ".join(str(cell(item)) for item in value[:4])
        return f"[{begun}]" if len(value) <= 4 else f"{len(value)} × [{begun}, …]"
    text = str(value)
    return f"{text[:12]}…" if re.fullmatch("[0-9a-f]{16,}", text) else excerpt_line(text, CELL_CHARS) or visible(text)
