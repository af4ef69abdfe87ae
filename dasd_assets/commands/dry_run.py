"""`dasd run --dry-run`: what a run would make, in which order and why; nothing is made, and no batch registered."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg

from dasd_assets.commands.selected_assets import chosen_assets
from dasd_assets.records.partitions import batches
from dasd_assets.records.wording import number_of
from dasd_assets.service.landed import look
from dasd_assets.service.planning import Outlook, Planner
from dasd_assets.service.steps import LEVELS, Level, Step
from dasd_resources.inference.engines import Engines
from dasd_resources.landing.landing_folder import landing_folder
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse

NUM_SHOWN = 3  # names of batches
TITLES: dict[Level, str] = {
    "models": "Models and held-out questions",
    "batch": "Each batch",
    "selection": "Over all batches: selection and datasets",
    "training": "Training, evaluation, report",
}


def dry_run(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    recipe: Recipe,
    engines: Engines,
    home: Path,
    selection: str | None,
) -> str:
    """The page: per step the assets and their reasons; of a selection, what it names, stale or not."""
    if selection is not None:
        graph = definitions.resolve_asset_graph()
        chosen = chosen_assets(graph, selection)
        names = [key.to_user_string() for key in graph.toposorted_asset_keys if key in chosen]
        return "\n".join([f"would make {number_of(len(names), 'asset')}, as selected:", *(f"  {n}" for n in names)])
    folder = landing_folder(recipe, home)
    new = look(folder, batches(instance), {}, time.time()).new
    outlook = Planner(instance, definitions, recipe, engines, Warehouse(home=str(home))).outlook(new)
    return "\n".join(_page(recipe, outlook, new))


def _page(recipe: Recipe, outlook: Outlook, new: Sequence[str]) -> Iterator[str]:
    if not outlook.batches:
        yield "no prompt file has landed: there is nothing to ask"
    if new:
        yield f"{number_of(len(new), 'new prompt batch', 'new prompt batches')}: {_names(new)}"
    if outlook.quarantined:
        yield f"left out, quarantined: {_names(outlook.quarantined)} (see `dasd quarantine`)"
    if not outlook.steps:
        yield f"everything of recipe {recipe.name} is up to date: nothing would be made"
        return
    yield f"recipe {recipe.name}: would make {number_of(sum(len(step.assets) for step in outlook.steps), 'asset')}"
    for level in LEVELS:
        yield from _level(level, [step for step in outlook.steps if step.level == level])


def _level(level: Level, steps: Sequence[Step]) -> Iterator[str]:
    """Batches that are to be made for the same reasons stand together."""
    alike: dict[tuple[tuple[str, str], ...], list[Step]] = {}
    for step in steps:
        alike.setdefault(tuple(step.reasons.items()), []).append(step)
    for reasons, group in alike.items():
        names = [step.batch for step in group if step.batch is not None]
        yield f"{TITLES[level]}{f' ({_names(names)})' if names else ''}"
        width = max(len(asset) for asset, _ in reasons)
        yield from (f"  {asset:<{width}}  {reason}" for asset, reason in reasons)


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_SHOWN:,} more" if len(names) > NUM_SHOWN else ""
    return ", ".join(names[:NUM_SHOWN]) + more
