"""A row's JSON text, or why it has none; and the bounds that every format keeps."""

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dasd_resources.landing.rejections import RejectionKind
from dasd_resources.visible_text import excerpt

MAX_ROW_BYTES = 1 << 20  # bounds the memory that one row can take, unless the caller says otherwise
MAX_RESPONSE_ROW_BYTES = 16 << 20  # of a row that may hold responses: eight of 65,536 tokens with logprobs
# What a file may unpack to: so many times its size, and on top. Prompts that all repeat one long text come to a hundred
# times; a bomb to tens of thousands.
MAX_RATIO, FREE_BYTES = 1000, 1 << 20


@dataclass(frozen=True)
class UnreadableRow:
    """Why a row has no JSON text: `invalid_encoding`, `row_too_long`, `invalid_json`, `invalid_cells`; a message."""

    kind: RejectionKind
    message: str


@dataclass(frozen=True)
class FileRow:
    """One row's JSON text, not yet parsed, or why it could not be read; lines count from 1.

    line: of a text file, where the row begins; of any other file, and of a `.json` one, the row's number.
    """

    line: int
    text: str
    unreadable: UnreadableRow | None = None


class DamagedFile(ValueError):
    """A file that breaks off or is not of its format; rows before the damage (Parquet, Arrow: batches) were read."""


def most_unpacked(path: Path) -> int:
    """The bytes that a file may unpack to."""
    return MAX_RATIO * path.stat().st_size + FREE_BYTES


def within(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The chunks, until they come to more than that."""
    for chunk in chunks:
        yield chunk
        most -= len(chunk)
        if most < 0:
            raise bomb()


def bomb() -> DamagedFile:
    """The error of a file that unpacks to too much."""
    return DamagedFile(f"it unpacks to more than {MAX_RATIO} times its size, as no prompts do; land them unpacked")


def row(line: int, content: bytes, length: int, most: int) -> Iterator[FileRow]:
    """The row, or nothing if it is blank. content: its bytes, of an overlong row only the first; a leading BOM goes."""
    if line == 1:
        content = content.removeprefix(codecs.BOM_UTF8)
    shown = excerpt(content[:200].decode("utf-8", "replace"))
    if length > most:
        yield unreadable(line, "row_too_long", f"row has {length} bytes, at most {most} are accepted: {shown}")
    elif content.strip():
        try:
            yield FileRow(line, content.decode("utf-8"))
        except UnicodeDecodeError as error:
            yield unreadable(line, "invalid_encoding", f"not UTF-8 at byte {error.start}: {shown}")


def limited(found: FileRow, most: int) -> FileRow:
    """The row, or that it is too long, where it was read with a larger limit than this."""
    content = found.text.encode("utf-8", "surrogatepass")
    return next(row(found.line, content, len(content), most)) if len(content) > most else found


def unreadable(line: int, kind: RejectionKind, message: str) -> FileRow:
    """A row without a text."""
    return FileRow(line, "", UnreadableRow(kind, message))
