"""`dasd takedown FILE`: withdraw questions, or bring them back, and say which checkpoints were trained on them."""

import json
from collections.abc import Iterable, Iterator

from dasd_assets.audit.prompt import Record, touched_checkpoints
from dasd_assets.rules.typed_ids import HEX, KINDS, SHORTEST_PREFIX, AuditError, find_id
from dasd_assets.withdrawals import TakedownResult, undo_withdrawal, withdraw
from dasd_resources.storage.lake import Lake, Reading

ID_LENGTH = KINDS["prompt"].length


def read_names(lines: Iterable[str]) -> tuple[list[str], list[str]]:
    """Prompt ids and questions of a file: one a line, plain or as JSON (`{"prompt_id": …}` or `{"question": …}`).

    A landed prompt file will do. A plain line of 4 to 32 hexadecimal digits is an id or the first digits of one; a
    question that looks like that is written as JSON. Raises AuditError naming the line that is neither.
    """
    ids: list[str] = []
    questions: list[str] = []
    for number, line in enumerate(_text_lines(lines), start=1):
        text = line.removeprefix("\ufeff").strip()
        if text:
            is_id, name = _name(text, number)
            (ids if is_id else questions).append(name)
    if not ids and not questions:
        raise AuditError("the file names no prompt: give a prompt id or a question a line")
    return ids, questions


def _text_lines(lines: Iterable[str]) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise AuditError(f"the file is not UTF-8 text: {error.reason}; nothing was changed") from None


def take_down(lake: Lake, ids: list[str], questions: list[str], reason: str, undo: bool) -> Record:
    """Withdraw questions or undo it, and list the checkpoints that learned from them, also from those withdrawn before.

    Raises AuditError or UnknownPrompts for an id that is none or several, and then changes nothing.
    """
    with lake.reading() as reading:  # whole ids are looked up together with the change
        ids = [key if len(key) == ID_LENGTH else _whole(reading, key) for key in ids]
    taken = undo_withdrawal(lake, ids, questions) if undo else withdraw(lake, ids, questions, reason)
    with lake.reading() as reading:
        touched = touched_checkpoints(reading, taken.named)
        checkpoints = [row["checkpoint_id"] for row in touched]
        experiments = reading.read(_EXPERIMENTS, {"ids": checkpoints}).to_dicts()
    return {"undone": undo, "reason": reason, **_changes(taken), "checkpoints": touched, "experiments": experiments}


_EXPERIMENTS = """SELECT DISTINCT recipe, experiment FROM experiment_cells
    WHERE list_contains($ids::VARCHAR[], checkpoint_id) ORDER BY ALL"""


def _whole(reading: Reading, prefix: str) -> str:
    try:
        return find_id(reading, "prompt", prefix)
    except AuditError as error:
        raise AuditError(f"nothing was changed: {error}") from None


def _changes(taken: TakedownResult) -> Record:
    return {"prompts": list(taken.prompts), "unlanded": taken.unlanded, "num_already": taken.num_already}


def _name(text: str, number: int) -> tuple[bool, str]:
    """Whether it is an id, and the id or question."""
    if text[0] not in '{"':
        lower = text.lower()
        is_id = SHORTEST_PREFIX <= len(text) <= ID_LENGTH and HEX.fullmatch(lower) is not None
        return is_id, lower if is_id else text
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # UnicodeEncodeError, of a lone surrogate, is a ValueError
        raise AuditError(f"line {number} is not JSON of whole characters: {error}; nothing was changed") from None
    if isinstance(value, str) and value.strip():
        return False, value
    for key in ("prompt_id", "question"):
        if isinstance(value, dict) and isinstance(value.get(key), str) and value[key].strip():
            return key == "prompt_id", value[key].strip().lower() if key == "prompt_id" else value[key]
    raise AuditError(f'line {number} has neither "prompt_id" nor "question"; nothing was changed')
