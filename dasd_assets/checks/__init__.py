"""Asset checks where a person would look: shares that say whether the data is sound, against the recipe's limits.

They warn and never stop anything (the parity gate, which does, is in `parity`). Each tells what it found and, where it
fails, what to look at. Those of a batch run together after it, in one step; the others each after its asset.

| module | what it is about |
| --- | --- |
| `findings` | what a check is and finds, and the limits that several share |
| `of_batches` | checks of what is made batch by batch |
| `of_training` | checks of what reads all batches |
"""

import warnings
from collections.abc import Iterator, Sequence

import dagster as dg

from dasd_assets.checks.findings import AssetCheckFinding, Check, Scope
from dasd_assets.checks.of_batches import batch_checks
from dasd_assets.checks.of_training import later_checks
from dasd_assets.records.partitions import PROMPT_BATCH, batch_of
from dasd_assets.records.table_metadata import tidy
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def build(recipe: Recipe) -> list[dg.AssetChecksDefinition]:
    """One step for the checks of a batch, and one for each later asset that has some."""
    later = later_checks(recipe)
    assets = dict.fromkeys(check.asset for check in later)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks; the pinned Dagster has them
        return [
            _step(recipe, "batch_checks", batch_checks(recipe), PROMPT_BATCH),
            *[_step(recipe, f"{asset}_checks", [c for c in later if c.asset == asset], None) for asset in assets],
        ]


def _step(
    recipe: Recipe, name: str, checks: Sequence[Check], partitions: dg.PartitionsDefinition | None
) -> dg.AssetChecksDefinition:
    specs = [
        dg.AssetCheckSpec(check.name, asset=check.asset, description=check.description, partitions_def=partitions)
        for check in checks
    ]

    @dg.multi_asset_check(name=name, specs=specs, can_subset=True)
    def evaluate(
        context: dg.AssetCheckExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> Iterator[dg.AssetCheckResult]:
        scope = Scope(warehouse, engines, recipe, batch_of(context) if partitions else "")
        for check in checks:
            if check.key in context.selected_asset_check_keys:
                yield _result(check, check.evaluate(scope))

    return evaluate


def _result(check: Check, finding: AssetCheckFinding) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=check.asset,
        check_name=check.name,
        passed=finding.passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=finding.message,
        metadata={name: tidy(value) for name, value in finding.figures.items()},
    )
