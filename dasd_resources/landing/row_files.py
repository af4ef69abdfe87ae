"""Rows of .jsonl, .jsonl.zst and .parquet files as JSON texts, streamed; for an unreadable row or file, why.

A Parquet row becomes an equivalent line of JSON, so that everything after this module handles one format. Left out:
what a row must contain, which `prompt_files.py` checks.
"""

import codecs
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dasd_resources.json_text import finite
from dasd_resources.landing.rejections import RejectionKind
from dasd_resources.visible_text import excerpt

SUFFIXES = (".jsonl.zst", ".jsonl", ".parquet")
MAX_ROW_BYTES = 1 << 20  # bounds the memory that one row can take
MAX_RESPONSE_ROW_BYTES = 16 << 20  # the same where a row may hold responses: eight of 65,536 tokens with logprobs
CHUNK_BYTES = 1 << 16
# What a file may unpack to: so many times its size, and on top. Prompts that all repeat one long text come to a hundred
# times; a bomb to tens of thousands.
MAX_RATIO, FREE_BYTES = 1000, 1 << 20
PARQUET_BATCH = 256  # rows decoded at a time; small, as a row may be as large as MAX_ROW_BYTES
PARQUET_VALUE_BYTES = 8  # of a decoded number
MAX_DECODED_BYTES = 16 * MAX_ROW_BYTES  # of what else is in a row: numbers are longer decoded than as text


@dataclass(frozen=True)
class UnreadableRow:
    """Why a row has no JSON text: `invalid_encoding`, `row_too_long` or `invalid_json`, and a message."""

    kind: RejectionKind
    message: str


@dataclass(frozen=True)
class FileRow:
    """One row's JSON text, not yet parsed, or why it could not be read; lines count from 1."""

    line: int
    text: str
    unreadable: UnreadableRow | None = None


class DamagedFile(ValueError):
    """A file that breaks off or is not of its format; rows before the damage (Parquet: batches) have been read."""


