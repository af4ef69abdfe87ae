"""What is out of date and why: inputs, code, or which part of the recipe."""

from pathlib import Path

import dagster as dg

from dasd_assets.audit.changes import Changes
from dasd_assets.audit.prompt import Record
from dasd_assets.definitions import EnvironmentEngines, build_definitions
from dasd_assets.prompts import outdated_prompts
from dasd_assets.records.partitions import batches
from dasd_assets.records.quarantine import quarantine
from dasd_assets.rules.landed import landed_versions
from dasd_assets.service.instance import open_instance
from dasd_assets.service.lost_tables import require_tables
from dasd_assets.service.planning import model_contexts, root_versions
from dasd_assets.service.staleness import comparison
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake
from dasd_resources.storage.repair import repaired_files


def staleness(recipe: Recipe, home: Path, dagster_home: Path) -> Record:
    """Every asset, and batch of it, that a run would make again; batches that landed but are unregistered are not."""
    engines = EnvironmentEngines(home=str(home))
    definitions = build_definitions(recipe, home, engines)
    with open_instance(dagster_home) as instance:
        return explained(instance, definitions, recipe, engines, Lake(home=str(home)))


def explained(
    instance: dg.DagsterInstance, definitions: dg.Definitions, recipe: Recipe, engines: Engines, lake: Lake
) -> Record:
    """What is out of date in an instance, each with all its causes."""
    known, roots = batches(instance), root_versions(engines, recipe, lake)
    lake.require_files()
    with lake.reading() as reading:
        require_tables(instance, reading)
        quarantined, withdrawn = quarantine(reading).now, outdated_prompts(reading, recipe, known)
        repaired = repaired_files(reading)
        landed = landed_versions(reading, known) if recipe.imports is not None else {}
    contexts = model_contexts(recipe)
    now = comparison(
        instance,
        definitions,
        known,
        roots,
        quarantined,
        withdrawn=withdrawn,
        repaired=repaired,
        contexts=contexts,
        landed=landed,
    )
    changes = Changes(instance, now.nodes, now.latest, roots, now.usable)
    return {
        "recipe": recipe.name,
        "stale": [
            {"asset": s.asset, "batch": s.batch, "reason": s.reason, "retry": s.retry, "causes": changes.of(s)}
            for s in now.found
        ],
        "quarantined": [{"batch": batch, "reason": row.reason} for batch, row in quarantined.items()],
    }
