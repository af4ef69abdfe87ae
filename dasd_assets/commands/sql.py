"""`dasd sql`: one read-only query of the home's tables, as a table, as JSON, or as a file.

Each is made of a part of the result at a time. A JSON array is printed as it is read, and closed where all was read.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from rich.cells import cell_len

from dasd_assets.records.wording import number_of
from dasd_resources.errors import UserError
from dasd_resources.json_text import json_text
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.sql_sandbox import selecting
from dasd_resources.visible_text import show, show_message

ROWS_SHOWN = 200
NUM_ROWS = 2048  # of a part of the result: DuckDB's own vectors
ROW_GROUP_BYTES = 2**26
SHORTEST = 16  # characters of a text that is cut; a table that is wider even so is folded by polars


class NotPrintable(UserError):
    """A value of the result has no form in Python; the message says what to cast."""


def command(args: argparse.Namespace) -> int:
    """Print the result as a table or as JSON, or write it to a file."""
    lake = Lake(home=str(args.home))
    lake.require()
    selected = selecting(lake.catalog, args.query.encode("utf-8", "replace").decode(), args.at)
    if args.csv or args.parquet:
        _write(selected, Path(args.csv or args.parquet), _write_csv if args.csv else _write_parquet)
    elif args.json:
        with selected as found, _printable():
            end = _show_json(found.to_arrow_reader(NUM_ROWS))
        show(end)
    else:
        with selected as found, _printable():
            rows, num_rows = _ends(found.to_arrow_reader(NUM_ROWS))
        with _printable():
            _show(rows, num_rows, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    return 0


@contextmanager
def _printable() -> Iterator[None]:
    try:
        yield
    except (ValueError, OverflowError, pl.exceptions.PanicException, pl.exceptions.ComputeError) as error:
        raise NotPrintable(
            f"a value cannot be shown, a time beyond the year 9999 perhaps: cast it ({error})"
        ) from error


def _write(
    selected: AbstractContextManager[duckdb.DuckDBPyRelation],
    file: Path,
    write: Callable[[pa.RecordBatchReader, Path], int],
) -> None:
    """The whole result in a file, which is complete or the one that was there before."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with selected as found, _printable():
            num_rows = write(found.to_arrow_reader(NUM_ROWS), unfinished)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    show_message(f"{number_of(num_rows, 'row')} in {file}", sys.stderr)


def _parts(reader: pa.RecordBatchReader) -> Iterator[pl.DataFrame]:
    """The rows part by part, after a part without any, which has the columns."""
    yield pl.DataFrame(reader.schema.empty_table())
    yield from map(pl.DataFrame, reader)


def _show_json(reader: pa.RecordBatchReader) -> str:
    """Print the rows of a JSON array; returns its end."""
    begun = False
    for part in _parts(reader):
        if part.height:
            show(f"{', ' if begun else '['}{json_text(part.to_dicts())[1:-1]}", end="")
            begun = True
    return "]" if begun else "[]"


def _write_csv(reader: pa.RecordBatchReader, file: Path) -> int:
    """CSV has no lists, structs or bytes: these become JSON, or hexadecimal digits, in one cell."""
    num_rows = 0
    with file.open("wb") as written:
        for number, part in enumerate(_parts(reader)):
            nested = [name for name, kind in part.schema.items() if kind.is_nested()]
            cells = [
                pl.Series(name, [None if v is None else json_text(v) for v in part[name].to_list()], pl.String)
                for name in nested
            ]
            flat = part.with_columns(*cells, pl.col(pl.Binary).bin.encode("hex"))
            flat.write_csv(written, include_header=number == 0)
            num_rows += part.height
    return num_rows


def _write_parquet(reader: pa.RecordBatchReader, file: Path) -> int:
    """Row groups are of like size, however long the rows are."""
    num_rows, size, group = 0, 0, list[pa.RecordBatch]()
    with pq.ParquetWriter(file, reader.schema, compression="zstd") as writer:
        for batch in reader:
            group.append(batch)
            num_rows, size = num_rows + batch.num_rows, size + batch.nbytes
            if size >= ROW_GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(group))
                size, group = 0, []
        if group:
            writer.write_table(pa.Table.from_batches(group))
    return num_rows


def _ends(reader: pa.RecordBatchReader) -> tuple[pl.DataFrame, int]:
    """The first and last rows of a result, one more than is shown of a longer one, and how many there are in all."""
    parts, num_rows, half = _parts(reader), 0, ROWS_SHOWN // 2
    ends = next(parts)
    for part in parts:
        ends = pl.concat([ends, part])
        if ends.height > ROWS_SHOWN:
            ends = pl.concat([ends.head(half + 1), ends.tail(half)])
        num_rows += part.height
    return ends, num_rows


def _show(table: pl.DataFrame, num_rows: int, width: int | None) -> None:
    """The first rows and the last, each text as long as there is room for; says what is not shown whole.

    table: `_ends` of a result of that many rows.
    """
    lines = table.with_columns(pl.col(pl.String).str.replace_all("\n", "\\n", literal=True))  # a row is one line
    lengths = lines.select(pl.col(pl.String).str.len_chars().max()).rows()
    longest = max([*(length or 0 for row in lengths for length in row), *map(len, lines.columns)])  # names are cut, too
    length = longest if width is None or _fits(lines, longest, width) else _longest_that_fits(lines, longest, width)
    show(f"shape: ({num_rows:_}, {table.width:_})\n{_text(lines, length, width)}")
    missing = [f"texts end after {length} characters"] if length < longest else []
    missing += [f"{ROWS_SHOWN} of {num_rows:,} rows are shown"] if num_rows > ROWS_SHOWN else []
    if missing:
        show_message(f"{'; '.join(missing)}: --csv FILE, --parquet FILE or --json has all", sys.stderr)


def _longest_that_fits(table: pl.DataFrame, longest: int, width: int) -> int:
    """How many characters of each text the terminal has room for; at least SHORTEST."""
    fits, too_long = SHORTEST, longest
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if _fits(table, middle, width) else (fits, middle)
    return fits


def _fits(table: pl.DataFrame, length: int, width: int) -> bool:
    return max(map(cell_len, _text(table, length).splitlines())) <= width


def _text(table: pl.DataFrame, length: int, width: int | None = None) -> str:
    """As a table. length: of its texts, width: of its lines, in characters."""
    with pl.Config(
        tbl_rows=ROWS_SHOWN,
        tbl_cols=-1,
        fmt_str_lengths=max(length, 1),
        tbl_width_chars=width or -1,
        tbl_hide_dataframe_shape=True,
    ):
        return str(table)
