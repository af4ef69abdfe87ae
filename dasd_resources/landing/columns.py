"""A row as a file has it -> the row as ours, by a mapping of the recipe (`landing.columns`). Pure: nothing is read.

A path that a row does not have gives no value; what a missing value means is for prompt_files.py to say. Left out: what
a conversation holds after its first answer, since later questions cannot be asked without what went before.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from dasd_resources.recipe.landing_settings import FIELD, Columns, Source
from dasd_resources.recipe.ready_columns import READY_COLUMNS
from dasd_resources.verifiers.catalogue import known_verifier, needs_reference
from dasd_resources.verifiers.final_answer import boxed
from dasd_resources.visible_text import excerpt

OUR_KEYS = ("question", "domain", "system_prompt", "reference_answer", "verifier")
ROLES = {  # what datasets call the turns of a conversation
    **{"system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant"},
    **dict.fromkeys(("gpt", "chatgpt", "bot", "model"), "assistant"),
}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
LABELS, TEXTS = ("label", "key", "letter"), ("text", "content", "value")  # of a choice that is an object, or of a table


class UnmappableRow(ValueError):
    """A value that a mapping needs is there, but is not what it must be; the message names the path."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation. role: `system`, `user`, `assistant` or whatever else it was."""

    role: str
    content: str


def mapped(columns: Columns, row: Mapping[str, object]) -> dict[str, object]:
    """The row with our keys and `metadata`. Raises UnmappableRow.

    A verifier that the mapping sets, and that needs a reference answer, is for rows with one: the others have none.
    """
    ours = {key: _value_of(columns, key, row) for key in OUR_KEYS}
    if columns.verifier is not None and ours["reference_answer"] is None and _needs_reference(ours["verifier"]):
        ours["verifier"] = None
    return {**_others(columns, row), **{key: value for key, value in ours.items() if value is not None}}


def _needs_reference(verifier: object) -> bool:
    return isinstance(verifier, str) and known_verifier(verifier) and needs_reference(verifier)


def _value_of(columns: Columns, key: str, row: Mapping[str, object]) -> object:
    sources: tuple[Source, ...] | None = getattr(columns, key)
    if sources is None:
        return row.get(key)
    return next((value for value in (_value(source, row) for source in sources) if value is not None), None)


def _others(columns: Columns, row: Mapping[str, object]) -> dict[str, object]:
    """What becomes metadata: what the mapping keeps, or all columns but those a key is made of, or named as a key."""
    if columns.metadata is not None:
        kept = {name: at_path(row, path) for name, path in columns.metadata.items()}
        return {"metadata": {name: value for name, value in kept.items() if value is not None}}
    used = {path for key in OUR_KEYS for source in getattr(columns, key) or () for path in source.paths}
    return {key: value for key, value in row.items() if key not in used and key not in OUR_KEYS}


def _value(source: Source, row: Mapping[str, object]) -> object:
    if any(not re.fullmatch(pattern, _as_text(at_path(row, path))) for path, pattern in source.when.items()):
        return None
    value = _raw(source, row)
    if isinstance(value, str):
        value = _refined(source, value)
    if value is None or (isinstance(value, str) and value.strip() in source.empty):
        return None
    return source.values.get(value, value) if isinstance(value, str) else value


def _raw(source: Source, row: Mapping[str, object]) -> object:
    if source.messages is not None:
        return _spoken(source, at_path(row, source.messages))
    if source.template is not None:
        return _filled(source, row)
    if source.letter is not None and source.choices is not None:
        right = at_path(row, source.letter)
        return None if right is None else _letter(source.letter, _choices(source, row), right)
    return source.constant if source.path is None else at_path(row, source.path)


def _refined(source: Source, value: str) -> str | None:
    """The part of a text that the source asks for. Empty is none: many sets write it so."""
    if source.after is not None:
        value = value.rpartition(source.after)[2] if source.after in value else ""
    if source.boxed:
        value = last_box(value) or ""
    cut = source.after is not None or source.boxed
    return (value.strip() if cut else value) if value.strip() else None


