"""`landing`: how the columns of landed files become ours (docs/landing.md); `automation.landing` says where they lie.

A mapping is one entry of `landing.columns`, or a list of them of which each file takes the first whose `where` fits its
name. A ready mapping (ready_columns.py) is taken by its name; keys beside the name replace its own. What it stands for
is filled in when the recipe is loaded, so a version of the recipe covers it.
"""

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Annotated, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from dasd_resources.recipe.parts import DECIDING, AddedLater, Part, Positive
from dasd_resources.recipe.ready_columns import READY_COLUMNS

KINDS = ("path", "constant", "messages", "template", "letter")
FIELD = re.compile(r"\{([^{}]+)\}")  # in a template; of a path, or of `choices`; `\boxed{}` is none


class Source(Part):
    r"""Where one of our keys has its value from: exactly one of `path`, `constant`, `messages`, `template`, `letter`.

    path: `problem`, `extra_info.answer`, `prompt.0.content`; on its way, a text is read as JSON.
    constant: the same for every row; null is none.
    messages: path of a conversation; `role: user` is the last user message before the first answer.
    template: a text in which `{path}` stands for a value and `{choices}` for the choices, a line each.
    letter: path of the right choice (its letter, its number from 0, or its text); its letter is the value.
    choices: path of the choices, for `template` and `letter`.
    after: of the value, what follows the last of these characters (`####`); none without them.
    boxed: of the value, what its last \boxed{…} holds; none without one.
    empty: values that stand for none. values: values that are replaced.
    when: path -> regular expression that the whole value must match, else the source has none.
    """

    path: str | None = None
    constant: str | None = None
    messages: str | None = None
    role: Literal["user", "system"] = "user"
    template: str | None = None
    letter: str | None = None
    choices: str | None = None
    after: Annotated[str, Field(min_length=1)] | None = None
    boxed: bool = False
    empty: tuple[str, ...] = Field(default=(), strict=False)
    values: dict[str, str] = Field(default_factory=dict)
    when: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _of_one_kind(self) -> Self:
        kinds = [kind for kind in KINDS if kind in self.model_fields_set]
        if len(kinds) != 1:
            raise ValueError(f"needs exactly one of {', '.join(KINDS)}; it has {' and '.join(kinds) or 'none'}")
        needs_choices = self.letter is not None or "choices" in FIELD.findall(self.template or "")
        if needs_choices != (self.choices is not None):
            raise ValueError(
                "choices goes with `letter`, or with a `template` that names {choices}, and only with them"
            )
        return self

    @field_validator("when")
    @classmethod
    def _patterns(cls, when: dict[str, str]) -> dict[str, str]:
        for pattern in when.values():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return when

    @model_serializer(mode="wrap")
    def _deciding(self, serialize: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, object]:
        """What was set alone, so that a stored recipe can be read again; versions keep their longer form."""
        document: dict[str, object] = serialize(self)
        return {
            key: value for key, value in document.items() if info.context == DECIDING or key in self.model_fields_set
        }

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths that its value comes from, without conditions."""
        named = [path for path in FIELD.findall(self.template or "") if path != "choices"]
        return tuple(path for path in (self.path, self.messages, self.letter, self.choices, *named) if path)


def _sources(value: object) -> object:
    """A path alone, or one source, is a list of one; of several, the first that has a value counts."""
    several = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(one, str | Mapping | Source) for one in several):
        raise ValueError(f"must be a path, or an object with one of {', '.join(KINDS)}, or a list of such")
    return tuple({"path": one} if isinstance(one, str) else one for one in several)


def _texts(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _kept(value: object) -> object:
    """A list of paths is kept under these very names."""
    return {path: path for path in value} if isinstance(value, list | tuple) else value


# Beside each form that is kept, those that are taken: editors are told of them, too.
_SeveralSources = BeforeValidator(_sources, json_schema_input_type=str | Source | list[str | Source])
_SeveralTexts = BeforeValidator(_texts, json_schema_input_type=str | list[str])
Sources = Annotated[tuple[Source, ...], _SeveralSources, Field(min_length=1, strict=False)]


class Columns(Part):
    """One mapping: our keys and where each has its value from. A key that is not named is the row's of the same name.

    where: patterns (`*`, `?`, `[…]`) of file names, with their folder or without; every file by default.
    ready: the ready mapping that it begins with.
    metadata: paths to keep, or names for them; by default all columns but those a key is made of or named as.
    """

    where: Annotated[tuple[str, ...], _SeveralTexts, Field(min_length=1, strict=False)] = ("*",)
    ready: str | None = None
    question: Sources | None = None
    domain: Sources | None = None
    system_prompt: Sources | None = None
    reference_answer: Sources | None = None
    verifier: Sources | None = None
    metadata: Annotated[
        dict[str, str] | None, BeforeValidator(_kept, json_schema_input_type=dict[str, str] | list[str] | None)
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _filled_in(cls, document: object) -> object:
        """With the ready mapping's own keys, where it names one."""
        if isinstance(document, str):
            document = {"ready": document}
        if not isinstance(document, Mapping) or not isinstance(name := document.get("ready"), str):
            return document
        if name not in READY_COLUMNS:
            raise ValueError(f"there is no ready mapping {name!r}; there are {', '.join(sorted(READY_COLUMNS))}")
        return {**READY_COLUMNS[name].columns, **document}

    @model_validator(mode="after")
    def _maps_something(self) -> Self:
        if self.model_fields_set <= {"where"}:
            raise ValueError("maps nothing; name a ready mapping (`ready: …`), or a key such as `question: problem`")
        return self

    def fits(self, name: str) -> bool:
        """Whether a file of this name, with its folder in the landing folder, is mapped by it."""
        return any(fnmatchcase(one, pattern) for one in (name, name.rpartition("/")[2]) for pattern in self.where)


def _mappings(value: object) -> object:
    return tuple(value) if isinstance(value, list | tuple) else () if value is None else (value,)


_SeveralColumns = BeforeValidator(_mappings, json_schema_input_type=Columns | list[Columns] | None)


class Landing(Part):
    """What is made of landed files."""

    columns: Annotated[tuple[Columns, ...], _SeveralColumns, Field(strict=False)] = ()
    """Mappings, or the name of a ready one (docs/landing.md); a file that none of them fits has our own keys."""
    questions_per_batch: Annotated[Positive | None, AddedLater] = None
    """Most rows of a landed file that are one batch; a larger file is several. null: each file is one."""


def columns_for(mappings: Sequence[Columns], name: str) -> Columns | None:
    """The first mapping that fits a file's name."""
    return next((columns for columns in mappings if columns.fits(name)), None)
