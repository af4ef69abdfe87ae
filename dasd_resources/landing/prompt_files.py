"""Landed prompt files -> prompts and rejected rows with reasons.

A row is an object. `question` is required; `domain` (default "general"), `system_prompt`, `reference_answer`,
`verifier` and `metadata` (an object, or a string holding one, as Parquet files have it) are optional, null meaning
absent. Other keys, an `id` say, are kept in the metadata. Rows are streamed; finding duplicates takes about 150 bytes
of memory each. Left out: duplicates across files, which only the warehouse can tell.
"""

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from dasd_resources.content_hash import content_hash
from dasd_resources.landing.rejections import RejectedPrompt, RejectionKind
from dasd_resources.landing.row_files import MAX_ROW_BYTES, SUFFIXES, DamagedFile, FileRow, read_rows
from dasd_resources.verifiers import Asked, known_verifier, reference_fault, verifier_names
from dasd_resources.visible_text import excerpt

MAX_REJECTED = 100_000  # rows of a file, if they are also most of it: each takes 10 microseconds and 600 bytes
MAX_DEPTH = 100  # of a row's nested objects and lists
# Marks in a row over one letter. Unicode's composition takes the square of their number: 80,000 marks took 7 s, and a
# row has room for six times as many. Unicode's own stream-safe form allows 30.
MAX_MARKS = 1000
MARKS_WITHOUT_CLASS = "\u0f73\u0f75\u0f81"  # not marks themselves, but composed of two
TEXT_KEYS = ("question", "domain", "system_prompt", "reference_answer", "verifier")
_INSTEAD_OF_EMPTY = {
    "question": "write the question, or remove the row",
    "domain": 'leave the key out, or write null, for "general"',
    "system_prompt": "leave the key out, or write null, for the model's own system prompt",
    "reference_answer": "leave the key out, or write null, where there is none",
    "verifier": "leave the key out, or write null, where nothing is to be verified",
}


@dataclass(frozen=True)
class Prompt:
    """A question to distil; texts are verbatim, `metadata` is a JSON object with sorted keys."""

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
    """A row that is not a prompt: the code of its rejection, a message, and the id of the prompt it repeats, if any."""

    def __init__(self, kind: RejectionKind, message: str, prompt_id: str | None = None) -> None:
        super().__init__(message)
        self.kind, self.prompt_id = kind, prompt_id


QuestionPart = Callable[[Mapping[str, object]], Mapping[str, object] | None]


def read_prompts(
    path: Path,
    name: str | None = None,
    part: QuestionPart = lambda row: row,
    max_row_bytes: int = MAX_ROW_BYTES,
    may_repeat: bool = False,
) -> Iterator[Prompt | RejectedPrompt]:
    """One record per non-blank row, in file order; a damaged or empty file ends with one record of line 0.

    name: of the source file, if `path` is a copy of it. part: of a row what is its question, None where it has none:
    such a row gives no record. may_repeat: nor does one whose question an earlier row has, instead of a rejection.
    Raises OSError only where the system, not the file's content, is at fault.
    """
    name, line, rejected = readable_name(name or path.name), 0, 0
    seen: dict[bytes, int] = {}
    try:
        for row in read_rows(path, max_row_bytes):
            line = row.line
            for record in _records(name, row, seen, part, may_repeat):
                yield record
                rejected += isinstance(record, RejectedPrompt)
            if rejected > max(MAX_REJECTED, len(seen)):
                raise DamagedFile(f"{rejected} rows are no prompts, most of the file so far; correct it, land it again")
    except DamagedFile as error:
        yield RejectedPrompt(name, 0, "damaged_file", f"file is damaged after row {line}: {error}")
    else:
        if line == 0:
            yield RejectedPrompt(name, 0, "empty_file", "file is empty")


def safe_stem(name: str) -> str:
    """A file's name without its suffix, in [A-Za-z0-9._-], at most 64 characters: the start of its batch key."""
    stem = name.removesuffix(next((s for s in SUFFIXES if name.endswith(s)), Path(name).suffix))
    safe = re.sub(r"[^A-Za-z0-9._-]|\.(?=\.)", "_", stem)  # Dagster forbids "..." in a partition key
    return safe[:64].lstrip("-.") or "batch"


def landed_files(folder: Path) -> list[Path]:
    """Complete prompt files of a folder by name: none hidden, partial (.tmp, .part) or linked from outside it."""
    if not folder.is_dir():
        return []
    candidates = (p for p in folder.iterdir() if p.name.endswith(SUFFIXES) and not p.name.startswith("."))
    return sorted(p for p in candidates if p.is_file() and p.resolve().is_relative_to(folder.resolve()))


