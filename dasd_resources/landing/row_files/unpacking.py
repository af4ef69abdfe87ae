"""The bytes of a file, plain or compressed, in chunks, up to the first damaged byte."""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from dasd_resources.landing.row_files.rows import most_unpacked, within

CHUNK_BYTES = 1 << 16
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}  # suffix -> Arrow's name


def unpacked(path: Path) -> Iterator[bytes]:
    """The file's chunks, unpacked if its suffix says that it is compressed. Raises DamagedFile where it is a bomb."""
    compression = COMPRESSIONS.get(path.suffix)
    return _chunks(path) if compression is None else within(_decompressed(path, compression), most_unpacked(path))


def without_mark(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The chunks, the first of them without a byte order mark."""
    for number, chunk in enumerate(chunks):
        yield chunk if number else chunk.removeprefix(codecs.BOM_UTF8)


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


def _decompressed(path: Path, compression: str) -> Iterator[bytes]:
    # A read that meets damage raises without the bytes before it: those are read again, one by one, from the same
    # position.
    position = 0
    try:
        with pa.input_stream(str(path), compression=compression) as stream:
            while chunk := stream.read(CHUNK_BYTES):
                position += len(chunk)
                yield chunk
    except OSError:
        yield from _until_damage(path, compression, position)


def _until_damage(path: Path, compression: str, position: int) -> Iterator[bytes]:
    """The bytes between `position` and the damage; then raises its error."""
    rest = bytearray()
    with pa.input_stream(str(path), compression=compression) as stream:
        while position:
            position -= len(stream.read(min(position, CHUNK_BYTES)))
        try:
            while byte := stream.read(1):
                rest += byte
        except OSError:
            yield bytes(rest)
            raise
