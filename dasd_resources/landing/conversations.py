"""Rows of published datasets as a question with its response: conversations, and pairs of input and output.

| a row's keys | question | response |
| --- | --- | --- |
| `question` | itself | `response`, or each of `responses` |
| `messages`, of `role` and `content` | the user's turn | the assistant's |
| `conversations`, of `from` and `value` | the human's turn | the model's |
| `prompt`, `completion` (texts or messages) | the user's turn | the assistant's |
| `input`, `output` | `input` | `output` |
| `instruction`, `input`, `output` | `instruction`, a blank line and `input`, if it has any | `output` |

A system turn, or the column `system`, is the question's system prompt. An assistant's `reasoning_content` (`reasoning`,
`thinking`) is its thinking. Datasets that DASD has published are read in each of their forms: there the system turn is
the student's, `question_system_prompt` the question's own, and in the report's form the columns are in `meta`; a
verifier that judges by metadata that were not published is left out. Left out, too: conversations of several turns, as
a distillation prompt is one question.
"""

import json
from collections.abc import Sequence

from dasd_resources.landing.columns import ROLES
from dasd_resources.landing.prompt_files import Fields, InvalidRow
from dasd_resources.verifiers.catalogue import known_verifier, reads_metadata, reference_fault
from dasd_resources.verifiers.judgement import Asked
from dasd_resources.visible_text import excerpt

CONVERSATIONS = ("messages", "conversations")
HOLD_RESPONSES = (*CONVERSATIONS, "system", "prompt", "completion", "input", "output")  # columns, whole or in part
# Columns of a published dataset that say of a row what this home finds out for itself, or names in its own way.
PUBLISHED = (
    *("id", "prompt_id", "origin", "num_prefix_characters", "top_p", "correct", "score_name", "score", "rank"),
    "num_tokens",
)
OWN_SYSTEM_PROMPT = "question_system_prompt"
IN_META = (
    *("origin", "prompt_id", "temperature", "sample_index", "finish_reason", "reference_answer", "verifier"),
    *("source", "metadata", OWN_SYSTEM_PROMPT),
)
THINKING = ("reasoning_content", "reasoning", "thinking")


def with_question(row: Fields) -> dict[str, object]:
    """The row with `question`, and `system_prompt` and `response` where it has them, in place of what held them.

    Raises InvalidRow for a conversation of several turns, or of none by a user.
    """
    found = _with_question(row)
    if OWN_SYSTEM_PROMPT in found:
        found["system_prompt"] = found.pop(OWN_SYSTEM_PROMPT)
    return found


def without_published(row: Fields) -> dict[str, object]:
    """The row without what another home has found out about it, if DASD has published it.

    Nor has it a verifier that cannot judge without the metadata that stayed there.
    """
    if not is_published(row):
        return dict(row)
    metadata = _metadata(row)  # which may have a source of its own
    left = _without(row, *PUBLISHED, *(("source",) if "source" in metadata else ()))
    return _without(left, "verifier") if _lacks_metadata(left, metadata) else left


def _lacks_metadata(row: Fields, metadata: Fields) -> bool:
    """Whether the row's verifier reads metadata, and by these and its other keys could find no answer correct."""
    name, reference = row.get("verifier"), row.get("reference_answer")
    if not isinstance(name, str) or not known_verifier(name) or not reads_metadata(name):
        return False
    known = json.dumps({**row, **metadata})
    asked = Asked(str(row.get("question")), "" if reference is None else str(reference), known)
    return reference_fault(name, asked) is not None


def _metadata(row: Fields) -> dict[str, object]:
    """A published row's metadata."""
    try:
        known = json.loads(str(row.get("metadata")))
    except (ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def is_published(row: Fields) -> bool:
    """Whether DASD has published the row."""
    return isinstance(row.get("origin"), str) and isinstance(row.get("prompt_id"), str)


def _with_question(row: Fields) -> dict[str, object]:
    if row.get("question") is not None:
        return dict(row)
    for key in CONVERSATIONS:
        if isinstance(turns := row.get(key), list):
            system = [] if row.get("system") is None else [{"role": "system", "content": row["system"]}]
            return _unnested(_without(row, key, "system"), key, [*system, *turns])
    if row.get("prompt") is not None and row.get("completion") is not None:
        turns = [*_turns(row["prompt"], "user"), *_turns(row["completion"], "assistant")]
        return _unnested(_without(row, "prompt", "completion"), "prompt and completion", turns)
    pair = _with_instruction(row)
    if pair.get("input") is not None and pair.get("output") is not None:
        return {**_from_meta(pair), "question": pair["input"], "response": pair["output"]}
    return dict(row)


def _with_instruction(row: Fields) -> Fields:
    """A row of Alpaca's shape with its instruction in front of its input, which may be blank."""
    instruction, given = row.get("instruction"), row.get("input")
    if not isinstance(instruction, str) or not instruction.strip() or not isinstance(given, str | None):
        return row
    asked = f"{instruction}\n\n{given}" if given and given.strip() else instruction
    return {**_without(row, "instruction"), "input": asked}


def _from_meta(row: Fields) -> dict[str, object]:
    """The other columns of the report's form; those that DASD has published in `meta`, in its place."""
    others = _without(row, "input", "output")
    try:
        meta = json.loads(str(row.get("meta")))
    except (ValueError, RecursionError):
        return others
    if not isinstance(meta, dict) or not is_published(meta):
        return others
    return {**_without(others, "meta"), **{key: meta.get(key) for key in IN_META}}


def _without(row: Fields, *keys: str) -> dict[str, object]:
    return {key: value for key, value in row.items() if key not in keys}


def _turns(value: object, role: str) -> list[object]:
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def _unnested(row: dict[str, object], key: str, turns: Sequence[object]) -> dict[str, object]:
    said: dict[str, object] = {}
    for turn in turns:
        role, content = _said(key, turn)
        if role in said:
            raise InvalidRow("invalid_field", f"{key} has several turns of the {role}: {_PLAIN}")
        if role == "user" and "assistant" in said:
            raise InvalidRow("invalid_field", f"{key} does not begin with the user: {_PLAIN}")
        said[role] = content
    if "user" not in said:
        raise InvalidRow("invalid_field", f"{key} has no turn of a user: {excerpt(turns)}; {_PLAIN}")
    names = {"user": "question", "system": "system_prompt", "assistant": "response"}
    found = {names[role]: content for role, content in said.items()}
    if isinstance(found.get("system_prompt"), str) and not str(found["system_prompt"]).strip():
        del found["system_prompt"]  # several datasets write an empty turn where they mean none
    return {**row, **found}


_PLAIN = "land one question with its response"


def _said(key: str, turn: object) -> tuple[str, object]:
    """The role and the text of a turn, thinking in front of an answer."""
    if not isinstance(turn, dict):
        raise InvalidRow("invalid_field", f"{key} must hold objects, found {excerpt(turn)}")
    name = turn.get("role", turn.get("from"))
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise InvalidRow("invalid_field", f"{key} has a turn of {excerpt(name)}; known are {', '.join(ROLES)}")
    content = turn.get("content", turn.get("value"))
    thinking = next((turn[name] for name in THINKING if turn.get(name)), None)
    if role == "assistant" and isinstance(thinking, str) and isinstance(content, str | None):
        return role, f"<think>\n{thinking}\n</think>\n{content or ''}"
    return role, content
