"""A rule: code that decides rows, and the parts of the recipe that it reads, under one name and version.

A rule is a module with one constant `…_VERSION`: raise it whenever the module's functions come to decide otherwise. An
asset declares the rules that its code reaches (`records/declaration.py`); what a rule uses counts with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rule:
    """name and version of the code; parts: dotted paths of the recipe that it reads; uses: the rules it applies.

    catalogue: the dict whose every entry it applies. An entry that is added makes anew what the rule decides, without a
    raised version: rows of the other entries stay as they are.
    """

    name: str
    version: str
    parts: tuple[str, ...] = ()
    uses: tuple["Rule", ...] = ()
    catalogue: Mapping[str, object] = field(default_factory=dict, compare=False)

    @property
    def code(self) -> str:
        """What an asset's code version says of it: the version, and the names of the catalogue's entries."""
        return f"{self.version} ({', '.join(sorted(self.catalogue))})" if self.catalogue else self.version


def all_rules(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The rules and all that they use, each once. Raises ValueError where two of them have one name."""
    found: dict[str, Rule] = {}
    for rule in rules:
        for one in (rule, *all_rules(rule.uses)):
            if found.setdefault(one.name, one) != one:
                raise ValueError(f"two rules are named {one.name!r}: the code version tells them apart by name")
    return tuple(found.values())
