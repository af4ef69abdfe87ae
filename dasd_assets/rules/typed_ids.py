"""Ids as people type them: whole, or as a prefix that only one row has."""

import re
from dataclasses import dataclass

from dasd_resources.errors import UserError
from dasd_resources.storage.lake import Reading

HEX = re.compile(r"[0-9a-f]+")
SHORTEST_PREFIX = 4
NUM_SUGGESTIONS = 5


class AuditError(UserError, LookupError):
    """A question that cannot be answered; the message says what to ask instead."""


@dataclass(frozen=True)
class Kind:
    """A kind of id: its length in hexadecimal digits, and the tables (with their column) that hold such ids."""

    name: str
    length: int
    places: tuple[tuple[str, str], ...]


KINDS = {
    kind.name: kind
    for kind in (
        Kind(
            "prompt",
            32,
            (("prompts", "prompt_id"), ("withdrawn_prompts", "prompt_id"), ("prompt_lines", "retired_id")),
        ),
        Kind("response", 32, (("responses", "response_id"),)),
        Kind("example", 32, (("sft_examples", "example_id"), ("checkpoint_examples", "example_id"))),
        Kind("checkpoint", 16, (("checkpoints", "checkpoint_id"),)),
    )
}
UNAUDITED = {
    "rollout": Kind("rollout", 32, (("student_rollouts", "rollout_id"),)),
    "continuation": Kind("continuation", 32, (("teacher_continuations", "continuation_id"),)),
}


def find_id(reading: Reading, kind: str, prefix: str) -> str:
    """The one id of that kind that `prefix` is or begins.

    Raises AuditError for one that is none, that several rows begin with, or that is of another kind.
    """
    wanted, typed = KINDS[kind], prefix.strip().lower()
    shape = f"{kind} ids are {wanted.length} hexadecimal digits"
    if not HEX.fullmatch(typed) or not SHORTEST_PREFIX <= len(typed) <= wanted.length:
        raise AuditError(
            f"{prefix!r} is no {kind} id: {shape}; the first {SHORTEST_PREFIX} or more are enough where "
            f"only one row begins with them{_examples(reading, wanted)}"
        )
    found = _beginning(reading, wanted, typed)
    if len(found) == 1:
        return found[0]
    if found:
        more = f", … ({NUM_SUGGESTIONS}+)" if len(found) > NUM_SUGGESTIONS else ""
        raise AuditError(f"several {kind}s begin with {typed}: {', '.join(found[:NUM_SUGGESTIONS])}{more}")
    raise AuditError(
        f"there is no {kind} {typed}{_elsewhere(reading, kind, typed)}; {shape}{_examples(reading, wanted)}"
    )


def _beginning(reading: Reading, kind: Kind, typed: str) -> list[str]:
    """Equality where the id is whole: it is looked up by the files' statistics, a prefix by reading the column."""
    match = "= $typed" if len(typed) == kind.length else "LIKE $typed || '%'"
    parts = [f"SELECT {column} AS id FROM {table} WHERE {column} {match}" for table, column in kind.places]
    query = f"SELECT DISTINCT id FROM ({' UNION ALL '.join(parts)}) ORDER BY id LIMIT {NUM_SUGGESTIONS + 1}"
    return list(reading.read(query, {"typed": typed})["id"])


def _elsewhere(reading: Reading, kind: str, typed: str) -> str:
    """Where the id is one of another kind, say which."""
    for other in (*KINDS.values(), *UNAUDITED.values()):
        if other.name != kind and len(typed) <= other.length and (found := _beginning(reading, other, typed)):
            how = f"dasd audit {other.name}" if other.name in KINDS else f"dasd sql on {other.places[0][0]}"
            return f", but a {other.name} {found[0]} (see: {how})"
    return ""


def _examples(reading: Reading, kind: Kind) -> str:
    (table, column), *_ = kind.places
    some = reading.read(f"SELECT {column} AS id FROM {table} LIMIT 2")["id"].to_list()
    return f"; for example {', '.join(some)}" if some else f"; the table {table} is empty"
