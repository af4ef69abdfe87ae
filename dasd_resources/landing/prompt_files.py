"""Landed prompt files -> prompts and rejected rows with reasons.

A row is an object. `question` is required; `domain` (default "general"), `system_prompt`, `reference_answer`,
`verifier` and `metadata` (an object, or a string holding one, as Parquet files have it) are optional, null meaning
absent; a reference answer may be a number. Other keys, an `id` say, are kept in the metadata. Where the recipe maps a
file's columns (columns.py), that is how its rows are after the mapping. Rows are streamed; finding duplicates takes
up to 370 bytes of memory each. Left out: duplicates across files, which only the warehouse can tell.
"""

import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from dasd_resources.json_text import MAX_DEPTH, depth, no_constant, unique
from dasd_resources.landing.columns import UnmappableRow, mapped, without_question
from dasd_resources.landing.question_identity import question_key
from dasd_resources.landing.rejections import DUPLICATES, RejectedPrompt, RejectionKind
from dasd_resources.landing.row_files.formats import SUFFIXES, read_rows
from dasd_resources.landing.row_files.rows import MAX_RESPONSE_ROW_BYTES, MAX_ROW_BYTES, DamagedFile, FileRow, limited
from dasd_resources.recipe.landing_settings import Columns, columns_for
from dasd_resources.verifiers.catalogue import known_verifier, needs_reference, reference_fault, unknown_verifier
from dasd_resources.verifiers.judgement import Asked
from dasd_resources.visible_text import excerpt

MAX_REJECTED = 100_000  # rows of a file, if they are also most of it: each takes 10 microseconds and 600 bytes
# Marks in a row over one letter. Unicode's composition takes the square of their number: 80,000 marks took 7 s, and a
# row has room for six times as many. Unicode's own stream-safe form allows 30.
MAX_MARKS = 1000
MARKS_WITHOUT_CLASS = "\u0f73\u0f75\u0f81"  # not marks themselves, but composed of two
Rows = tuple[int, int | None]  # the first of a file's rows, from 0, and the one after the last; None: to its end
TEXT_KEYS = ("question", "domain", "system_prompt", "reference_answer", "verifier")
NO_DOMAIN = "general"  # of a row that names none
_INSTEAD_OF_EMPTY = {
    "question": "write the question, or remove the row",
    "domain": f'leave the key out, or write null, for "{NO_DOMAIN}"',
    "system_prompt": "leave the key out, or write null, for the model's own system prompt",
    "reference_answer": "leave the key out, or write null, where there is none",
    "verifier": "leave the key out, or write null, where nothing is to be verified",
}


@dataclass(frozen=True)
class Prompt:
    """A question to distil, as one line has it; texts are verbatim, `metadata` is a JSON object with sorted keys.

    prompt_id: the question's key; where it is in `prompts` already, it keeps the id that it has there.
    """

    prompt_id: str
    domain: str
    question: str
    reference_answer: str | None
    verifier: str | None
    system_prompt: str | None
    metadata: str
    source_file: str
    source_line: int


