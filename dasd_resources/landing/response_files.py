"""Landed files -> responses to their questions, and token logprobs of responses, landed with them or by themselves.

A row has a question with its response (`conversations` lists the shapes), or it is a companion's: `sample_uuid`,
`token_ids` and `logprobs`, without a question or a response. Of a response a row may say:

    sample_uuid (or uuid, id)   by which a companion names it
    temperature, sample_index   how it was sampled; which of the question's samples it is (numbers, or texts of them)
    finish_reason               `stop` (the default) or `length`
    token_ids, logprobs         the teacher's tokens of it, the last one that ended it included, and one natural
                                log-probability at temperature 1 for each
    responses                   a list of texts, or of objects with `response` and these keys

Rows are streamed. The row's other keys are its question's, as in a prompt file. Left out: whether token ids say the
text, which only the teacher's tokenizer can tell (`rules.imports`).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dasd_resources.content_hash import content_hash
from dasd_resources.landing.conversations import HOLD_RESPONSES, with_question, without_published
from dasd_resources.landing.prompt_files import (
    Fields,
    InvalidRow,
    Prompt,
    Rows,
    mapped_row,
    prompt_of,
    read_prompts,
    readable_name,
    row_object,
)
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.landing.response_rejections import InvalidResponse, RejectedResponse
from dasd_resources.landing.row_files.formats import read_rows
from dasd_resources.landing.row_files.rows import MAX_RESPONSE_ROW_BYTES, DamagedFile
from dasd_resources.recipe.landing_settings import Columns, columns_for
from dasd_resources.visible_text import excerpt

TOKENS = ("token_ids", "logprobs")
OF_A_RESPONSE = ("response", "sample_uuid", "uuid", "temperature", "sample_index", "finish_reason", *TOKENS)
FINISH_REASONS = ("stop", "length")
CONTINUATION = "continuation"  # `origin` of a published row of the mixed-policy stage
MAX_LOGPROB = 1e-4  # a certain token's is 0, which arithmetic may miss by so much (`inference.engine.check_logprobs`)
LEAST_LOGPROB = -3.4028234e38  # that the column holds, as float32
MAX_TOKEN_ID = 2**31 - 1


@dataclass(frozen=True)
class Logprobs:
    """The teacher's tokens of a response and their log-probabilities, of one length; sample: which response's."""

    sample: str
    source_file: str
    source_line: int
    item: int
    token_ids: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class LandedResponse:
    """A response as it was landed; text is verbatim.

    sample: what its logprobs are stored under: its `sample_uuid`, or its own id where it has none, or has them in its
    row. temperature, sample_index: None where the row names none.
    """

    landed_id: str
    prompt_id: str
    sample: str
    sample_uuid: str | None
    source_file: str
    source_line: int
    item: int
    text: str
    temperature: float | None
    sample_index: int | None
    finish_reason: str


Landed = LandedResponse | Logprobs | RejectedResponse


def read_questions(
    path: Path, name: str, mappings: Sequence[Columns] = (), rows: Rows | None = None
) -> Iterator[Prompt | RejectedPrompt]:
    """`read_prompts` of a file that brings responses: they are no part of the prompts' metadata.

    A question that stands in several rows, with another response each, is a duplicate line only where the row says
    something of it that the rows before do not: a domain, a reference answer or a verifier.
    """
    return read_prompts(path, name, mappings, question_part, MAX_RESPONSE_ROW_BYTES, True, rows)


def question_part(row: Fields, columns: Columns | None) -> Fields | None:
    """Of a row what is its question, as the recipe maps it; None of a companion's. Raises InvalidRow."""
    if is_companion(row):
        return None
    whole = without_published(with_question(row)) if columns is None else mapped_row(row, columns)
    held = () if columns is None else HOLD_RESPONSES
    return {key: value for key, value in whole.items() if key not in (*OF_A_RESPONSE, "responses", *held)}


def is_companion(row: Fields) -> bool:
    """Whether a row holds the logprobs of a response that landed elsewhere."""
    named = {key for key, value in row.items() if value is not None}
    of_a_question = {"question", "messages", "conversations", "instruction", "input", "prompt", "response", "responses"}
    return named >= {"sample_uuid", *TOKENS} and not named & of_a_question


def read_responses(
    path: Path, name: str, mappings: Sequence[Columns] = (), rows: Rows | None = None
) -> Iterator[Landed]:
    """What the rows of a file bring, in file order; rows that are no questions are left to `read_questions`.

    rows: the only ones that are read; None: all.

    Raises OSError only where the system, not the file's content, is at fault.
    """
    name = readable_name(name)
    columns = columns_for(mappings, name)
    try:
        for row in islice(read_rows(path, MAX_RESPONSE_ROW_BYTES), *(rows or (None,))):
            try:
                fields = row_object(row)
                yield from (
                    _companion(name, row.line, fields)
                    if is_companion(fields)
                    else _row(name, row.line, fields, columns)
                )
            except (InvalidRow, RecursionError):
                continue
    except DamagedFile:
        return


def _companion(name: str, line: int, row: Fields) -> Iterator[Landed]:
    try:
        if (sample := _uuid(row)) is None:
            raise InvalidResponse("invalid_logprobs", "sample_uuid is empty: it must name their response")
        yield _logprobs(row, sample, name, line, 0)
    except InvalidResponse as error:
        yield RejectedResponse(name, line, 0, error.kind, str(error))


