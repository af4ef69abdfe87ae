"""What is out of date and why: inputs, code, or which part of the recipe."""

from pathlib import Path

import dagster as dg

from dasd_assets.audit.prompt import Record
from dasd_assets.definitions import EnvironmentEngines, build_definitions
from dasd_assets.partitions import batches
from dasd_assets.planning import root_versions
from dasd_assets.quarantine import quarantine
from dasd_assets.staleness import stale_assets
from dasd_assets.withdrawals import outdated_batches
from dasd_resources.recipe import Recipe
from dasd_resources.warehouse import Warehouse


def staleness(recipe: Recipe, home: Path, dagster_home: Path) -> Record:
    """Every asset, and batch of it, that a run would make again; batches that landed but are unregistered are not."""
    engines, warehouse = EnvironmentEngines(home=str(home)), Warehouse(home=str(home))
    definitions = build_definitions(recipe, home, engines)
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        aside = quarantine(warehouse).now
        stale = stale_assets(
            instance,
            definitions,
            batches(instance),
            root_versions(engines, recipe),
            aside,
            withdrawn=outdated_batches(warehouse),
        )
    return {
        "recipe": recipe.name,
        "stale": [{"asset": s.asset, "batch": s.batch, "reason": s.reason, "retry": s.retry} for s in stale],
        "quarantined": [{"batch": batch, "reason": row.reason} for batch, row in aside.items()],
    }