def read_rows(path: Path, max_row_bytes: int = MAX_ROW_BYTES) -> Iterator[FileRow]:
    """The non-blank rows of a file in order; memory is bounded by `max_row_bytes`, or by a page of a Parquet file.

    Time and memory are bounded by the file's own size (MAX_RATIO): a file that unpacks to more is damaged.

    Raises DamagedFile, and OSError only where the system, not the content, is at fault.
    """
    try:
        yield from _rows(path, max_row_bytes)
    except (OSError, UnicodeError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedFile(str(error)) from error


def _rows(path: Path, most: int) -> Iterator[FileRow]:
    if path.name.endswith(".parquet"):
        return _parquet_rows(path, most)
    chunks = _within(_decompressed(path), _most_unpacked(path)) if path.name.endswith(".zst") else _chunks(path)
    return _lines(chunks, most)


def _most_unpacked(path: Path) -> int:
    return MAX_RATIO * path.stat().st_size + FREE_BYTES


def _within(chunks: Iterable[bytes], most: int) -> Iterator[bytes]:
    """The chunks, until they come to more than that."""
    for chunk in chunks:
        yield chunk
        most -= len(chunk)
        if most < 0:
            raise _bomb()


def _bomb() -> DamagedFile:
    return DamagedFile(f"it unpacks to more than {MAX_RATIO} times its size, as no prompts do; land them unpacked")


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _decompressed(path: Path) -> Iterator[bytes]:
    """Chunks of a zstd file, up to the first damaged byte."""
    # A read that meets damage raises without the bytes before it: those are read again, one by one, from the same
    # position.
    position = 0
    try:
        with pa.input_stream(str(path), compression="zstd") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                position += len(chunk)
                yield chunk
    except OSError:
        yield from _until_damage(path, position)


def _until_damage(path: Path, position: int) -> Iterator[bytes]:
    """The bytes between `position` and the damage; then raises its error."""
    rest = bytearray()
    with pa.input_stream(str(path), compression="zstd") as stream:
        while position:
            position -= len(stream.read(min(position, CHUNK_BYTES)))
        try:
            while byte := stream.read(1):
                rest += byte
        except OSError:
            yield bytes(rest)
            raise


def _lines(chunks: Iterable[bytes], most: int = MAX_ROW_BYTES) -> Iterator[FileRow]:
    """Rows up to each newline and the end. Of an overlong row only the start is kept in memory."""
    # `start` is the unfinished row so far (no longer extended once it is too long), `length` its true number of bytes.
    line, start, length = 1, b"", 0
    for chunk in chunks:
        *ended, rest = chunk.split(b"\n")
        for part in ended:
            if part or length:  # skip blank lines here: millions fit into a small compressed file
                yield from _row(line, start + part, length + len(part), most)
            line, start, length = line + 1, b"", 0
        start, length = start + rest if length <= most else start, length + len(rest)
    yield from _row(line, start, length, most)


def _row(line: int, content: bytes, length: int, most: int) -> Iterator[FileRow]:
    """The row, or nothing if it is blank. content: its bytes, of an overlong row only the first; a leading BOM goes."""
    if line == 1:
        content = content.removeprefix(codecs.BOM_UTF8)
    shown = excerpt(content[:200].decode("utf-8", "replace"))
    if length > most:
        message = f"row has {length} bytes, at most {most} are accepted: {shown}"
        yield FileRow(line, "", UnreadableRow("row_too_long", message))
    elif content.strip():
        try:
            yield FileRow(line, content.decode("utf-8"))
        except UnicodeDecodeError as error:
            message = f"not UTF-8 at byte {error.start}: {shown}"
            yield FileRow(line, "", UnreadableRow("invalid_encoding", message))


def _parquet_rows(path: Path, most: int) -> Iterator[FileRow]:
    line = 0
    with _open_parquet(path) as file:
        names = file.schema_arrow.names
        if len(set(names)) < len(names):
            raise pa.ArrowInvalid(f"two columns have the same name: {excerpt(names)}")
        left = _most_unpacked(path)
        if max(_unpacked_bytes(file.metadata), file.metadata.num_rows) > left:
            raise _bomb()
        for batch in file.iter_batches(batch_size=PARQUET_BATCH):
            for index in range(batch.num_rows):
                line += 1
                for row in _parquet_row(line, names, batch, index, most):
                    left -= len(row.text)
                    yield row
                if left < 0:
                    raise _bomb()


def _unpacked_bytes(footer: pq.FileMetaData) -> int:
    """What the file's pages unpack to, or its values if that is more: one byte may stand for a million equal ones."""
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    return sum(max(c.total_uncompressed_size, PARQUET_VALUE_BYTES * c.num_values) for c in columns)


def _open_parquet(path: Path) -> pq.ParquetFile:
    """The file, its texts decoded as dictionaries: a long one that every row repeats takes memory once."""
    schema = pq.read_schema(path)
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
    return pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts)


def _text(value: object) -> str:
    """Text for times and decimals, which JSON lacks. Raises TypeError for any other type."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _parquet_row(line: int, names: list[str], batch: pa.RecordBatch, index: int, most: int) -> Iterator[FileRow]:
    texts, others = _decoded_bytes(batch, index)
    if texts > most or others > max(MAX_DECODED_BYTES, most):
        message = f"row has {texts + others} bytes, at most {most} are accepted"
        yield FileRow(line, "", UnreadableRow("row_too_long", message))
        return
    try:
        row = {name: column[index].as_py() for name, column in zip(names, batch.columns, strict=True)}
        content = json.dumps(finite(row), ensure_ascii=False, allow_nan=False, default=_text).encode()
    except (ValueError, TypeError, OverflowError) as error:
        yield FileRow(line, "", UnreadableRow("invalid_json", f"row has no JSON form: {error}"))
    else:
        yield from _row(line, content, len(content), most)


def _decoded_bytes(batch: pa.RecordBatch, index: int) -> tuple[int, int]:
    """Of a row in memory: those of its texts, which the dictionaries hold, and those of everything else."""
    texts = [column[index].value for column in batch.columns if pa.types.is_dictionary(column.type)]
    others = [column.slice(index, 1).nbytes for column in batch.columns if not pa.types.is_dictionary(column.type)]
    return sum(text.as_buffer().size for text in texts if text.is_valid), sum(others)
