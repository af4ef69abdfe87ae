"""`dasd sql`: one read-only query of the home's tables, as a table, as JSON, or as a file."""

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import polars as pl
from rich.cells import cell_len

from dasd_assets.records.wording import number_of
from dasd_resources.errors import UserError
from dasd_resources.json_text import json_text
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.sql_sandbox import select
from dasd_resources.visible_text import show, show_message

ROWS_SHOWN = 200
SHORTEST = 16  # characters of a text that is cut; a table that is wider even so is folded by polars


class NotPrintable(UserError):
    """A value of the result has no form in Python; the message says what to cast."""


def command(args: argparse.Namespace) -> int:
    """Print the result as a table or as JSON, or write it to a file."""
    lake = Lake(home=str(args.home))
    lake.require()
    table = select(lake.catalog, args.query.encode("utf-8", "replace").decode(), at=args.at)
    try:
        if args.csv or args.parquet:
            _write(table, Path(args.csv or args.parquet), _csv if args.csv else pl.DataFrame.write_parquet)
        elif args.json:
            show(json_text(table.to_dicts()))
        else:
            _show(table, shutil.get_terminal_size().columns if sys.stdout.isatty() else None)
    except (ValueError, OverflowError, pl.exceptions.PanicException, pl.exceptions.ComputeError) as error:
        raise NotPrintable(
            f"a value cannot be shown, a time beyond the year 9999 perhaps: cast it ({error})"
        ) from error
    return 0


def _write(table: pl.DataFrame, file: Path, write: Callable[[pl.DataFrame, Path], None]) -> None:
    """The whole result in a file, which is complete or the one that was there before."""
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        write(table, unfinished)
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
    show_message(f"{number_of(table.height, 'row')} in {file}", sys.stderr)


def _csv(table: pl.DataFrame, file: Path) -> None:
    """CSV has no lists, structs or bytes: these become JSON, or hexadecimal digits, in one cell."""
    nested = [name for name, kind in table.schema.items() if kind.is_nested()]
    cells = [
        pl.Series(name, [None if v is None else json_text(v) for v in table[name].to_list()], pl.String)
        for name in nested
    ]
    table.with_columns(*cells, pl.col(pl.Binary).bin.encode("hex")).write_csv(file)


def _show(table: pl.DataFrame, width: int | None) -> None:
    """The first rows and the last, each text as long as there is room for; says what is not shown whole."""
    lines = table.with_columns(pl.col(pl.String).str.replace_all("\n", "\\n", literal=True))  # a row is one line
    lengths = lines.select(pl.col(pl.String).str.len_chars().max()).rows()
    longest = max([*(length or 0 for row in lengths for length in row), *map(len, lines.columns)])  # names are cut, too
    length = longest if width is None or _fits(lines, longest, width) else _longest_that_fits(lines, longest, width)
    show(_text(lines, length, width))
    missing = [f"texts end after {length} characters"] if length < longest else []
    missing += [f"{ROWS_SHOWN} of {table.height:,} rows are shown"] if table.height > ROWS_SHOWN else []
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
    with pl.Config(tbl_rows=ROWS_SHOWN, tbl_cols=-1, fmt_str_lengths=max(length, 1), tbl_width_chars=width or -1):
        return str(table)
