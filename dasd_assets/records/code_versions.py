"""An asset's code version: the versions of the rules it applies and the parts of the recipe it reads, hashed.

Dagster stores only the hash. The versions and values themselves are metadata of each materialization (`made_with`), so
that the audit can name later what has changed, and from which value to which.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import dagster as dg

from dasd_assets.rules.rule import Rule, all_rules
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe

MADE_WITH = "made_with"


@dataclass(frozen=True)
class CodeVersion:
    """code: rule -> its version, with the entries of its catalogue. recipe: dotted path -> value."""

    code: Mapping[str, str]
    recipe: Mapping[str, object]

    @classmethod
    def of(cls, recipe: Recipe, rules: Iterable[Rule], parts: Iterable[str] = ()) -> Self:
        """The code version of rules and all that they use. parts: of the recipe, besides those that the rules read."""
        every = all_rules(rules)
        paths = sorted({part for rule in every for part in rule.parts} | set(parts))
        return cls({rule.name: rule.code for rule in every}, recipe.parts(*paths))

    @property
    def text(self) -> str:
        """The version that Dagster compares; 12 hex digits."""
        return content_hash([dict(sorted(self.code.items())), dict(self.recipe)])[:12]

    @property
    def metadata(self) -> dict[str, dg.JsonMetadataValue]:
        """For the asset's definition and for each of its materializations."""
        return {MADE_WITH: dg.MetadataValue.json({"code": dict(self.code), "recipe": dict(self.recipe)})}
