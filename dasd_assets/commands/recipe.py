"""`dasd recipe`: a recipe as it is understood, whole or in short, and the schema that editors take (no table)."""

import argparse

from dasd_assets.rules.recipe_names import check_names
from dasd_resources.recipe import load_recipe
from dasd_resources.recipe.document import full_text, schema_text, short_text
from dasd_resources.visible_text import hand_over


def command(args: argparse.Namespace) -> int:
    """Prints YAML that `--recipe` takes, or JSON."""
    if args.schema:
        text = schema_text()
    else:
        recipe = load_recipe(args.recipe or args.default_recipe, args.home)
        check_names(recipe)
        text = full_text(recipe) if args.full else short_text(recipe)
    hand_over(text)
    return 0
