"""Rows of an Arrow record batch as JSON texts: what Parquet and Arrow files have in common."""

import json
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa

from dasd_resources.json_text import finite
from dasd_resources.landing.row_files.rows import FileRow, row, unreadable
from dasd_resources.visible_text import excerpt

VALUE_BYTES = 8  # of a decoded value, at least: a bit of a file, or none, may be one
DECODED_RATIO = 16  # what else than texts is in a row may be so many times longer: numbers are, decoded
VIEW_BYTES = 16  # of a view of a text, which begins with its length


def check_names(names: list[str]) -> None:
    """Raises ArrowInvalid where a column stands twice."""
    if len(set(names)) < len(names):
        raise pa.ArrowInvalid(f"two columns have the same name: {excerpt(names)}")


def batch_row(line: int, names: list[str], batch: pa.RecordBatch, index: int, most: int) -> Iterator[FileRow]:
    """One row, or nothing if it is blank; it is measured before it is decoded."""
    texts, others = _decoded_bytes(batch, index)
    if texts > most or others > DECODED_RATIO * most:
        message = f"row has {texts + others} bytes, at most {most} are accepted"
        yield unreadable(line, "row_too_long", message)
        return
    try:
        found = {name: column[index].as_py() for name, column in zip(names, batch.columns, strict=True)}
        content = json.dumps(finite(found), ensure_ascii=False, allow_nan=False, default=_text).encode()
    except (ValueError, TypeError, OverflowError) as error:
        yield unreadable(line, "invalid_json", f"row has no JSON form: {error}")
    else:
        yield from row(line, content, len(content), most)


def _text(value: object) -> str:
    """Text for times and decimals, which JSON lacks. Raises TypeError for any other type."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, Decimal | timedelta):
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _decoded_bytes(batch: pa.RecordBatch, index: int) -> tuple[int, int]:
    """Of a row in memory: those of its texts, which the dictionaries hold, and those of everything else."""
    texts = [column[index].value for column in batch.columns if pa.types.is_dictionary(column.type)]
    others = [column.slice(index, 1) for column in batch.columns if not pa.types.is_dictionary(column.type)]
    return sum(map(_text_bytes, texts)), sum(map(decoded_bytes, others))


def _text_bytes(value: pa.Scalar) -> int:
    is_text = hasattr(value, "as_buffer")
    return (value.as_buffer().size if is_text else VALUE_BYTES) if value.is_valid else 0


def decoded_bytes(array: pa.Array) -> int:
    """What an array comes to in memory when it is decoded, at least VALUE_BYTES a value."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return decoded_bytes(array.storage)
    if pa.types.is_struct(kind):
        return VALUE_BYTES * len(array) + sum(map(decoded_bytes, array.flatten()))
    if pa.types.is_map(kind):
        start, end = (array.offsets[index].as_py() for index in (0, -1))
        return sum(decoded_bytes(part.slice(start, end - start)) for part in (array.keys, array.items))
    if pa.types.is_nested(kind):
        return VALUE_BYTES * len(array) + decoded_bytes(array.flatten())
    if kind in (pa.string_view(), pa.binary_view()):
        return VALUE_BYTES * len(array) + _viewed_bytes(array)
    return max(int(array.nbytes), VALUE_BYTES * len(array))


def _viewed_bytes(array: pa.Array) -> int:
    """Of all texts of an array of views, which may be views of the same one."""
    views = array.buffers()[1]
    if views is None or not len(array):
        return 0
    words = np.frombuffer(views, np.int32)[:: VIEW_BYTES // 4][array.offset : array.offset + len(array)]
    return int(np.maximum(words, 0, dtype=np.int64).sum())
