"""`dasd assets`: every asset of a recipe, what it makes, and whether it is current (no table)."""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import dagster as dg

from dasd_assets.commands.messages import echo
from dasd_assets.definitions import EnvironmentEngines, build_definitions
from dasd_assets.records.tags import EXPERIMENTS, UPKEEP
from dasd_assets.records.wording import number_of
from dasd_assets.service.instance import open_instance
from dasd_assets.service.planning import Outlook, Planner
from dasd_resources.home import prepare_home
from dasd_resources.json_text import json_text
from dasd_resources.recipe import RecipeError, load_recipe
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.visible_text import show

CURRENT = "current"
UNKNOWN = "unknown"
ON_DEMAND = "on demand"  # upkeep by its own schedule, experiments by their own command


@dataclass(frozen=True)
class ListedAsset:
    """makes: the first sentence of its description. state: `current`, or how much of it is out of date, and why."""

    asset: str
    group: str
    makes: str
    state: str


def command(args: argparse.Namespace) -> int:
    """In the order in which they are made."""
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    engines = EnvironmentEngines(home=str(args.home))
    definitions = build_definitions(recipe, args.home, engines)
    with open_instance(prepare_home(args.home, args.dagster_home)) as instance:
        planner = Planner(instance, definitions, recipe, engines, Warehouse(home=str(args.home)))
        try:
            outlook = planner.outlook()
        except RecipeError as error:  # such as a model that is not here: what there is to be made can be listed still
            echo(f"whether they are current cannot be known: {error}")
            outlook = None
    found = list(listed_assets(definitions, outlook))
    if args.json:
        show(json_text([asdict(one) for one in found]))
    else:
        show("\n".join(_page(found)))
    return 0


def listed_assets(definitions: dg.Definitions, outlook: Outlook | None) -> Iterator[ListedAsset]:
    """All assets, upstream first; outlook: None where it cannot be known."""
    graph = definitions.resolve_asset_graph()
    compared = _states(outlook) if outlook is not None else {}
    for key in graph.toposorted_asset_keys:
        node, name = graph.get(key), key.to_user_string()
        state = UNKNOWN if outlook is None else compared.get(name, CURRENT)
        if node.group_name in (UPKEEP, EXPERIMENTS):
            state = ON_DEMAND
        elif outlook is not None and node.is_partitioned and not outlook.batches:
            state = "no prompt file has landed"
        makes = (node.description or "").split("\n")[0].split(". ")[0].rstrip(".")
        yield ListedAsset(name, node.group_name or "", makes, state)


def _states(outlook: Outlook) -> Mapping[str, str]:
    """Asset -> how much of it is out of date, and why, of those that are."""
    found: dict[str, str] = {}
    for name in dict.fromkeys(one.asset for one in outlook.stale):
        stale = [one for one in outlook.stale if one.asset == name]
        of_batches = [one for one in stale if one.batch is not None]
        usable = len(outlook.batches) - len(outlook.quarantined)
        some = f"{len(of_batches)} of {number_of(usable, 'batch', 'batches')}: " if of_batches and usable > 1 else ""
        found[name] = f"{some}{stale[0].reason}"
    return found


def _page(found: Sequence[ListedAsset]) -> Iterator[str]:
    width = max(len(one.asset) for one in found)
    for group in dict.fromkeys(one.group for one in found):
        yield group
        for one in (one for one in found if one.group == group):
            yield f"  {one.asset:<{width}}  {one.state}"
            yield f"  {'':<{width}}    {one.makes}"
