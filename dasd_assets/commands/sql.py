"""`dasd sql`: one read-only query of the home's tables."""

import argparse

import polars as pl

from dasd_resources.errors import UserError
from dasd_resources.json_text import json_text
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.sql_sandbox import select
from dasd_resources.visible_text import show


class NotPrintable(UserError):
    """A value of the result has no form in Python; the message says what to cast."""


def command(args: argparse.Namespace) -> int:
    """Print the result as a table, or as JSON."""
    lake = Lake(home=str(args.home))
    lake.require()
    table = select(lake.catalog, args.query.encode("utf-8", "replace").decode(), at=args.at)
    try:
        show(json_text(table.to_dicts()) if args.json else _text(table))
    except (ValueError, OverflowError, pl.exceptions.PanicException) as error:
        raise NotPrintable(
            f"a value cannot be shown, a time beyond the year 9999 perhaps: cast it ({error})"
        ) from error
    return 0


def _text(table: pl.DataFrame) -> str:
    table = table.with_columns(pl.col(pl.String).str.replace_all("\n", "\\n", literal=True))  # a row is one line
    with pl.Config(tbl_rows=200, tbl_cols=-1, fmt_str_lengths=80, tbl_width_chars=160):
        return str(table)
