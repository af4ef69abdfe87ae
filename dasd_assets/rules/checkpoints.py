"""The chain of checkpoints in force: teacher, student, and each stage trained from the one before."""

import polars as pl

from dasd_assets.rules.rule import Rule
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake

CHAIN_VERSION = "1"
CHAIN = Rule("checkpoint chain", CHAIN_VERSION, ("name", "generation.temperatures"))
MIXED = "mixed"


def stages(recipe: Recipe) -> dict[str, str]:
    """Stage name -> the dataset it trains on, in order: one stage per temperature, then the mixed-policy stage."""
    return {f"stage{number}": dataset for number, dataset in enumerate([*recipe.datasets, MIXED], start=1)}


def current_checkpoints(lake: Lake, recipe: Recipe) -> pl.DataFrame:
    """The `checkpoints` rows now in force, in order: teacher, student, and each stage that descends from that student.

    A stage trained on an earlier parent is left out: it is not of this chain. So is one whose dataset is empty by now.
    """
    query = """SELECT * FROM checkpoints c WHERE recipe = $recipe AND (dataset IS NULL OR EXISTS (
            FROM sft_examples e WHERE e.recipe = c.recipe AND e.dataset = c.dataset))
        QUALIFY row_number() OVER (PARTITION BY stage ORDER BY materialized_at DESC) = 1"""
    known = lake.read(query, {"recipe": recipe.name})
    newest = {row["stage"]: row for row in known.to_dicts()}
    chain = [newest[role] for role in ("teacher", "student") if role in newest]
    for stage in stages(recipe):
        if stage not in newest or newest[stage]["parent_checkpoint_id"] != chain[-1]["checkpoint_id"]:
            break
        chain.append(newest[stage])
    return pl.DataFrame(chain, schema=known.schema)
