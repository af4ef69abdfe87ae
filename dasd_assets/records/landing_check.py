"""The check `everything_landed_is_read` on `prompts`: what lies in the landing folder and is not read, and why.

The sensor `landed_prompts` evaluates it whenever that changes. Names are hostile text: they are quoted, and stand in
JSON metadata alone, which the web UI shows as text.
"""

from collections.abc import Mapping
from pathlib import Path

import dagster as dg

from dasd_assets.records.wording import short
from dasd_resources.landing.landing_folder import landing_folder
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse

LANDING_CHECK = dg.AssetCheckKey(dg.AssetKey("prompts"), "everything_landed_is_read")
NUM_LISTED = 100


def build(recipe: Recipe) -> list[dg.AssetChecksDefinition]:
    """The check; it warns and stops nothing."""

    @dg.asset_check(
        asset="prompts",
        description="The landing folder holds nothing that is not read. If it does, the metadata say what.",
    )
    def everything_landed_is_read(warehouse: Warehouse) -> dg.AssetCheckResult:
        folder = landing_folder(recipe, Path(warehouse.home))
        found = landing_evaluation(folder.passed_over())
        return dg.AssetCheckResult(
            passed=found.passed, severity=found.severity, description=found.description, metadata=found.metadata
        )

    return [everything_landed_is_read]


def landing_evaluation(passed_over: Mapping[str, str]) -> dg.AssetCheckEvaluation:
    """The check's outcome. passed_over: name -> what to do."""
    listed = {repr(short(name)): remedy for name, remedy in [*passed_over.items()][:NUM_LISTED]}
    return dg.AssetCheckEvaluation(
        asset_key=LANDING_CHECK.asset_key,
        check_name=LANDING_CHECK.name,
        passed=not passed_over,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(passed_over):,} not read; `not_read` lists them with what to do"
        if passed_over
        else "all of it is",
        metadata={"not_read": dg.MetadataValue.json(listed)} if listed else {},
    )
