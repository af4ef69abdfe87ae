"""When an asset is overdue: days without a materialization, as the recipe sets them for each kind of work.

It says that nothing new has come, not that something is out of date: `staleness` knows that, whatever the clock says.
"""

from datetime import timedelta

import dagster as dg

from dasd_assets.rules.asset_names import checkpoint_asset, selection_asset
from dasd_assets.rules.checkpoints import trained_names
from dasd_resources.recipe import Recipe


def freshness_policy(recipe: Recipe, key: dg.AssetKey) -> dg.FreshnessPolicy | None:
    """The policy of an asset: it warns after the recipe's days, and fails after twice as many."""
    days = _days(recipe, key.to_user_string())
    if days is None:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=timedelta(days=2 * days), warn_window=timedelta(days=days))


def _days(recipe: Recipe, asset: str) -> int | None:
    if asset == "prompts":
        return recipe.freshness.prompts_days
    if asset in map(selection_asset, recipe.datasets):
        return recipe.freshness.selection_days
    if asset in map(checkpoint_asset, trained_names(recipe)):
        return recipe.freshness.training_days
    return None
