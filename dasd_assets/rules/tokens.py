"""A text in the student's tokens: made once, by this rule; its length is counted, it is scored and trained on in them.

A row holds the whole sequence (prompt, text, end of turn), or why the student cannot be asked the question, which no
later attempt would change. It is never made again under the same student: log-probabilities belong to its tokens.
"""

from collections.abc import Iterable

import polars as pl

from dasd_assets.rules.rule import Rule
from dasd_resources.chat import Chat, UnsupportedQuestion
from dasd_resources.storage.lake import Row

# Tokens and the log-probabilities that belong to them are made once for each fingerprint of the student: raising the
# version makes no stored row again. What changes the encoding must change the fingerprint.
TOKENS_VERSION = "1"
TOKENS = Rule("student tokens", TOKENS_VERSION)
_IDS = pl.List(pl.Int32)
_COLUMNS = {
    "num_prompt_tokens": pl.Int32(),
    "token_ids": _IDS,
    "offsets": _IDS,
    "kind": pl.String(),
    "reason": pl.String(),
}


def tokens_of(chat: Chat, source: Row) -> Row:
    """The columns of a text in the student's tokens, or of why there are none.

    source: question, text, system_prompt (or None).
    """
    try:
        encoded = chat.encode_response(source["question"], source["text"], source["system_prompt"])
    except UnsupportedQuestion as error:
        return {**dict.fromkeys(_COLUMNS), "kind": "unsupported_question", "reason": str(error)}
    lists = {"token_ids": encoded.token_ids, "offsets": encoded.offsets}
    return {"num_prompt_tokens": encoded.num_prompt_tokens, **lists, "kind": None, "reason": None}


def token_table(chat: Chat, sources: Iterable[Row], key: str) -> pl.DataFrame:
    """The key and `tokens_of` of several texts, a row each.

    The lists become 32-bit integers one text at a time: as Python objects they take ten times as much.
    """
    ids: list[str] = []
    columns: dict[str, list[object]] = {name: [] for name in _COLUMNS}
    for source in sources:
        ids.append(source[key])
        for name, value in tokens_of(chat, source).items():
            columns[name].append(pl.Series(value, dtype=pl.Int32) if isinstance(value, list) else value)
    made = {name: pl.Series(name, values, dtype=_COLUMNS[name]) for name, values in columns.items()}
    return pl.DataFrame({key: pl.Series(key, ids, dtype=pl.String()), **made})
