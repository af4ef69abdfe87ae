"""Another recipe's selection as this one's (`selection_from`; report §7: one student's set trains a larger student).

`selected_responses` of the other recipe -> `selected_responses` of this one, of both policies, less what is too long in
this student's tokens. Nothing is scored by this student; rank, score and threshold are the other recipe's. Stands in
place of `selection` and `random_responses`. Left out: filling the places of what is too long.
"""

import dagster as dg
import polars as pl

from dasd_assets.random_responses import require_some
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.empty_datasets import record_empty
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.records.selection_rules import record_rule
from dasd_assets.rules.asset_names import (
    CONTROL_ASSET,
    DAS,
    RANDOM,
    SOURCE_ASSET,
    generation_asset,
    selection_asset,
)
from dasd_assets.rules.candidates import held_out_share
from dasd_assets.rules.empty_datasets import empty_selection
from dasd_assets.rules.filters.catalogue import FILTERING, filter_version
from dasd_assets.rules.ids import selection_id
from dasd_assets.rules.selection_source import (
    CARRIED,
    SAMPLING,
    SELECTION_SOURCE,
    source_fault,
    source_rules,
    source_version,
)
from dasd_assets.selection import ranks_version, selection_audit, write_rows
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`selection_source`, `selected_responses_…` and `random_responses`, where the recipe names another."""
    if recipe.selection_from is None:
        return []
    selected = [_carried(recipe, selection_asset(dataset), [dataset], DAS) for dataset in recipe.datasets]
    return [_source(recipe), *selected, _carried(recipe, CONTROL_ASSET, list(recipe.datasets), RANDOM)]


def _source(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        SOURCE_ASSET,
        reads={"selected_responses": (), "selection_rules": ()},
        rules=[SELECTION_SOURCE],
        parts=["generation.temperatures", *SAMPLING.values()],
    )

    @declared.asset(
        group="selection",
        kinds={"ducklake"},
        description=f"The selection of recipe {recipe.selection_from}, which this recipe trains its student on.",
    )
    def selection_source(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        fault = source_fault(warehouse, recipe, engines.fingerprint(recipe.teacher, "teacher.model"))
        if fault is not None:
            raise dg.Failure(fault)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(source_version(warehouse, recipe)),
            metadata={"recipe": str(recipe.selection_from), **declared.code_version.metadata},
        )

    return selection_source


def _carried(recipe: Recipe, name: str, datasets: list[str], policy: str) -> dg.AssetsDefinition:
    which = {"dataset": datasets[0]} if policy == DAS else {}
    of_rows = " AND ".join(f"{column} = '{value}'" for column, value in {**which, "policy": policy}.items())
    selected = {} if policy == DAS else {"empty_datasets": list(map(selection_asset, datasets))}
    declared = declare(
        recipe,
        name,
        ["selected_responses", *(["selection_rules", "empty_datasets"] if policy == DAS else [])],
        reads={
            "selected_responses": SOURCE_ASSET,
            "selection_rules": SOURCE_ASSET,
            "response_verdicts": "response_verdicts",
            "prompts": "prompts",
            "quarantined_batches": (),
            **selected,
        },
        looks_up={"responses": list(map(generation_asset, datasets))},
        models=["student_model"],
        rules=[SELECTION_SOURCE, FILTERING],
        parts=["generation.temperatures", "heldout.questions"],
        rows=of_rows,
    )

    @declared.asset(
        group="selection",
        kinds={"ducklake"},
        description=f"One row per response of policy {policy} that recipe {recipe.selection_from} has selected.",
    )
    def carried_responses(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        existing = usable_batches(context.instance, warehouse)
        read = declared.read_tags(context.instance, existing)
        if policy != DAS:
            require_some(warehouse, recipe)
        version = filter_version(recipe, engines.fingerprint(recipe.student, "student.model"))
        parts = []
        for dataset in datasets:
            found = carried(warehouse, recipe, dataset, policy, version, existing)
            parts.append(found)
            write_rows(context, warehouse, recipe, dataset, policy, kept_rows(found, recipe))
            if policy == DAS:
                _record(context, warehouse, recipe, dataset, found, version, existing)
        rows = {"recipe": recipe.name, "policy": policy, **which}
        return _result(warehouse, recipe, declared, rows, of_rows, pl.concat(parts), read)

    return carried_responses


def carried(
    warehouse: Warehouse, recipe: Recipe, dataset: str, policy: str, version: str, batches: list[str]
) -> pl.DataFrame:
    """The other recipe's rows of a dataset and policy, each with `outcome`: `kept`, or why it is not.

    version: of this recipe's filters. batches: existing, not quarantined.
    """
    key = {"source": recipe.selection_from, "dataset": dataset, "policy": policy}
    known = {"filter_version": version, "batches": batches, "held_out_share": held_out_share(recipe)}
    found = warehouse.read(CARRIED, {**key, **known})
    outcome = (
        pl.when(~pl.col("present"))
        .then(pl.lit("absent"))  # its question was withdrawn, or its batch is gone
        .when(pl.col("held_out"))
        .then(pl.lit("held_out"))
        .when(pl.col("fits").is_null())
        .then(pl.lit("unjudged"))
        .when(~pl.col("fits"))
        .then(pl.lit("too_long"))
        .otherwise(pl.lit("kept"))
    )
    return found.with_columns(outcome=outcome)


def kept_rows(found: pl.DataFrame, recipe: Recipe) -> pl.DataFrame:
    """Rows of `selected_responses` of this recipe: the other's, with `selected_by` the recipe that ranked them."""
    kept = found.filter(pl.col("outcome") == "kept").drop("present", "held_out", "fits", "reason", "outcome")
    identity = None
    if kept.height:
        row = kept.row(0, named=True)
        identity = selection_id(row["dataset"], row["policy"], row["selection_version"], kept["response_id"])
    return kept.with_columns(
        recipe=pl.lit(recipe.name),
        selection_id=pl.lit(identity, pl.String),
        selected_by=pl.coalesce("selected_by", pl.lit(recipe.selection_from)),
    )