class InvalidRow(ValueError):
    """A row that is not a prompt: the code of its rejection, and a message."""

    def __init__(self, kind: RejectionKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


Fields = Mapping[str, object]
QuestionPart = Callable[[Fields, Columns | None], Fields | None]
Seen = dict[bytes, tuple[int, tuple[int, ...]]]  # a question's key -> its first line, and what is said of it


def mapped_row(row: Fields, columns: Columns | None) -> Fields:
    """The row as the recipe maps it; what was JSON within a text may be too deep only now. Raises InvalidRow."""
    if columns is None:
        return row
    try:
        ours = mapped(columns, row)
    except UnmappableRow as error:
        raise InvalidRow("invalid_field", f"landing.columns: {error}") from None
    if depth(ours) > MAX_DEPTH:
        raise InvalidRow("invalid_field", f"landing.columns: the row is nested more than {MAX_DEPTH} deep")
    return ours


def read_prompts(
    path: Path,
    name: str | None = None,
    mappings: Sequence[Columns] = (),
    part: QuestionPart = mapped_row,
    max_row_bytes: int = MAX_ROW_BYTES,
    may_repeat: bool = False,
    rows: Rows | None = None,
) -> Iterator[Prompt | RejectedPrompt]:
    """One record per non-blank row, in file order; a damaged or empty file ends with one record of line 0.

    name: of the source file, if `path` is a copy of it. mappings: of the recipe; the first that fits the name counts.
    part: of a row what is its question, None where it has none: such a row gives no record. may_repeat: nor does one
    whose question an earlier row has, instead of a rejection, unless it says something else of it. rows: the only ones
    that are read; None: all.
    Raises OSError only where the system, not the file's content, is at fault.
    """
    name, line, rejected = readable_name(name or path.name), 0, 0
    columns = columns_for(mappings, name)
    seen: Seen = {}
    try:
        for number, row in enumerate(_rows_until(path, max_row_bytes, rows)):
            line = row.line
            if rows is not None and number < rows[0]:
                continue
            for record in _records(name, row, seen, columns, part, may_repeat):
                yield record
                rejected += isinstance(record, RejectedPrompt) and record.kind not in DUPLICATES
            if rejected > max(MAX_REJECTED, len(seen)):
                raise DamagedFile(f"{rejected} rows are no prompts, most of the file so far; correct it, land it again")
    except DamagedFile as error:
        yield RejectedPrompt(name, 0, "damaged_file", f"file is damaged after line {line}: {error}")
    else:
        if line == 0:
            yield RejectedPrompt(name, 0, "empty_file", "file is empty")


def _rows_until(path: Path, most: int, rows: Rows | None) -> Iterator[FileRow]:
    """A file's rows up to the last that is wanted, of a part as it was counted (`file_parts`): with the largest limit.

    With a smaller one, a record of a `.csv` file on several lines would be no row, but the end of the file.
    """
    if rows is None:
        return read_rows(path, most)
    return (limited(row, most) for row in islice(read_rows(path, MAX_RESPONSE_ROW_BYTES), rows[1]))


def first_rows(path: Path, most: int) -> list[dict[str, object]]:
    """The first rows of a file that can be read, as it has them."""
    found = []
    with suppress(DamagedFile):  # what precedes the damage will do; `read_prompts` reports it
        for row in islice(read_rows(path), most):
            with suppress(InvalidRow, RecursionError):
                found += [] if row.unreadable else [_object(row.text)]
    return found


def safe_stem(name: str) -> str:
    """A file's name without its suffix, in [A-Za-z0-9._-], at most 64 characters: the start of its batch key."""
    stem = name.removesuffix(next((s for s in SUFFIXES if name.endswith(s)), Path(name).suffix))
    safe = re.sub(r"[^A-Za-z0-9._-]|\.(?=\.)", "_", stem)  # Dagster forbids "..." in a partition key
    return safe[:64].lstrip("-.") or "batch"


def readable_name(name: str) -> str:
    """A file's name as it is stored: of bytes that are no text, U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def row_object(row: FileRow) -> dict[str, object]:
    """The row's JSON object. Raises InvalidRow."""
    if row.unreadable:
        raise InvalidRow(row.unreadable.kind, row.unreadable.message)
    return _object(row.text)


def _records(
    name: str, row: FileRow, seen: Seen, columns: Columns | None, part: QuestionPart, may_repeat: bool
) -> Iterator[Prompt | RejectedPrompt]:
    """The row's prompt or rejection, if it has a question; `seen` gains the prompt's id."""
    try:
        found = row_object(row)
        question = part(found, columns)
        if question is None:
            return
        prompt = prompt_of(name, row.line, question, found, columns)
        key, said = bytes.fromhex(prompt.prompt_id), _said(prompt.domain, prompt.reference_answer, prompt.verifier)
        first, known = seen.get(key, (row.line, said))
        if first != row.line and may_repeat and all(one in (0, other) for one, other in zip(said, known, strict=True)):
            return
        seen[key] = first, tuple(other or one for one, other in zip(said, known, strict=True))
        if first != row.line:
            message = f"duplicate of prompt {prompt.prompt_id} (line {first})"
            yield RejectedPrompt(name, row.line, "duplicate_line", message, prompt.prompt_id, line=prompt)
            return
    except InvalidRow as error:
        yield RejectedPrompt(name, row.line, error.kind, str(error))
    except RecursionError:
        yield RejectedPrompt(name, row.line, "invalid_json", f"row is nested too deeply: {excerpt(row.text)}")
    else:
        yield prompt


def _said(domain: str, reference_answer: str | None, verifier: str | None) -> tuple[int, ...]:
    """What a row says of its question, 0 where nothing; hashes, as references may be long."""
    given = (None if domain == NO_DOMAIN else domain, reference_answer, verifier)
    return tuple(0 if one is None else hash(one) for one in given)


def _object(text: str, kind: RejectionKind = "invalid_json") -> dict[str, object]:
    """A JSON object without repeated keys, NaN or infinity. Raises InvalidRow with code `kind` for anything else."""
    try:
        value = json.loads(text, object_pairs_hook=unique, parse_constant=no_constant)
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}: {excerpt(text)}"
        raise InvalidRow(kind, message) from None
    except ValueError as error:
        raise InvalidRow(kind, f"{error}: {excerpt(text)}") from None
    if not isinstance(value, dict):
        raise InvalidRow(kind, f"not a JSON object: {excerpt(text)}")
    if text.count("[") + text.count("{") > MAX_DEPTH and depth(value) > MAX_DEPTH:
        raise InvalidRow(kind, f"nested more than {MAX_DEPTH} deep: {excerpt(text)}")
    return value