def at_path(row: object, path: str) -> object:
    """The value at a path, None where there is none. A key with dots of its own comes before a way through them."""
    value = _parsed(row) if isinstance(row, str) else row
    if isinstance(value, Mapping):
        if path in value:
            return value[path]
        # the longest key first: `a.b` of {"a.b": …} is not the `b` of `a`
        dots = [index for index, character in enumerate(path) if character == "."]
        for dot in reversed(dots):
            if path[:dot] in value:
                return at_path(value[path[:dot]], path[dot + 1 :])
        return None
    step, _, rest = path.partition(".")
    if isinstance(value, list) and re.fullmatch(r"-?\d{1,6}", step) and -len(value) <= int(step) < len(value):
        return at_path(value[int(step)], rest) if rest else value[int(step)]
    return None


def _parsed(text: str) -> object:
    """The JSON that a text is, or None."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None


def messages_of(value: object) -> list[Message] | None:
    """A conversation's turns, of role and content or from and value, in a list or as JSON; None for anything else."""
    turns = _parsed(value) if isinstance(value, str) else value
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        return None
    return [Message(_role(turn), _content(turn)) for turn in turns]


def _role(turn: Mapping[str, object]) -> str:
    role = str(turn.get("role", turn.get("from", ""))).strip().lower()
    return ROLES.get(role, role)


def _content(turn: Mapping[str, object]) -> str:
    """A turn's text; of one in parts, the texts. Raises UnmappableRow for a part that is no text."""
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list) and all(isinstance(part, Mapping) for part in content):
        if others := [part for part in content if not isinstance(part.get("text"), str)]:
            raise UnmappableRow(f"a message has a part that is no text: {excerpt(others[0])}")
        return "".join(str(part["text"]) for part in content)
    if content is None or isinstance(content, str):
        return content or ""
    raise UnmappableRow(f"a message's content is no text: {excerpt(content)}")


def _spoken(source: Source, value: object) -> str | None:
    """The system message, or the last user message before the first answer."""
    if value is None:
        return None
    turns = messages_of(value)
    if turns is None:
        raise UnmappableRow(f"{source.messages} is no list of messages: {excerpt(value)}")
    first = next((index for index, turn in enumerate(turns) if turn.role == "assistant"), len(turns))
    said = [turn.content for turn in turns[:first] if turn.role == source.role]
    return said[-1] if said else None


def _filled(source: Source, row: Mapping[str, object]) -> str | None:
    """The template with its values; None if one of them is missing."""
    template = source.template or ""
    values = {path: at_path(row, path) for path in FIELD.findall(template) if path != "choices"}
    if source.choices is not None:
        choices = _choices(source, row)
        values["choices"] = "\n".join(f"{label}. {text}" for label, text in choices.items()) or None
    if any(value is None for value in values.values()):
        return None
    return FIELD.sub(lambda found: _as_text(values[found[1]]), template)


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _choices(source: Source, row: Mapping[str, object]) -> dict[str, str]:
    """Label -> text: of a list of texts, of objects with both, of an object of labels or of {text: […], label: […]}."""
    given = at_path(row, source.choices or "")
    value = _parsed(given) if isinstance(given, str) else given
    if given is None:
        return {}
    if isinstance(value, Mapping):
        labels, texts = _named(value, LABELS), _named(value, TEXTS)
        of_lists = isinstance(labels, list) and isinstance(texts, list)
        pairs = [*zip(labels, texts, strict=False)] if of_lists else [*value.items()]  # type: ignore[call-overload]
    elif isinstance(value, list) and all(isinstance(choice, Mapping) for choice in value):
        pairs = [(_named(choice, LABELS), _named(choice, TEXTS)) for choice in value]
    else:
        pairs = list(zip(LETTERS, value, strict=False)) if isinstance(value, list) else []
    found = {str(label): text for label, text in pairs if isinstance(text, str)}
    if not found or len(found) < len(pairs):
        raise UnmappableRow(f"{source.choices} is no list of choices: {excerpt(given)}")
    return found