def _record(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    recipe: Recipe,
    dataset: str,
    found: pl.DataFrame,
    version: str,
    batches: list[str],
) -> None:
    """Keep what decided the dataset, and why it is empty, if it is."""
    source = str(recipe.selection_from)
    rule = {
        **source_rules(warehouse, source)[dataset],
        "selection_from": source,
        "length_version": version,
        "held_out_share": held_out_share(recipe),
        "batches": batches,
    }
    record_rule(context, warehouse, recipe, dataset, rule)
    empty = None
    if (found["outcome"] != "kept").all():
        empty = empty_selection(recipe.name, dataset, found.height, f"recipe {source} had selected: {_counted(found)}")
    record_empty(context, warehouse, recipe, dataset, empty)


def _counted(found: pl.DataFrame) -> str:
    counts = found["outcome"].value_counts(sort=True).iter_rows()
    return ", ".join(f"{number:,} {outcome.replace('_', ' ')}" for outcome, number in counts) or "nothing"


def _result(
    warehouse: Warehouse,
    recipe: Recipe,
    declared: Declaration,
    rows: dict[str, str],
    of_rows: str,
    found: pl.DataFrame,
    read: dict[str, str],
) -> dg.MaterializeResult:
    counts = dict(found["outcome"].value_counts().iter_rows())
    kept = found.filter(pl.col("outcome") == "kept")
    return dg.MaterializeResult(
        data_version=ranks_version(kept),
        tags=read,
        metadata=declared.result(
            warehouse,
            kept.height,
            rows,
            selected_by=str(recipe.selection_from),
            num_selected_there=found.height,
            num_too_long=counts.get("too_long", 0),
            num_absent=counts.get("absent", 0),
            num_held_out=counts.get("held_out", 0),
            num_unjudged=counts.get("unjudged", 0),
            mean_score=kept.select(pl.mean("score")).item(),
            **selection_audit(warehouse, recipe, of_rows),
        ),
    )
