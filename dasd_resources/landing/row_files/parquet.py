"""Rows of a Parquet file as JSON texts; memory is bounded by a page of it."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dasd_resources.landing.row_files.record_batches import VALUE_BYTES, batch_row, check_names
from dasd_resources.landing.row_files.rows import FileRow, bomb, most_unpacked

PARQUET_BATCH = 256  # rows decoded at a time; small, as a row may be as large as MAX_ROW_BYTES


def parquet_rows(path: Path) -> Iterator[FileRow]:
    """The rows in order. Raises DamagedFile, ArrowException or OSError where the file breaks off or is a bomb."""
    line = 0
    with _open(path) as file:
        names = file.schema_arrow.names
        check_names(names)
        left = most_unpacked(path)
        if max(_unpacked_bytes(file.metadata), file.metadata.num_rows) > left:
            raise bomb()
        for batch in file.iter_batches(batch_size=PARQUET_BATCH):
            for index in range(batch.num_rows):
                line += 1
                for row in batch_row(line, names, batch, index):
                    left -= len(row.text)
                    yield row
                if left < 0:
                    raise bomb()


def _unpacked_bytes(footer: pq.FileMetaData) -> int:
    """What the file's pages unpack to, or its values if that is more: one byte may stand for a million equal ones."""
    groups = [footer.row_group(index) for index in range(footer.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    return sum(max(c.total_uncompressed_size, VALUE_BYTES * c.num_values) for c in columns)


def _open(path: Path) -> pq.ParquetFile:
    """The file, its texts decoded as dictionaries: a long one that every row repeats takes memory once."""
    schema = pq.read_schema(path)
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_binary(field.type)]
    return pq.ParquetFile(path, page_checksum_verification=True, read_dictionary=texts)
