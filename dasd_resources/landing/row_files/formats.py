"""A file's format, by its suffix."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import duckdb
import pyarrow as pa

from dasd_resources.landing.row_files.arrow import arrow_rows
from dasd_resources.landing.row_files.delimited import DELIMITERS, delimited_rows
from dasd_resources.landing.row_files.documents import document_rows
from dasd_resources.landing.row_files.lines import line_rows
from dasd_resources.landing.row_files.parquet import parquet_rows
from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES, DamagedFile, FileRow
from dasd_resources.landing.row_files.unpacking import COMPRESSIONS, unpacked

TEXTS: dict[str, Callable[[Iterable[bytes], int], Iterator[FileRow]]] = {
    ".jsonl": line_rows,
    ".json": document_rows,
    **{suffix: partial(delimited_rows, delimiter=delimiter) for suffix, delimiter in DELIMITERS.items()},
}
TABLES: dict[str, Callable[[Path, int], Iterator[FileRow]]] = {
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
    ".feather": arrow_rows,
}
SUFFIXES = (*(text + packed for text in TEXTS for packed in (*COMPRESSIONS, "")), *TABLES)
FORMATS = f"{', '.join(TEXTS)} (each also with {' or '.join(COMPRESSIONS)}), {', '.join(TABLES)}"


def read_rows(path: Path, max_row_bytes: int = MAX_ROW_BYTES) -> Iterator[FileRow]:
    """The non-blank rows of a file in order; memory is bounded by `max_row_bytes`, a page of Parquet, a batch of Arrow.

    Time and memory are bounded by the file's own size (MAX_RATIO): a file that unpacks to more is damaged.

    Raises DamagedFile, and OSError only where the system, not the content, is at fault.
    """
    try:
        yield from _rows(path, max_row_bytes)
    except (OSError, UnicodeError, pa.ArrowException, duckdb.Error) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedFile(str(error)) from error


def _rows(path: Path, most: int) -> Iterator[FileRow]:
    for suffix, read in TABLES.items():
        if path.name.endswith(suffix):
            return read(path, most)
    plain = path.with_suffix("") if path.suffix in COMPRESSIONS else path
    return TEXTS.get(plain.suffix, line_rows)(unpacked(path), most)  # a benchmark's file may have any name
