"""Rows of an Arrow file (`.arrow`, `.feather`): the IPC format as a file or as a stream, as `datasets` saves it.

A record batch is decoded as a whole, and a compressed one may be a bomb. So every batch is measured before the first is
read: its message says how many rows it has, and where its buffers lie, each of which begins with its unpacked length.
And since a file may lie about what lies where, each batch is validated before a row of it is taken.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import SEEK_END, BufferedReader
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc

from dasd_resources.landing.row_files.record_batches import batch_row, check_names
from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES, DamagedFile, FileRow, bomb, most_unpacked

MAGIC, OLD_FEATHER = b"ARROW1", b"FEA1"
CONTINUATION = 0xFFFFFFFF
DICTIONARY_BATCH, RECORD_BATCH = 2, 3  # kinds of messages
INTERVALS = (pa.lib.Type_INTERVAL_MONTHS, pa.lib.Type_INTERVAL_DAY_TIME)  # PyArrow has no arrays of them
MAX_BATCH_BYTES = 1 << 30  # of a batch in memory
MAX_METADATA_BYTES = 1 << 24  # of a message without its body
BLOCK, BUFFER = struct.Struct("<qi4xq"), struct.Struct("<qq")


def arrow_rows(path: Path, most: int = MAX_ROW_BYTES) -> Iterator[FileRow]:
    """The rows in order. Raises DamagedFile, ArrowException or OSError where the file breaks off or is a bomb."""
    left, line = most_unpacked(path), 0
    _measure(path, left)
    for batch in _batches(path):
        batch.validate(full=True)
        for index in range(batch.num_rows):
            line += 1
            for row in batch_row(line, batch.schema.names, batch, index, most):
                left -= len(row.text)
                yield row
            if left < 0:
                raise bomb()


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with pa.OSFile(str(path)) as source:
        if _is_file(path):
            file = ipc.open_file(source)
            _check_schema(file.schema)
            yield from (file.get_batch(index) for index in range(file.num_record_batches))
        else:
            stream = ipc.open_stream(source)
            _check_schema(stream.schema)
            yield from stream


def _is_file(path: Path) -> bool:
    """Whether it is a file with a footer, not a stream. Raises DamagedFile for the old Feather format."""
    with path.open("rb") as file:
        start = file.read(len(MAGIC))
    if start.startswith(OLD_FEATHER):
        raise DamagedFile("it is Feather of version 1; write it as version 2, which is Arrow")
    return start == MAGIC


def _check_schema(schema: pa.Schema) -> None:
    """Raises ArrowInvalid where a column stands twice, or its type cannot be decoded, or not be measured before."""
    check_names(schema.names)
    for field in schema:
        kind = field.type
        if not _is_measurable(kind.value_type if pa.types.is_dictionary(kind) else kind):
            raise pa.ArrowInvalid(
                f"column {field.name!r} is of type {kind}, which is not read: write it as text or list"
            )


def _is_measurable(kind: pa.DataType) -> bool:
    if isinstance(kind, pa.BaseExtensionType):
        return _is_measurable(kind.storage_type)
    if pa.types.is_struct(kind):
        return all(_is_measurable(kind.field(index).type) for index in range(kind.num_fields))
    if pa.types.is_map(kind):
        return _is_measurable(kind.key_type) and _is_measurable(kind.item_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _is_measurable(kind.value_type)
    undecoded = pa.types.is_nested(kind) or pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind)
    return not undecoded and kind.id not in INTERVALS


def _measure(path: Path, left: int) -> None:
    """Raises DamagedFile where the batches unpack to more than `left` bytes or rows, or one to too many at once."""
    with path.open("rb") as file:
        for message in _messages_of_file(file) if _is_file(path) else _messages_of_stream(file):
            left -= max(message.num_bytes, message.num_rows)
            if left < 0:
                raise bomb()
            if message.num_bytes > MAX_BATCH_BYTES:
                raise DamagedFile(
                    f"a record batch of it takes {message.num_bytes} bytes, at most {MAX_BATCH_BYTES} are read at a "
                    "time: write it in smaller batches"
                )


@dataclass(frozen=True)
class _Message:
    """What a batch comes to, and where the message after it begins."""

    num_rows: int
    num_bytes: int
    end: int


def _messages_of_stream(file: BufferedReader) -> Iterator[_Message]:
    at, size = 0, file.seek(0, SEEK_END)
    while at < size and (message := _message(file, at)) is not None:
        yield message
        at = message.end


def _messages_of_file(file: BufferedReader) -> Iterator[_Message]:
    """Those that the footer lists: the dictionaries' and the batches'."""
    tail = struct.calcsize("<i") + len(MAGIC)
    end = file.seek(0, SEEK_END) - tail
    if end < 0:
        raise DamagedFile("it breaks off: it has no footer")
    file.seek(end)
    length, magic = struct.unpack(f"<i{len(MAGIC)}s", file.read(tail))
    if magic != MAGIC or not 0 < length <= min(end, MAX_METADATA_BYTES):
        raise DamagedFile("it breaks off: it has no footer")
    file.seek(end - length)
    footer = _Table.root(file.read(length))
    for index in (2, 3):
        for offset, _, _ in footer.structs(index, BLOCK):
            if (message := _message(file, offset)) is not None:
                yield message


def _message(file: BufferedReader, at: int) -> _Message | None:
    """The message there; None at the end of the stream."""
    _seek(file, at)
    start = _read(file, 4)
    length = struct.unpack("<I", start)[0]
    if length == CONTINUATION:  # older writers have none
        length = struct.unpack("<I", _read(file, 4))[0]
    if length == 0:
        return None
    if length > MAX_METADATA_BYTES:
        raise DamagedFile("it is no Arrow file, or the description of a record batch is too long")
    table = _Table.root(_read(file, length))
    body, kind, batch = file.tell(), table.number(1, "B"), table.table(2)
    if kind == DICTIONARY_BATCH and batch is not None:
        batch = batch.table(1)
    end = body + table.number(3, "q")
    if end < body:
        raise DamagedFile("a record batch of it has a negative length")
    if kind not in (DICTIONARY_BATCH, RECORD_BATCH) or batch is None:
        return _Message(0, 0, end)
    compressed = batch.table(3) is not None
    sizes = [_size(file, body + offset, length, compressed) for offset, length in batch.structs(2, BUFFER)]
    return _Message(batch.number(0, "q"), sum(sizes), end)


def _size(file: BufferedReader, at: int, length: int, compressed: bool) -> int:
    """Unpacked bytes of a buffer."""
    if not compressed or length <= 8:
        return max(length, 0)
    _seek(file, at)
    unpacked = struct.unpack("<q", _read(file, 8))[0]
    return length if unpacked < 0 else int(unpacked)  # -1: it is not compressed after all


def _seek(file: BufferedReader, at: int) -> None:
    if not 0 <= at <= file.seek(0, SEEK_END):
        raise DamagedFile("a record batch lies outside of it: it breaks off, or is no Arrow file")
    file.seek(at)


def _read(file: BufferedReader, length: int) -> bytes:
    found = file.read(length)
    if len(found) < length:
        raise DamagedFile("it breaks off within a record batch, or is no Arrow file")
    return found


@dataclass(frozen=True)
class _Table:
    """A table of a flatbuffer: a vtable, found through a signed offset, says where each field is."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, _unpacked(data, 0, "I"))

    def _field(self, index: int) -> int | None:
        vtable = self.at - _unpacked(self.data, self.at, "i")
        place = 4 + 2 * index
        if place + 2 > _unpacked(self.data, vtable, "H"):
            return None
        offset = _unpacked(self.data, vtable + place, "H")
        return self.at + offset if offset else None

    def number(self, index: int, code: str) -> int:
        """A number, 0 by default."""
        place = self._field(index)
        return 0 if place is None else _unpacked(self.data, place, code)

    def table(self, index: int) -> "_Table | None":
        """A table within this one."""
        place = self._field(index)
        return None if place is None else _Table(self.data, place + _unpacked(self.data, place, "I"))

    def structs(self, index: int, of: struct.Struct) -> list[tuple[int, ...]]:
        """A vector of structs."""
        place = self._field(index)
        if place is None:
            return []
        start = place + _unpacked(self.data, place, "I")
        number = _unpacked(self.data, start, "I")
        if start + 4 + number * of.size > len(self.data):
            raise DamagedFile("the description of a record batch points outside of itself")
        return [of.unpack_from(self.data, start + 4 + of.size * one) for one in range(number)]


def _unpacked(data: bytes, at: int, code: str) -> int:
    try:
        if at < 0:
            raise struct.error
        return int(struct.unpack_from(f"<{code}", data, at)[0])
    except struct.error:
        raise DamagedFile("the description of a record batch points outside of itself") from None