def prompt_of(name: str, line: int, row: Fields, found: Fields, columns: Columns | None) -> Prompt:
    """The prompt of a row. found: the row as it landed, for messages. Raises InvalidRow."""
    question, domain, system_prompt, reference_answer, verifier = (_text(row, key) for key in TEXT_KEYS)
    if question is None:
        raise InvalidRow("missing_question", without_question(columns, found))
    domain, metadata = domain or NO_DOMAIN, _metadata(row)
    if verifier is not None:
        check_verifier(verifier, question, reference_answer, metadata)
    identity = question_key(question, system_prompt)
    return Prompt(identity, domain, question, reference_answer, verifier, system_prompt, metadata, name, line)


def _text(row: Mapping[str, object], key: str) -> str | None:
    value = _as_text(row.get(key)) if key == "reference_answer" else row.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise InvalidRow("invalid_field", f"{key} must be a string, found {excerpt(value)}")
    if not value.strip():
        raise InvalidRow("invalid_field", f"{key} is empty: {excerpt(value)}; {_INSTEAD_OF_EMPTY[key]}")
    if "\0" in value:
        raise InvalidRow("invalid_field", f"{key} holds a NUL character: {excerpt(value)}; remove it")
    if any(_num_marks(part[0]) > MAX_MARKS for part in _LONG_RUN.finditer(value)):
        raise InvalidRow("invalid_field", f"{key} holds more than {MAX_MARKS} marks in a row: {excerpt(value)}")
    return _storable(key, value)


def _as_text(value: object) -> object:
    """A JSON number as text, one for 27 and 27.0; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return value
    return str(int(value)) if isinstance(value, int) or (value.is_integer() and abs(value) < 2**53) else repr(value)


_LONG_RUN = re.compile(f"[\u0300-\U0010ffff]{{{MAX_MARKS},}}")  # what holds too many marks is one of these


def _num_marks(text: str) -> int:
    """The most combining marks in a row."""
    most = run = 0
    for character in text:
        run = run + 1 if unicodedata.combining(character) or character in MARKS_WITHOUT_CLASS else 0
        most = max(most, run)
    return most


def _storable(key: str, value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        message = f"{key} holds a lone surrogate at character {error.start}: {excerpt(value)}; replace it"
        raise InvalidRow("invalid_field", message) from None
    return value


def _metadata(row: Mapping[str, object]) -> str:
    """Canonical JSON of the metadata and the row's other keys."""
    value = row.get("metadata")
    metadata = _object(value, "invalid_field") if isinstance(value, str) else {} if value is None else value
    if not isinstance(metadata, dict):
        raise InvalidRow("invalid_field", f"metadata must be an object, found {excerpt(value)}")
    others = {k: v for k, v in row.items() if k not in (*TEXT_KEYS, "metadata") and v is not None}
    if clash := sorted(others.keys() & metadata.keys()):
        raise InvalidRow("invalid_field", f"keys both in the row and in its metadata: {excerpt(clash)}; remove one")
    try:
        canonical = json.dumps(
            others | metadata, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
        )
    except ValueError:
        raise InvalidRow("invalid_field", f"metadata holds a number too large for JSON: {excerpt(value)}") from None
    return _storable("metadata", canonical)


def check_verifier(verifier: str, question: str, reference_answer: str | None, metadata: str) -> None:
    """Raise InvalidRow unless the verifier can judge answers by what is known of the question."""
    if not known_verifier(verifier):
        raise InvalidRow("unknown_verifier", unknown_verifier(verifier))
    if reference_answer is None and needs_reference(verifier):
        raise InvalidRow(
            "missing_reference", f"verifier {verifier} needs a reference_answer; add it, or leave the verifier out"
        )
    if fault := reference_fault(verifier, Asked(question, reference_answer or "", metadata)):
        raise InvalidRow("invalid_reference", fault)
