r"""A `.json` file: one array of rows, an object with the array under `data` or `rows`, or JSON Lines by another name.

The document is never parsed as a whole: its brackets, commas and strings say where an element begins and ends, and each
element is then a row by itself. So one that is no JSON spoils none but itself, and memory is bounded by that of a row.
"""

import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from dasd_resources.landing.row_files.lines import line_rows
from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES, DamagedFile, FileRow, row, unreadable
from dasd_resources.landing.row_files.unpacking import CHUNK_BYTES, without_mark
from dasd_resources.visible_text import excerpt

LISTS = ("data", "rows")  # keys of an object that the rows may stand under
WHAT_IS_READ = "one array of rows, an object with the array under `data` or `rows`, or one row a line"
MEMBER = re.compile(rb'\s*"([^"\\]*)"\s*:\s*')
MAX_KEY_BYTES = 1000  # of what stands before a value of the outermost object
STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)  # to its end, or that of the chunk
STRUCTURE = re.compile(rb'["\[\]{},]')


def document_rows(chunks: Iterable[bytes], most: int = MAX_ROW_BYTES) -> Iterator[FileRow]:
    """The rows; `line` is the number of the element, or the line where the file is JSON Lines. Raises DamagedFile."""
    chunks = without_mark(chunks)
    first, is_last, found = _first_line(chunks, most)
    whole = chain(found, chunks)
    return line_rows(whole, most) if _is_row(first, is_last, most) else _elements(whole, most)


def _first_line(chunks: Iterator[bytes], most: int) -> tuple[bytes, bool, list[bytes]]:
    """The first line that is not blank, cut if it is too long for a row; if it is the last; the chunks it took."""
    found: list[bytes] = []
    length = 0
    for chunk in chunks:
        found.append(chunk)
        length += len(chunk)
        if length > most + CHUNK_BYTES or (b"\n" in chunk and b"\n" in b"".join(found).strip()):
            break
    line, _, others = b"".join(found).strip().partition(b"\n")
    return line, not others, found


def _is_row(line: bytes, is_last: bool, most: int) -> bool:
    """Whether a line is an object of its own, and not the one that holds the rows, which no other line follows."""
    try:
        value = json.loads(line) if len(line) <= most else None
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and not (is_last and any(isinstance(value.get(key), list) for key in LISTS))


class _Part:
    """What has been read since the last boundary, cut where it is too long; `length` is its true number of bytes."""

    def __init__(self) -> None:
        self.content, self.length = bytearray(), 0

    def take(self, piece: bytes, most: int) -> None:
        self.content += piece[: max(most - len(self.content), 0)]
        self.length += len(piece)

    @property
    def is_blank(self) -> bool:
        return not self.content.strip()


class _Place:
    """Where a reader is in a document.

    part: what follows the last boundary. number: of the last row. depth: open brackets; rows_depth: the same just
    within the list of rows, 0 outside of it. key: of the last list beside the rows. unread: of those that hold objects.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.part, self.number, self.depth, self.rows_depth, self.key = _Part(), 0, 0, 0, ""
        self.unread: dict[str, None] = {}
        self.has_rows = self.is_closed = False

    def take(self, piece: bytes) -> None:
        """More of the part."""
        self.part.take(piece, self.most if self.rows_depth else MAX_KEY_BYTES)

    def open(self, bracket: bytes) -> None:
        """A bracket opens: the outermost one, or that of a list in the outermost object, begins a part."""
        if self.depth == 0 and (self.is_closed or not self.part.is_blank):
            raise _no_document(self.part, "another document behind it")
        if self.depth == 0 or (self.depth == 1 and not self.rows_depth and bracket == b"["):
            self.key = _key(self.part)
            are_rows = bracket == b"[" and (self.depth == 0 or self.key in LISTS)
            self.rows_depth = self.depth + 1 if are_rows else 0
            self.has_rows, self.part = self.has_rows or are_rows, _Part()
        else:
            if self.depth == 2 and not self.rows_depth and bracket == b"{" and self.key:
                self.unread[self.key] = None
            self.take(bracket)
        self.depth += 1

    def close(self, bracket: bytes) -> Iterator[FileRow]:
        """A bracket closes: the end of the list is that of its last row."""
        self.depth -= 1
        if self.depth < 0:
            raise _no_document(self.part, "a bracket that closes none")
        self.is_closed = self.depth == 0
        if self.rows_depth and self.depth < self.rows_depth:
            if self.number or not self.part.is_blank:
                yield from self._row()
            self.part, self.rows_depth = _Part(), 0
        elif self.is_closed:
            self.part = _Part()
        else:
            self.take(bracket)

    def comma(self, comma: bytes) -> Iterator[FileRow]:
        """A comma: between rows, between members of the outermost object, or within a part."""
        if self.depth != (self.rows_depth or 1):
            self.take(comma)
            return
        if self.rows_depth:
            yield from self._row()
        self.part, self.key = _Part(), ""

    def end(self) -> None:
        """The document ends. Raises DamagedFile unless all of it was read."""
        if self.depth:
            where = f"within row {self.number + 1}" if self.rows_depth else "before its last bracket"
            raise DamagedFile(f"it ends {where}")
        if not self.part.is_blank or (self.is_closed and not self.has_rows):
            lists = f"its lists under {excerpt(list(self.unread))}" if self.unread else "an object without that array"
            raise _no_document(self.part, lists)
        if self.unread:
            raise DamagedFile(f"beside its rows it has lists that are not read, under {excerpt(list(self.unread))}")

    def _row(self) -> Iterator[FileRow]:
        self.number += 1
        if self.part.is_blank:
            yield unreadable(self.number, "invalid_json", "nothing stands between two commas, or after the last one")
        else:
            yield from row(self.number, bytes(self.part.content), self.part.length, self.most)


def _elements(chunks: Iterable[bytes], most: int) -> Iterator[FileRow]:
    """The elements of the list of rows."""
    place = _Place(most)
    for piece, token in _pieces(chunks):
        place.take(piece)
        if token in (b"[", b"{"):
            place.open(token)
        elif token in (b"]", b"}"):
            yield from place.close(token)
        elif token:
            yield from place.comma(token)
    place.end()


def _pieces(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """What stands before each bracket or comma outside of strings, and that; with the chunk's end, an empty one."""
    in_string = escaped = False
    for chunk in chunks:
        start = position = 0
        while position < len(chunk):
            if escaped:
                position, escaped = position + 1, False
            elif in_string:
                position = _end_of_string(chunk, position)
                if position < len(chunk):  # a quote, or a backslash whose next byte is in the next chunk
                    in_string = escaped = chunk[position : position + 1] == b"\\"
                    position += 1
            elif (found := STRUCTURE.search(chunk, position)) is None:
                break
            elif found[0] == b'"':
                in_string, position = True, found.end()
            else:
                yield chunk[start : found.start()], found[0]
                start = position = found.end()
        yield chunk[start:], b""


def _end_of_string(chunk: bytes, position: int) -> int:
    found = STRING.match(chunk, position)
    return found.end() if found else position


def _key(part: _Part) -> str:
    """The key of the member that begins, "" where there is none."""
    found = MEMBER.fullmatch(part.content)
    return found[1].decode("utf-8", "replace") if found else ""


def _no_document(part: _Part, where_blank: str) -> DamagedFile:
    """The error on a part that is none of a document; where_blank: what is wrong if nothing stands there."""
    shown = bytes(part.content[:100]).decode("utf-8", "replace").strip()
    return DamagedFile(f"a .json file holds {WHAT_IS_READ}; this one has {excerpt(shown) if shown else where_blank}")
