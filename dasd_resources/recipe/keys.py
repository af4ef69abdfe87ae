"""The keys of a recipe: which there are in a section, and which one a mistyped key was meant to be."""

from collections.abc import Iterator, Sequence
from typing import get_args

from dasd_resources.recipe.parts import Part
from dasd_resources.spelling import meant


def part_in(annotation: object) -> type[Part] | None:
    """The section that a key's type is, or holds: in a tuple, as a value of a mapping, or beside None."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return annotation
    return next((part for one in get_args(annotation) if (part := part_in(one))), None)


def section_at(part: type[Part], place: Sequence[str | int]) -> type[Part] | None:
    """The section at a place in a document, such as `("evaluation", "benchmarks", 0)`; None if there is none."""
    found: type[Part] | None = part
    for step in place:
        if found is not None and step in found.model_fields:
            found = part_in(found.model_fields[str(step)].annotation)
    return found


def all_keys(part: type[Part], prefix: str = "") -> Iterator[str]:
    """Dotted paths of all keys of a section and of those within it."""
    for name, field in part.model_fields.items():
        yield f"{prefix}{name}"
        if (inner := part_in(field.annotation)) is not None:
            yield from all_keys(inner, f"{prefix}{name}.")


def key_meant(part: type[Part], place: Sequence[str | int]) -> str:
    """What the unknown key at this place was meant to be: one of its section, or the same one of another section."""
    *section, key = place
    known = section_at(part, section)
    if known is not None and (close := meant(str(key), known.model_fields)):
        return close
    elsewhere = [path for path in all_keys(part) if path.rpartition(".")[2] == key]
    return f"; did you mean {' or '.join(elsewhere[:3])}?" if elsewhere else ""
