"""`empty_datasets`: written by what selects a dataset, whenever it comes to be empty or no longer is."""

import dagster as dg
import polars as pl

from dasd_assets.records.provenance import origin
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Row, Warehouse


def record_empty(
    context: dg.AssetExecutionContext, warehouse: Warehouse, recipe: Recipe, dataset: str, row: Row | None
) -> None:
    """Store why a dataset is empty, with a warning; None where it is not. What is unchanged makes no commit."""
    if row is not None:
        context.log.warning(f"the {dataset} dataset is empty, so its stage of training is skipped: {row['reason']}")
    known = empty_datasets(warehouse, recipe.name).get(dataset)
    if row != (known and {name: value for name, value in known.items() if name != "run_id"}):
        rows = pl.DataFrame([row] if row is not None else [], infer_schema_length=None)
        with warehouse.commit(origin(context)) as transaction:
            transaction.replace("empty_datasets", {"recipe": recipe.name, "dataset": dataset}, rows)
