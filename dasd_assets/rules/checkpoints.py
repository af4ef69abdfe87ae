"""The chain of checkpoints in force: teacher, student, and each one trained from the one before.

A trained checkpoint is named for the dataset it was trained on, so that it keeps its name when the recipe gets another
temperature; its stage, its place in the order of training, may then change.
"""

import polars as pl

from dasd_assets.rules.asset_names import DAS, MIXED, ROLES, checkpoint_asset, dataset_asset
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_assets.rules.rule import Rule
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake

CHAIN_VERSION = "1"
CHAIN = Rule("checkpoint chain", CHAIN_VERSION, ("name", "generation.temperatures"))


def trained_names(recipe: Recipe) -> tuple[str, ...]:
    """Names of the trained checkpoints, in order: that of each temperature's dataset, then that of the mixed one."""
    return (*recipe.datasets, MIXED)


def checkpoint_names(recipe: Recipe) -> tuple[str, ...]:
    """Teacher and student, then `trained_names`."""
    return (*ROLES, *trained_names(recipe))


def stage(recipe: Recipe, name: str) -> int | None:
    """0 for the untrained student, 1 for what is trained from it, and so on; None for the teacher."""
    return ROLES[name] if name in ROLES else 1 + trained_names(recipe).index(name)


def chain_reads(recipe: Recipe) -> dict[str, list[str]]:
    """Table -> assets: what `current_checkpoints` reads, for the declaration of an asset that calls it."""
    return {
        "checkpoints": [checkpoint_asset(name) for name in checkpoint_names(recipe)],
        "sft_examples": list(map(dataset_asset, trained_names(recipe))),
        "empty_datasets": [],
    }


def undistilled_student(lake: Lake, recipe: Recipe) -> str | None:
    """The fingerprint of the student that the recipe begins with; None before it is registered."""
    query = """SELECT checkpoint_id FROM checkpoints WHERE recipe = $recipe AND name = 'student'
        ORDER BY materialized_at DESC LIMIT 1"""
    found = lake.read(query, {"recipe": recipe.name})["checkpoint_id"]
    return str(found[0]) if found.len() else None


def current_checkpoints(lake: Lake, recipe: Recipe) -> pl.DataFrame:
    """The `checkpoints` rows now in force, in order: teacher, student, and each one that descends from that student.

    One trained from an earlier parent is left out: it is not of this chain. So is one whose dataset is empty by now:
    the next one is trained from the one before it.
    """
    query = f"""SELECT * FROM checkpoints WHERE recipe = $recipe AND (dataset IS NULL OR dataset IN (
            SELECT dataset FROM sft_examples WHERE recipe = $recipe AND policy = '{DAS}'))
        QUALIFY row_number() OVER (PARTITION BY name ORDER BY materialized_at DESC) = 1"""
    known = lake.read(query, {"recipe": recipe.name})
    newest = {row["name"]: row for row in known.to_dicts()}
    chain, empty = [newest[role] for role in ROLES if role in newest], empty_datasets(lake, recipe.name)
    for name in trained_names(recipe):
        if name in newest and newest[name]["parent_checkpoint_id"] == chain[-1]["checkpoint_id"]:
            chain.append(newest[name])
        elif name not in empty:
            break
    return pl.DataFrame(chain, schema=known.schema)
