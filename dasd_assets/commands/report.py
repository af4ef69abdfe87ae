"""`dasd report`: write the report of a recipe anew from the warehouse, print its path, and open it if asked to."""

import argparse
import webbrowser

from dasd_assets.commands.messages import echo
from dasd_assets.definitions import EnvironmentEngines
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.report import find, pictures, report_folder, write
from dasd_assets.report.page import PAGE
from dasd_assets.rules.recipe_names import check_names
from dasd_assets.service.instance import open_instance
from dasd_resources.home import prepare_home
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.warehouse import Warehouse


def command(args: argparse.Namespace) -> int:
    """The page says what there is so far; no table and no materialization is written."""
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    check_names(recipe)
    warehouse, engines = Warehouse(home=str(args.home)), EnvironmentEngines(home=str(args.home))
    warehouse.require()
    with open_instance(prepare_home(args.home, args.dagster_home)) as instance:
        batches = usable_batches(instance, warehouse)
    data = find(warehouse, engines, recipe, batches)
    folder = report_folder(warehouse, recipe)
    write(data, pictures(data), recipe, folder)
    page = (folder / PAGE).resolve()
    echo(f"the report of {recipe.name}: {page}")
    if args.open and not webbrowser.open(page.as_uri()):
        echo("no browser could be started here; open that file in one")
    return 0
