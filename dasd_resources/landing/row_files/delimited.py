"""`.csv` and `.tsv` files: a header, then a row per record. A cell is a text, an empty one is none.

A quoted cell may hold newlines, so a record may take several lines; `line` is its first. A record is bounded as a row
is: a quote that is never closed would else swallow the file.
"""

import codecs
import csv
import json
from collections.abc import Iterable, Iterator

from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES, DamagedFile, FileRow, row, unreadable
from dasd_resources.visible_text import excerpt

DELIMITERS = {".csv": ",", ".tsv": "\t"}
# The csv module's own limit of a cell is one of the process; ours is that of a record.
csv.field_size_limit(2**31 - 1)


class _TooLong(Exception):
    """A line, or the lines of a record so far, have more bytes than a row may have."""


class _Lines:
    """The lines of a file as the csv module takes them: texts in which a byte that is not UTF-8 is a lone surrogate.

    line: of the last one. num_lines, num_bytes: of the record so far.
    """

    def __init__(self, chunks: Iterable[bytes], most: int) -> None:
        self._lines, self._most = _physical_lines(chunks, most), most
        self.line = self.num_lines = self.num_bytes = 0

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        content, length = next(self._lines)
        self.line, self.num_lines, self.num_bytes = self.line + 1, self.num_lines + 1, self.num_bytes + length
        if self.num_bytes > self._most:
            raise _TooLong
        text = content.removeprefix(codecs.BOM_UTF8) if self.line == 1 else content
        return text.decode("utf-8", "surrogateescape")

    def begin(self) -> int:
        """A record begins; returns its line."""
        self.num_lines = self.num_bytes = 0
        return self.line + 1


def delimited_rows(chunks: Iterable[bytes], most: int = MAX_ROW_BYTES, *, delimiter: str) -> Iterator[FileRow]:
    """The records after the header as JSON objects. Raises DamagedFile."""
    lines = _Lines(chunks, most)
    records = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        line = lines.begin()
        try:
            cells = next(records)
        except StopIteration:
            return
        except _TooLong:
            if lines.num_lines > 1 or names is None:
                raise _unclosed(line, most) from None
            message = f"row has {lines.num_bytes} bytes, at most {most} are accepted"
            yield unreadable(line, "row_too_long", message)
        except csv.Error as error:
            if names is None or "unexpected end" in str(error):
                raise (
                    _unclosed(line, most) if names else DamagedFile(f"its header is not readable: {error}")
                ) from None
            yield unreadable(line, "invalid_cells", f"{error}: quote the cell, and write a quote in it twice")
        else:
            if names is not None:
                yield from _record(line, names, cells, most) if cells else ()
            elif cells:
                names = _header(cells, delimiter)


def _unclosed(line: int, most: int) -> DamagedFile:
    return DamagedFile(f"a cell's quote in the record at line {line} is not closed within {most} bytes")


def _header(names: list[str], delimiter: str) -> list[str]:
    """The names of the columns. Raises DamagedFile where they cannot be meant."""
    if len(set(names)) < len(names):
        raise DamagedFile(f"two columns have the same name: {excerpt(names)}")
    if any("\udc80" <= character <= "\udcff" for name in names for character in name):
        raise DamagedFile("its header is not UTF-8; write the file as UTF-8")
    others = [repr(other) for other in (",", "\t", ";") if other != delimiter and other in names[0]]
    if len(names) == 1 and others:
        raise DamagedFile(f"its header has no {delimiter!r}, but {others[0]}: name it .tsv for tabs, .csv for commas")
    return names


def _record(line: int, names: list[str], cells: list[str], most: int) -> Iterator[FileRow]:
    if len(cells) != len(names):
        message = f"{len(cells)} cells, where the header has {len(names)}: {excerpt(cells)}"
        yield unreadable(line, "invalid_cells", message)
        return
    found = {name: cell for name, cell in zip(names, cells, strict=True) if cell}
    try:
        content = json.dumps(found, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        shown = excerpt(" ".join(cells).encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        yield unreadable(line, "invalid_encoding", f"not UTF-8: {shown}")
    else:
        yield from row(line, content, len(content), most)


def _physical_lines(chunks: Iterable[bytes], most: int) -> Iterator[tuple[bytes, int]]:
    """Each line with its end, and its number of bytes; of an overlong one only the start is kept in memory."""
    start, length = b"", 0
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            yield (start + part + b"\n" if length <= most else start), length + len(part) + 1
            start, length = b"", 0
        start, length = start + rest if length <= most else start, length + len(rest)
    if length:
        yield start, length