def _row(name: str, line: int, row: Fields, columns: Columns | None) -> Iterator[Landed]:
    """The responses of a row, each with its logprobs behind it, if it has any. Raises InvalidRow."""
    question = question_part(row, columns)
    assert question is not None, "it is no companion's"
    prompt = prompt_of(name, line, question, row, columns)
    try:
        items = _items(with_question(row))
    except InvalidRow as error:  # the recipe's mapping reads a question in what is no conversation of one turn
        yield RejectedResponse(name, line, 0, "invalid_response", str(error))
        return
    except InvalidResponse as error:
        yield RejectedResponse(name, line, 0, error.kind, str(error))
        return
    for item, fields in enumerate(items):
        try:
            yield from _response(prompt, item, fields)
        except InvalidResponse as error:
            yield RejectedResponse(name, line, item, error.kind, str(error))


def _items(row: Fields) -> list[Fields]:
    """The fields of each response of a row."""
    if (several := row.get("responses")) is None:
        if row.get("response") is None:
            raise InvalidResponse("missing_response", "the row has a question, and no response to it")
        return [row]
    if not isinstance(several, list) or not several or row.get("response") is not None:
        found = excerpt(several)
        raise InvalidResponse(
            "invalid_response", f"responses must be a list of some, beside which there is no response; found {found}"
        )
    shared = {key: row[key] for key in ("temperature", "finish_reason") if key in row}
    return [{**shared, **(one if isinstance(one, dict) else {"response": one})} for one in several]


def _response(prompt: Prompt, item: int, row: Fields) -> Iterator[Landed]:
    """A response, and its logprobs where they are in the same row."""
    if row.get("origin") == CONTINUATION:
        raise InvalidResponse(
            "invalid_response", "a continuation, which a student began, is no response of the teacher"
        )
    text, uuid = _text("response", row.get("response")), _uuid(row)
    temperature, index = _temperature(row), _sample_index(row)
    ended = row.get("finish_reason") or "stop"
    if ended not in FINISH_REASONS:
        allowed = " or ".join(FINISH_REASONS)
        raise InvalidResponse("invalid_response", f"finish_reason must be {allowed}, found {excerpt(ended)}")
    landed_id = landed_response_id(prompt.prompt_id, uuid, temperature, str(ended), text)
    has_tokens = any(row.get(key) is not None for key in TOKENS)
    sample = landed_id if uuid is None or has_tokens else uuid
    where = (prompt.source_file, prompt.source_line, item)
    logprobs = [_logprobs(row, sample, *where)] if has_tokens else []
    yield LandedResponse(landed_id, prompt.prompt_id, sample, uuid, *where, text, temperature, index, str(ended))
    yield from logprobs


def landed_response_id(
    prompt_id: str, sample_uuid: str | None, temperature: float | None, finish_reason: str, text: str
) -> str:
    """Identity of a landed response, 32 hex digits, wherever it lands."""
    return content_hash(["landed", prompt_id, sample_uuid, temperature, finish_reason, text])[:32]


def _text(key: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise InvalidResponse("invalid_response", f"{key} must be a text, found {excerpt(value)}")
    if "\0" in value:
        raise InvalidResponse("invalid_response", f"{key} holds a NUL character: {excerpt(value)}; remove it")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        message = f"{key} holds a lone surrogate at character {error.start}: {excerpt(value)}; replace it"
        raise InvalidResponse("invalid_response", message) from None
    return value


def _uuid(row: Fields) -> str | None:
    """What names a response. A whole number may be a float, as a column with gaps has it; an empty text is none."""
    named = (key for key in ("sample_uuid", "uuid", "id") if row.get(key) not in (None, ""))
    if (key := next(named, None)) is None:
        return None
    value = row[key]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return _text(key, str(value) if type(value) is int else value)


def _number(row: Fields, key: str) -> object:
    """A value that should be a number: cells of `.csv` are texts, and a column with gaps has its integers as floats."""
    value = row.get(key)
    if isinstance(value, str):
        with suppress(ValueError, RecursionError):
            parsed = json.loads(value)
            value = parsed if type(parsed) in (int, float) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _temperature(row: Fields) -> float | None:
    value = _number(row, "temperature")
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 2:
        raise InvalidResponse("invalid_response", f"temperature must be above 0, at most 2; found {excerpt(value)}")
    return float(value)


def _sample_index(row: Fields) -> int | None:
    value = _number(row, "sample_index")
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_TOKEN_ID:
        raise InvalidResponse("invalid_response", f"sample_index must be a number from 0; found {excerpt(value)}")
    return value


def _logprobs(row: Mapping[str, object], sample: str, name: str, line: int, item: int) -> Logprobs:
    """Raises InvalidResponse unless there is one finite logprob, not above 0, for each token id."""
    ids, logprobs = row.get("token_ids"), row.get("logprobs")
    if not isinstance(ids, list) or not isinstance(logprobs, list) or not ids:
        raise InvalidResponse("invalid_logprobs", "token_ids and logprobs must both be lists of numbers")
    if len(ids) != len(logprobs):
        raise InvalidResponse("invalid_logprobs", f"{len(ids)} token_ids, but {len(logprobs)} logprobs")
    for position, (token, value) in enumerate(zip(ids, logprobs, strict=True)):
        if type(token) is not int or not 0 <= token <= MAX_TOKEN_ID:
            raise InvalidResponse("invalid_logprobs", f"token id {excerpt(token)} at token {position}")
        # NaN fails the comparison, as do infinities and whole numbers that no float holds.
        if type(value) not in (int, float) or not LEAST_LOGPROB <= value <= MAX_LOGPROB:
            message = f"logprob {excerpt(value)} at token {position} is not a natural log-probability"
            raise InvalidResponse("invalid_logprobs", message)
    return Logprobs(sample, name, line, item, ids, [float(value) for value in logprobs])