def _named(choice: Mapping[str, object], keys: Sequence[str]) -> object:
    return next((choice[key] for key in keys if key in choice), None)


def _letter(path: str, choices: Mapping[str, str], right: object) -> str:
    """The label of the right choice, which the row gives as label, number from 0, or text."""
    labels = list(choices)
    if isinstance(right, int) and not isinstance(right, bool) and 0 <= right < len(labels):
        return labels[right]
    text = _as_text(right).strip()
    if text in choices:
        return text
    matching = [label for label, choice in choices.items() if choice.strip() == text]
    if len(matching) == 1:
        return matching[0]
    raise UnmappableRow(f"{path} {excerpt(right)} is none of the choices {', '.join(labels)}, nor the text of one")


def last_box(text: str) -> str | None:
    r"""What the last closed \boxed{…} of a text holds; in one pass, however many are open."""
    boxes = boxed(text)
    return boxes[-1][1] if boxes else None


def absent_paths(columns: Columns, rows: Sequence[Mapping[str, object]]) -> list[str]:
    """The paths of a mapping, in order, that no row has. Of several sources of one key, one is enough."""
    keys = [getattr(columns, key) or () for key in OUR_KEYS]
    found = [[_absent(source.paths, rows) for source in sources] for sources in keys]
    lacking = [path for absent in found if all(absent) for paths in absent for path in paths]
    kept = _absent(tuple((columns.metadata or {}).values()), rows) if columns.ready is None else []
    return list(dict.fromkeys([*lacking, *kept]))


def _absent(paths: Sequence[str], rows: Sequence[Mapping[str, object]]) -> list[str]:
    return [path for path in paths if all(path not in row and at_path(row, path) is None for row in rows)]


def without_question(columns: Columns | None, row: Mapping[str, object]) -> str:
    """What to do about a row that has no question, as it is or as `columns` map it."""
    keys = f"the row's keys are {excerpt(sorted(row))}"
    if columns is not None:
        ready = READY_COLUMNS.get(columns.ready or "")
        if ready is not None and ready.without_question and ready.keys <= row.keys():
            return f"question is missing: {ready.without_question}"
        taken = ", ".join(path for source in columns.question or () for path in source.paths) or "question"
        keys = f"landing.columns takes it from {taken}; {keys}"
    name = fitting(row)
    if name is not None and (columns is None or columns.ready != name):
        ready = READY_COLUMNS[name]
        note = f" ({ready.without_question})" if ready.without_question else ""
        return (
            f"question is missing; the keys are those of {ready.dataset}{note}: "
            f"write `landing: {{columns: {name}}}` in the recipe"
        )
    return f"question is missing; {keys}: " + ("correct its path" if columns else MAP_IT)


MAP_IT = "name its key `question`, or map it in the recipe (`landing: {columns: {question: …}}`)"


def fitting(row: Mapping[str, object]) -> str | None:
    """The ready mapping whose dataset has such rows: of several, the one that is recognised by most keys."""
    known = [name for name in READY_COLUMNS if _is_of(name, row)]
    return max(known, key=lambda name: len(READY_COLUMNS[name].keys), default=None)


def _is_of(name: str, row: Mapping[str, object]) -> bool:
    """Whether it has the keys, and the mapping finds a question or its dataset is known to leave some out."""
    ready = READY_COLUMNS[name]
    if not all(key in row or at_path(row, key) is not None for key in ready.keys):
        return False
    if ready.without_question:
        return True
    try:
        return isinstance(mapped(_ready(name), row).get("question"), str)
    except UnmappableRow:
        return False


@cache
def _ready(name: str) -> Columns:
    return Columns.model_validate({"ready": name})
