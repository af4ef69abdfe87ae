"""What an asset's code version stands for: versions of its code, and the parts of the recipe that it reads.

Dagster keeps the code version alone, a hash. What it was made of goes with each materialization as metadata, so that
the audit can say later which part has changed, from what to what.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import dagster as dg

from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe

MADE_WITH = "made_with"


@dataclass(frozen=True)
class CodeVersion:
    """text: the version that Dagster compares. code: rule -> its version. recipe: dotted path -> value."""

    text: str
    code: Mapping[str, str]
    recipe: Mapping[str, object] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, dg.JsonMetadataValue]:
        """For the asset's definition and for each of its materializations."""
        return {MADE_WITH: dg.MetadataValue.json({"code": dict(self.code), "recipe": dict(self.recipe)})}


def of_code(**code: str) -> CodeVersion:
    """The version of an asset that reads nothing of the recipe (rule = its version)."""
    return CodeVersion("".join(code.values()), code)


def of_recipe(recipe: Recipe, version: CodeVersion) -> CodeVersion:
    """The version of an asset whose rows are under the recipe's name: another recipe of the home has none of them."""
    text = content_hash([version.text, recipe.name])[:12]
    return CodeVersion(text, version.code, {**version.recipe, **recipe.parts("name")})


def code_version(recipe: Recipe, *parts: str, **code: str) -> CodeVersion:
    """The version of an asset made by this code (rule = its version) from these parts of the recipe."""
    return CodeVersion("".join(code.values()) + recipe.version(*parts), code, recipe.parts(*parts))
