"""What an experiment has found: every arm against the baseline, paired by question and seed, with intervals."""

import dagster as dg
import polars as pl

from dasd_assets.evaluation.questions import EVALUATION
from dasd_assets.experiments.cells import CHECKPOINTS, EVALUATIONS, REPORT, answers, every_cell
from dasd_assets.experiments.checkpoints import declared_rule
from dasd_assets.records.declaration import declare
from dasd_assets.records.markdown import Cell, table
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import EXPERIMENTS
from dasd_assets.rules.statistics import STATISTICS, comparisons, mean_accuracy
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.storage.warehouse import Row, Warehouse

COLUMNS = ("arm", "benchmark", "temperature", "accuracy", "less baseline", "p (Holm)", "could have seen", "seeds")


def build(recipe: Recipe, experiment: Experiment) -> dg.AssetsDefinition:
    """`experiment_report_…`."""
    declared = declare(
        recipe,
        REPORT + experiment.name,
        "experiment_comparisons",
        reads={
            "experiment_cells": CHECKPOINTS + experiment.name,
            "checkpoints": CHECKPOINTS + experiment.name,
            "evaluations": EVALUATIONS + experiment.name,
            "evaluation_requests": EVALUATIONS + experiment.name,
            "failed_requests": EVALUATIONS + experiment.name,
            "benchmark_questions": "benchmark_questions",
        },
        rules=[declared_rule(experiment), EVALUATION, STATISTICS],
        parts=["name", "evaluation"],
        rows=f"experiment = '{experiment.name}'",
    )

    @declared.asset(
        group=EXPERIMENTS,
        kinds={"polars"},
        description=f"One row per arm, benchmark and temperature, against {experiment.baseline}. {experiment.title}.",
    )
    def experiment_report(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        found = answers(warehouse, recipe, experiment)
        if found.is_empty():
            raise dg.Failure(f"no cell has answered yet: materialize {EVALUATIONS}{experiment.name} first")
        compared = compared_arms(found, experiment)
        _write(warehouse, origin(context), {"recipe": recipe.name, "experiment": experiment.name}, compared)
        rows = result_rows(found, compared, experiment)
        return dg.MaterializeResult(
            data_version=content_version(map(str, rows)),
            metadata=declared.result(
                warehouse,
                compared.height,
                {"recipe": recipe.name, "experiment": experiment.name},
                result=table(COLUMNS, rows),
                report=experiment.report,
                baseline=experiment.baseline,
                num_cells=found.select("arm", "seed").n_unique(),
                num_cells_declared=len(every_cell(experiment)),
            ),
        )

    return experiment_report


def compared_arms(found: pl.DataFrame, experiment: Experiment) -> pl.DataFrame:
    """`comparisons` of every arm that has answered, where the baseline has. found: of `cells.answers`."""
    there = set(found["arm"])
    others = [arm for arm in experiment.arms if arm in there and arm != experiment.baseline]
    if experiment.baseline not in there or not others:
        return pl.DataFrame()
    return comparisons(found, experiment.baseline, others)


def _write(warehouse: Warehouse, origin: str, key: dict[str, str], compared: pl.DataFrame) -> None:
    """Replace the experiment's rows; unchanged ones make no commit."""
    query = "SELECT * FROM experiment_comparisons WHERE recipe = $recipe AND experiment = $experiment"
    stored, by = warehouse.read(query, key), ["arm", "benchmark", "temperature"]
    if compared.is_empty():
        new = stored.clear()
    else:
        new = compared.with_columns(pl.lit(value).alias(name) for name, value in key.items()).sort(by)
    if not stored.select(new.columns).sort(by).equals(new):
        with warehouse.commit(origin) as transaction:
            transaction.replace("experiment_comparisons", key, new)


def result_rows(found: pl.DataFrame, compared: pl.DataFrame, experiment: Experiment) -> list[dict[str, Cell | None]]:
    """A row of COLUMNS per arm, benchmark and temperature, as text.

    found: of `cells.answers`. compared: of `compared_arms`.
    """
    there = [arm for arm in experiment.arms if arm in set(found["arm"])]
    against = {(row["arm"], row["benchmark"], row["temperature"]): row for row in compared.to_dicts()}
    rows: list[dict[str, Cell | None]] = []
    settings = found.select("benchmark", "temperature").unique().sort("benchmark", "temperature")
    for benchmark, temperature in settings.iter_rows():
        of_setting = found.filter((pl.col("benchmark") == benchmark) & (pl.col("temperature") == temperature))
        for arm in there:
            rows.append(_row(of_setting.filter(pl.col("arm") == arm), against.get((arm, benchmark, temperature))))
    return rows


def _row(of_arm: pl.DataFrame, against: Row | None) -> dict[str, Cell | None]:
    mean, first = mean_accuracy(of_arm), of_arm.row(0, named=True)
    error = "" if mean.standard_error is None else f" ± {100 * mean.standard_error:.1f}"
    row: dict[str, Cell | None] = dict.fromkeys(COLUMNS)
    row |= {"arm": first["arm"], "benchmark": first["benchmark"], "temperature": first["temperature"]}
    row |= {"accuracy": f"{100 * mean.accuracy:.1f}{error}", "seeds": mean.num_seeds}
    if against is not None:
        row["less baseline"] = f"{100 * against['difference']:+.1f}"
        if against["low"] is not None:
            row["less baseline"] = f"{row['less baseline']} [{100 * against['low']:+.1f}, {100 * against['high']:+.1f}]"
            row["p (Holm)"] = f"{against['p_holm']:.3f}"
            row["could have seen"] = f"{100 * against['minimum_detectable_effect']:.1f}"
    return row
