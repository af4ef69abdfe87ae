r"""A `.json` file: one array of rows, an object with the array under `data` or `rows`, or JSON Lines by another name.

The document is never parsed as a whole: its brackets, commas and strings say where an element begins and ends, and each
element is then a row by itself. So one that is no JSON spoils none but itself, and memory is bounded by MAX_ROW_BYTES.
"""

import codecs
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain

from dasd_resources.landing.row_files.lines import line_rows
from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES, DamagedFile, FileRow, row, unreadable
from dasd_resources.landing.row_files.unpacking import without_mark
from dasd_resources.visible_text import excerpt

LISTS = ("data", "rows")  # keys of an object that the rows may stand under
WHAT_IS_READ = "one array of rows, an object with the array under `data` or `rows`, or one row a line"
MEMBER = re.compile(rb'\s*"([^"\\]*)"\s*:\s*')
MAX_KEY_BYTES = 1000  # of what stands before a value of the outermost object
STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)  # to its end, or that of the chunk
STRUCTURE = re.compile(rb'["\[\]{},]')


def document_rows(chunks: Iterable[bytes]) -> Iterator[FileRow]:
    """The rows; `line` is the number of the element, or the line where the file is JSON Lines. Raises DamagedFile."""
    chunks = iter(chunks)
    first, found = _first_line(chunks)
    whole = chain(found, chunks)
    return line_rows(whole) if _is_row(first) else _elements(without_mark(whole))


def _first_line(chunks: Iterator[bytes]) -> tuple[bytes, list[bytes]]:
    """The first line, cut if it is too long for a row, and the chunks that were read for it."""
    found: list[bytes] = []
    length = 0
    for chunk in chunks:
        found.append(chunk)
        length += len(chunk)
        if b"\n" in chunk or length > MAX_ROW_BYTES:
            break
    return b"".join(found).removeprefix(codecs.BOM_UTF8).partition(b"\n")[0], found


def _is_row(line: bytes) -> bool:
    """Whether a line is an object of its own, and not the one that holds the rows."""
    try:
        value = json.loads(line) if len(line) <= MAX_ROW_BYTES else None
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and not any(isinstance(value.get(key), list) for key in LISTS)


class _Part:
    """What has been read since the last boundary, cut where it is too long; `length` is its true number of bytes."""

    def __init__(self) -> None:
        self.content, self.length = bytearray(), 0

    def take(self, piece: bytes, most: int = MAX_ROW_BYTES) -> None:
        self.content += piece[: max(most - len(self.content), 0)]
        self.length += len(piece)

    @property
    def is_blank(self) -> bool:
        return not self.content.strip()


def _elements(chunks: Iterable[bytes]) -> Iterator[FileRow]:
    """The elements of the list of rows."""
    # depth: open brackets; rows_depth: the same just within the list of rows, 0 outside of it; unread: keys of lists
    # of objects that are no list of rows; key: of the last list that began beside the rows.
    part, number, depth, rows_depth, key, unread = _Part(), 0, 0, 0, "", dict[str, None]()
    has_rows = is_closed = False
    for piece, token in _pieces(chunks):
        part.take(piece, MAX_ROW_BYTES if rows_depth else MAX_KEY_BYTES)
        if token in (b"[", b"{"):
            # 1. The brackets around the rows, and those around their list, begin a part; so do lists beside it.
            if depth == 0 and (is_closed or not part.is_blank):
                raise _no_document(part)
            if depth == 0 or (depth == 1 and not rows_depth and token == b"["):
                key = _key(part)
                rows_depth = depth + 1 if token == b"[" and (depth == 0 or key in LISTS) else 0
                has_rows = has_rows or rows_depth > 0
                part, depth = _Part(), depth + 1
                continue
            if depth == 2 and not rows_depth and token == b"{" and key:
                unread[key] = None
            depth += 1
        elif token in (b"]", b"}"):
            # 2. The end of the list is that of its last row; after the outermost bracket there is nothing.
            depth -= 1
            if depth < 0:
                raise _no_document(part)
            if rows_depth and depth < rows_depth:
                if number or not part.is_blank:
                    number += 1
                    yield from _row(number, part)
                part, rows_depth, is_closed = _Part(), 0, depth == 0
                continue
            if depth == 0:
                part, is_closed = _Part(), True
                continue
        elif token == b"," and depth == (rows_depth or 1):
            # 3. A comma between rows, or between members of the object.
            if rows_depth:
                number += 1
                yield from _row(number, part)
            part, key = _Part(), ""
            continue
        part.take(token)
    if depth:
        raise DamagedFile(f"it ends within row {number + 1}" if rows_depth else "it ends before its last bracket")
    if not part.is_blank or (is_closed and not has_rows):
        raise _no_document(part)
    if unread:
        raise DamagedFile(f"beside its rows it has lists that are not read, under {excerpt(list(unread))}")


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


def _row(number: int, part: _Part) -> Iterator[FileRow]:
    if part.is_blank:
        yield unreadable(number, "invalid_json", "nothing stands between two commas, or after the last one")
    else:
        yield from row(number, bytes(part.content), part.length)


def _no_document(part: _Part) -> DamagedFile:
    shown = excerpt(bytes(part.content[:100]).decode("utf-8", "replace").strip())
    return DamagedFile(f"a .json file holds {WHAT_IS_READ}; this one has {shown}")
