"""A rule: code that decides rows, and the parts of the recipe that it reads, under one name and version.

A rule is a module with one constant `…_VERSION`: raise it whenever the module's functions come to decide otherwise. An
asset declares the rules that its code reaches (`records/declaration.py`); what a rule uses counts with it.
"""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """name and version of the code; parts: dotted paths of the recipe that it reads; uses: the rules it applies."""

    name: str
    version: str
    parts: tuple[str, ...] = ()
    uses: tuple["Rule", ...] = ()


def all_rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules and all that they use, each once. Raises ValueError where two of them have one name."""
    found: dict[str, Rule] = {}
    for rule in rules:
        for one in (rule, *all_rules(rule.uses)):
            if found.setdefault(one.name, one) != one:
                raise ValueError(f"two rules are named {one.name!r}: the code version tells them apart by name")
    return tuple(found.values())
