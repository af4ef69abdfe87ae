"""Rows of a Parquet file as JSON texts; memory is bounded by a page of it."""

from collections.abc import Iterator
from glob import escape
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dasd_resources.landing.row_files.record_batches import VALUE_BYTES, batch_row, check_names
from dasd_resources.landing.row_files.rows import MAX_ROW_BYTES, FileRow, bomb, most_unpacked

PARQUET_BATCH = 256  # rows decoded at a time; small, as a row may be as large as MAX_ROW_BYTES


def parquet_rows(path: Path, most: int = MAX_ROW_BYTES) -> Iterator[FileRow]:
    """The rows in order. Raises DamagedFile, ArrowException or OSError where the file breaks off or is a bomb."""
    line = 0
    with _open(path) as file:
        names = file.schema_arrow.names
        check_names(names)
        left = most_unpacked(path)
        if max(_unpacked_bytes(path), file.metadata.num_rows) > left:
            raise bomb()
        for batch in file.iter_batches(batch_size=PARQUET_BATCH):
            for index in range(batch.num_rows):
                line += 1
                for row in batch_row(line, names, batch, index, most):
                    left -= len(row.text)
                    yield row
                if left < 0:
                    raise bomb()


def _unpacked_bytes(path: Path) -> int:
    """What the file's pages unpack to, or its values if that is more: one byte may stand for a million equal ones.

    DuckDB is asked: PyArrow 26 ends the whole process where the footer of a damaged file contradicts itself.
    """
    query = f"SELECT sum(greatest(total_uncompressed_size, {VALUE_BYTES} * num_values)) FROM parquet_metadata(?)"
    with duckdb.connect() as connection:
        found = connection.execute(query, [escape(str(path))]).fetchone()
    return int(found[0] or 0) if found else 0


def _open(path: Path) -> pq.ParquetFile:
    """The file, its texts decoded as dictionaries: a long one that every row repeats takes memory once."""
    schema = pq.read_schema(path)
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
    return pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts)