def prompt_id(
    question: str, system_prompt: str | None, domain: str, verifier: str | None, reference_answer: str | None
) -> str:
    """Identity of a prompt, 32 hex digits; the question counts up to Unicode composition and whitespace.

    Metadata is not part of it: two copies that differ only in a row number are one prompt.
    """
    return content_hash([normalised(question), system_prompt, domain, verifier, reference_answer])[:32]


def normalised(question: str) -> str:
    """A question's text in composed Unicode, with single spaces."""
    return " ".join(unicodedata.normalize("NFC", question).split())


def readable_name(name: str) -> str:
    """A file's name as it is stored: of bytes that are no text, U+FFFD."""
    return os.fsencode(name).decode("utf-8", "replace")


def row_object(row: FileRow) -> dict[str, object]:
    """The row's JSON object. Raises InvalidRow."""
    if row.unreadable:
        raise InvalidRow(row.unreadable.kind, row.unreadable.message)
    return _object(row.text)


def _records(
    name: str, row: FileRow, seen: dict[bytes, int], part: QuestionPart, may_repeat: bool
) -> Iterator[Prompt | RejectedPrompt]:
    """The row's prompt or rejection, if it has a question; `seen` gains the prompt's id."""
    try:
        question = part(row_object(row))
        if question is None:
            return
        prompt = prompt_of(name, row.line, question)
        first = seen.setdefault(bytes.fromhex(prompt.prompt_id), row.line)
        if first != row.line and may_repeat:
            return
        if first != row.line:
            message = f"duplicate of prompt {prompt.prompt_id} (line {first})"
            raise InvalidRow("duplicate_line", message, prompt.prompt_id)
    except InvalidRow as error:
        yield RejectedPrompt(name, row.line, error.kind, str(error), error.prompt_id)
    except RecursionError:
        yield RejectedPrompt(name, row.line, "invalid_json", f"row is nested too deeply: {excerpt(row.text)}")
    else:
        yield prompt


def _object(text: str, kind: RejectionKind = "invalid_json") -> dict[str, object]:
    """A JSON object without repeated keys, NaN or infinity. Raises InvalidRow with code `kind` for anything else."""
    try:
        value = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg.removesuffix(' at')} at column {error.colno}: {excerpt(text)}"
        raise InvalidRow(kind, message) from None
    except ValueError as error:
        raise InvalidRow(kind, f"{error}: {excerpt(text)}") from None
    if not isinstance(value, dict):
        raise InvalidRow(kind, f"not a JSON object: {excerpt(text)}")
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise InvalidRow(kind, f"nested more than {MAX_DEPTH} deep: {excerpt(text)}")
    return value


def _depth(value: object) -> int:
    """How many objects and lists are within each other, at most."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [part for one in level for part in (one.values() if isinstance(one, dict) else one)]
    return depth


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"duplicate key {excerpt(key)}")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def prompt_of(name: str, line: int, row: Mapping[str, object]) -> Prompt:
    """The prompt of a row. Raises InvalidRow."""
    question, domain, system_prompt, reference_answer, verifier = (_text(row, key) for key in TEXT_KEYS)
    if question is None:
        raise InvalidRow(
            "missing_question",
            f"question is missing; the row's keys are {excerpt(sorted(row))}: name its key `question`",
        )
    domain, metadata = domain or "general", _metadata(row)
    if verifier is not None:
        _check_verifier(verifier, question, reference_answer, metadata)
    identity = prompt_id(question, system_prompt, domain, verifier, reference_answer)
    return Prompt(identity, domain, question, reference_answer, verifier, system_prompt, metadata, name, line)


def _text(row: Mapping[str, object], key: str) -> str | None:
    value = row.get(key)
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


def _check_verifier(verifier: str, question: str, reference_answer: str | None, metadata: str) -> None:
    if not known_verifier(verifier):
        message = f"unknown verifier {excerpt(verifier)}; known are {', '.join(verifier_names())}"
        raise InvalidRow("unknown_verifier", message)
    if reference_answer is None:
        raise InvalidRow(
            "missing_reference", f"verifier {verifier} needs a reference_answer; add it, or leave the verifier out"
        )
    if fault := reference_fault(verifier, Asked(question, reference_answer, metadata)):
        raise InvalidRow("invalid_reference", fault)
