"""Texts in the student's tokens, as they are stored: which tables hold them, and what is read of a row.

`rules/tokens.py` makes them; a text that has none yet is an error, which names the asset to materialize.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from dasd_resources.errors import UserError
from dasd_resources.storage.lake import Lake

# In SQL, of a row s of such a table, or of its `measured` lengths: the tokens of the text and of its end, and what a
# filter is given (`judge_row`).
TEXT_TOKENS = "s.token_ids[s.num_prompt_tokens + 1 :]"
LENGTH_BY_STUDENT = "s.num_tokens AS num_student_tokens, s.kind AS token_kind, s.reason AS token_reason"
BY_STUDENT = LENGTH_BY_STUDENT.replace("s.num_tokens", "len(s.token_ids)")  # of the table itself


@dataclass(frozen=True)
class TokenTable:
    """A table of texts in the student's tokens, and the column that names the text."""

    name: str
    key: str


OF_RESPONSES = TokenTable("student_tokens", "response_id")
OF_CONTINUATIONS = TokenTable("continuation_tokens", "continuation_id")


class NoTokens(UserError, LookupError):
    """Texts that a table of tokens lacks; the message says what to do."""


def stored_tokens(
    lake: Lake, table: TokenTable, columns: str, student: str, ids: Sequence[str], batch: str | None = None
) -> pl.DataFrame:
    """The key and columns of these texts, in no order. Raises NoTokens if one is lacking.

    columns: in SQL, of the table as s. batch: of all of the texts, where the table has batches.
    """
    scope, params = ("", {}) if batch is None else ("s.batch = $batch AND ", {"batch": batch})
    query = f"""SELECT s.{table.key}, {columns} FROM {table.name} s
        WHERE {scope}s.student_fingerprint = $student AND s.{table.key} IN (SELECT unnest($ids::VARCHAR[]))"""
    found = lake.read(query, {**params, "student": student, "ids": list(ids)})
    require_tokens(found.height, len(ids), table.name)
    return found


def require_tokens(num_found: int, num_wanted: int, table: str) -> None:
    """Raise NoTokens unless as many texts were found in a table of tokens as were wanted."""
    if num_found != num_wanted:
        raise NoTokens(f"{table} has the tokens of {num_found:,} of {num_wanted:,} texts: materialize {table} first")
