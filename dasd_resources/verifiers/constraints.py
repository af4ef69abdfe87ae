"""`constraint`: the answer part follows each of the row's verifiable instructions, named as IFEval names them.

The metadata holds `instruction_id_list` and, in the same order, `kwargs` (a list of objects, null for what does not
apply; either may be a string that holds JSON). `constraint` is IFEval's strict reading; `constraint:loose` takes an
instruction for followed if it is in one of eight versions of the answer: with or without its first line, its last line
and its asterisks. A row needs no reference answer.
"""

import json
from collections.abc import Iterator, Mapping

from dasd_resources.verifiers.instructions import INSTRUCTIONS, RELATIONS, Given, Kind, languages
from dasd_resources.verifiers.judgement import CORRECT, Asked, Judgement
from dasd_resources.visible_text import excerpt

MAX_CHARS = 200_000  # of an answer part; more is wrong unread
MAX_COUNT = 1_000_000
KWARGS_KEYS = ("kwargs", "instruction_kwargs")

Named = tuple[str, Mapping[str, object]]


class BadConstraint(ValueError):
    """Metadata that are no list of known instructions with their arguments."""


def judge_constraints(text: str, asked: Asked) -> Judgement:
    """Whether the answer part follows all instructions; the reason names those that it does not."""
    if len(text) > MAX_CHARS:
        reason = f"the answer part has {len(text)} characters, at most {MAX_CHARS} are read"
        return Judgement("incorrect", "wrong_answer", reason)
    versions = _versions(text) if asked.parameter == "loose" else [text]
    versions = [version for version in versions if version.strip()]
    try:
        named = _named(asked)
    except BadConstraint as error:
        return Judgement("error", "verifier_failed", str(error))
    missed = [name for name, values in named if not _followed(name, Given(values), versions)]
    if not missed:
        return CORRECT
    reason = f"{len(named) - len(missed)} of {len(named)} instructions followed, not {', '.join(missed)}"
    return Judgement("incorrect", "wrong_answer", reason)


def check_constraints(asked: Asked) -> str | None:
    """Why the row's instructions cannot be checked."""
    try:
        for name, values in _named(asked):
            for argument, kind in INSTRUCTIONS[name].arguments.items():
                if fault := _fault(values.get(argument), kind):
                    raise BadConstraint(f"{name}: {argument} {fault}, found {excerpt(values.get(argument))}")
            _check_paragraphs(values)
    except BadConstraint as error:
        return str(error)
    return None


def _followed(name: str, given: Given, versions: list[str]) -> bool:
    return any(INSTRUCTIONS[name].follows(version, given) for version in versions)


def _versions(text: str) -> list[str]:
    lines = text.split("\n")
    parts = [text, *("\n".join(some).strip() for some in (lines[1:], lines[:-1], lines[1:-1]))]
    return [*parts, *(part.replace("*", "") for part in parts)]


def _named(asked: Asked) -> list[Named]:
    """The instructions of a row, each with its arguments that are not null. Raises BadConstraint."""
    metadata = json.loads(asked.metadata)
    names = _listed(metadata, "instruction_id_list")
    key = next((key for key in KWARGS_KEYS if metadata.get(key) is not None), None)
    given = _listed(metadata, key) if key else [{} for _ in names]
    if not names or len(given) != len(names):
        raise BadConstraint(
            f"instruction_id_list has {len(names)} entries, kwargs {len(given)}: one each, at least one"
        )
    return list(_paired(names, given))


def _paired(names: list[object], given: list[object]) -> Iterator[Named]:
    for name, values in zip(names, given, strict=True):
        if not isinstance(name, str) or name not in INSTRUCTIONS:
            raise BadConstraint(f"unknown instruction {excerpt(name)}; known are {', '.join(INSTRUCTIONS)}")
        if values is not None and not isinstance(values, dict):
            raise BadConstraint(f"{name}: its kwargs must be an object, found {excerpt(values)}")
        present = {key: value for key, value in (values or {}).items() if value is not None}
        if unknown := sorted(present.keys() - INSTRUCTIONS[name].arguments.keys()):
            takes = ", ".join(INSTRUCTIONS[name].arguments) or "none"
            raise BadConstraint(f"{name}: unknown kwargs {', '.join(map(excerpt, unknown))}; it takes {takes}")
        yield name, present


def _listed(metadata: Mapping[str, object], key: str) -> list[object]:
    value = metadata.get(key)
    try:
        value = json.loads(value) if isinstance(value, str) else value
    except ValueError:
        raise BadConstraint(f"metadata key {key} is not JSON: {excerpt(value)}") from None
    if not isinstance(value, list):
        raise BadConstraint(f"metadata key {key} must be a list, found {excerpt(value)}")
    return value


def _fault(value: object, kind: Kind) -> str | None:
    """What an argument must be and is not."""
    if kind == "count":
        whole = isinstance(value, int | float) and not isinstance(value, bool) and value in range(MAX_COUNT + 1)
        return None if whole else f"must be a whole number from 0 to {MAX_COUNT}"
    if kind == "relation":
        return None if value in RELATIONS else f"must be {' or '.join(map(repr, RELATIONS))}"
    if kind == "texts":
        texts = isinstance(value, list) and value and all(isinstance(one, str) and one.strip() for one in value)
        return None if texts else "must be a list of words"
    if not isinstance(value, str) or not value.strip():
        return "must be a text"
    if kind == "language" and value not in languages():
        return f"must be one of {', '.join(sorted(languages()))}"
    return None


def _check_paragraphs(values: Mapping[str, object]) -> None:
    """Raises BadConstraint for a paragraph beyond the last, which no answer has."""
    nth, number = values.get("nth_paragraph"), values.get("num_paragraphs")
    if isinstance(nth, int | float) and isinstance(number, int | float) and not 1 <= nth <= number:
        raise BadConstraint(f"nth_paragraph is {nth} of {number} paragraphs, so no answer could follow")
