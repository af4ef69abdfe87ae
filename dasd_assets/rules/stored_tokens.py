"""Texts in the student's tokens, as they are stored: which tables hold them, and what is read of a row.

`rules/tokens.py` makes them; a text that has none yet is an error, which names the asset to materialize.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import polars as pl

from dasd_resources.errors import UserError
from dasd_resources.storage.lake import Lake, Row
from dasd_resources.storage.passes import ROWS_OF_OBJECTS

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


def stored_tokens(lake: Lake, columns: str, student: str, ids: Sequence[str]) -> pl.DataFrame:
    """The response_id and columns of these responses, in no order. Raises NoTokens if one is lacking."""
    query = f"""SELECT response_id, {columns} FROM student_tokens
        WHERE student_fingerprint = $student AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""
    found = lake.read(query, {"student": student, "ids": list(ids)})
    require_tokens(found.height, len(ids), OF_RESPONSES.name)
    return found


def rows_with_tokens(parts: Iterable[pl.DataFrame], table: TokenTable) -> Iterator[Row]:
    """The rows of all parts, few at a time as Python objects. Raises NoTokens if one lacks `has_tokens`."""
    for part in parts:
        require_tokens(part["has_tokens"].count(), part.height, table.name)
        yield from part.drop("has_tokens").iter_rows(named=True, buffer_size=ROWS_OF_OBJECTS)


def require_tokens(num_found: int, num_wanted: int, table: str) -> None:
    """Raise NoTokens unless as many texts were found in a table of tokens as were wanted."""
    if num_found != num_wanted:
        raise NoTokens(f"{table} has the tokens of {num_found:,} of {num_wanted:,} texts: materialize {table} first")
