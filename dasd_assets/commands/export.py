"""`dasd export`: the training sets of a recipe as a dataset for others."""

import argparse
from pathlib import Path

from dasd_assets.definitions import EnvironmentEngines
from dasd_assets.published_dataset.forms import FORMS
from dasd_assets.published_dataset.hub import push
from dasd_assets.published_dataset.release import ExportError, write_release
from dasd_assets.records.wording import number_of
from dasd_resources.recipe import Export, load_recipe
from dasd_resources.storage.warehouse import Warehouse
from dasd_resources.visible_text import show


def command(args: argparse.Namespace) -> int:
    """Write the release, say what is in it, and upload it if that is asked for."""
    recipe = load_recipe(args.recipe or args.default_recipe, args.home)
    warehouse = Warehouse(home=str(args.home))
    warehouse.require()
    folder = Path(args.folder).resolve()
    settings = _settings(recipe.export or Export(), args)
    manifest = write_release(warehouse, EnvironmentEngines(home=str(args.home)), recipe, settings, folder, args.at)
    for part in manifest.configs:
        show(f"{part.config:<20}{part.num_rows:>12,} rows in {number_of(part.num_files, 'file')}")
    show(f"{folder}: form {settings.form}, snapshot {manifest.snapshot_id}, {len(manifest.files)} files")
    if args.push:
        show(push(folder, args.push, public=args.public))
    return 0


def _settings(settings: Export, args: argparse.Namespace) -> Export:
    """The recipe's, with what the command line says instead."""
    if args.form is not None and args.form not in FORMS:
        raise ExportError(f"unknown form {args.form!r}; known are {', '.join(FORMS)}")
    named = {"form": args.form, "logprobs": args.logprobs, "control": args.control}
    return settings.model_copy(update={key: value for key, value in named.items() if value is not None})
