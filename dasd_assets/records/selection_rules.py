"""`selection_rules`: everything that decided a selection, stored with it, so that an audit can explain it later.

A selection depends on the recipe, on the fingerprints of its models and on the batches that existed. The recipe's file
may have changed by the time of the audit, so all of it is stored as JSON, one row per recipe and dataset.
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import dagster as dg
import polars as pl

from dasd_assets.records.provenance import origin
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def selection_rule(
    recipe: Recipe, dataset: str, pool: Mapping[str, object], domain_means: Mapping[str, float]
) -> dict[str, object]:
    """Everything that decides a dataset's selection and its control.

    pool: of `pool_params`. domain_means: of `create_pool_table`.
    """
    return {
        **pool,
        "policy": recipe.selection.policy,
        "max_per_question": recipe.selection.max_per_question,
        "domain_means": dict(domain_means),
        "budget": recipe.selection.budgets.get(dataset, {}),
        "questions_per_domain": recipe.generation.questions_per_domain,
        "question_order": recipe.generation.question_order,
        "seed": recipe.seed,
        "threshold": recipe.selection.divergence.threshold,
        "segmenter_version": SEGMENTER_VERSION,
    }


def mixture_rule(recipe: Recipe, num_on_policy: int, num_drawn: int) -> dict[str, object]:
    """Everything that decides which selected responses the mixed-policy dataset draws."""
    return {
        "drawn_from": recipe.last_dataset,
        "temperature": recipe.datasets[recipe.last_dataset],
        "ratio": recipe.mixed_policy.off_policy_ratio,
        "seed": recipe.seed,
        "num_on_policy": num_on_policy,
        "num_drawn": num_drawn,
    }


def record_rule(
    context: dg.AssetExecutionContext, warehouse: Warehouse, recipe: Recipe, dataset: str, rule: Mapping[str, object]
) -> None:
    """Replace the rule of a recipe and dataset; an unchanged one makes no commit."""
    key, text = {"recipe": recipe.name, "dataset": dataset}, json.dumps(rule, sort_keys=True, ensure_ascii=False)
    query = "SELECT rule FROM selection_rules WHERE recipe = $recipe AND dataset = $dataset"
    if warehouse.read(query, key)["rule"].to_list() != [text]:
        row = pl.DataFrame({**{k: [v] for k, v in key.items()}, "rule": [text], "selected_at": [datetime.now(UTC)]})
        with warehouse.commit(origin(context)) as transaction:
            transaction.replace("selection_rules", key, row)
