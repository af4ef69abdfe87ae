"""The page `dasd run` ends with: what was made, what was dropped, what the student gained, where it lies."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import dagster as dg

from dasd_assets.records.materializations import latest_materializations
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.report import ReportData, find
from dasd_assets.rules.checkpoints import trained_names
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.tables import TABLES
from dasd_resources.storage.warehouse import Row, Warehouse


def summary(
    instance: dg.DagsterInstance, definitions: dg.Definitions, warehouse: Warehouse, engines: Engines, recipe: Recipe
) -> str:
    """The whole page as text."""
    findings = find(warehouse, engines, recipe, usable_batches(instance, warehouse))
    parts = [
        _section("Rows", _row_counts(warehouse)),
        _section("Responses dropped", _drops(findings)),
        _section("Share of teacher sentences", _teacher_shares(findings)),
        _section(
            "Accuracy on held-out questions", _accuracies(findings, recipe, empty_datasets(warehouse, recipe.name))
        ),
        _section("Time per stage", _times(instance, definitions)),
        _section("Where things lie", _places(warehouse, recipe, findings)),
    ]
    return "\n\n".join(["", f"Distillation {recipe.name}", *parts])


def _section(title: str, lines: Iterable[str]) -> str:
    return "\n".join([title, *[f"  {line}" for line in lines]])


def _row_counts(warehouse: Warehouse) -> list[str]:
    counted = [name for name, table in TABLES.items() if table.in_summary]
    query = " UNION ALL ".join(f"SELECT '{name}' AS name, count(*) AS num_rows FROM {name}" for name in counted)
    return [f"{name:<24}{count:>10,}" for name, count in warehouse.read(query).iter_rows()]


def _drops(findings: ReportData) -> list[str]:
    return [
        f"T={row['temperature']:<5g}{row['filter']:<14}{row['num_dropped']:>8,} of {row['num_judged']:,}"
        for row in findings.drops.iter_rows(named=True)
    ]


def _teacher_shares(findings: ReportData) -> list[str]:
    return [
        f"{'correct' if row['correct'] else 'incorrect':<10} {row['teacher_share']:.3f}  (n={row['num_responses']:,})"
        for row in findings.teacher_share.iter_rows(named=True)
    ]


def _accuracies(findings: ReportData, recipe: Recipe, empty: Mapping[str, Row]) -> list[str]:
    lines = [
        f"{row['checkpoint']:<9}{row['benchmark']}, T={row['temperature']:<4g} "
        f"{_accuracy(row)}  ({row['num_questions']} questions, {row['num_answers']} answers{_failed(row)})"
        for row in findings.accuracies.iter_rows(named=True)
    ]
    made = findings.checkpoints["name"]
    skipped = [name for name in trained_names(recipe) if name in empty and name not in made]
    return lines + [f"{name:<9}skipped: the {name} dataset is empty: {empty[name]['reason']}" for name in skipped]


def _accuracy(row: Row) -> str:
    if row["accuracy"] is None:
        return f"incomplete, {row['num_missing']:,} answers are missing"
    error = row["standard_error"]
    return f"{row['accuracy']:.3f}" + (" (no standard error)" if error is None else f" ± {error:.3f}")


def _failed(row: Row) -> str:
    return f", {row['num_failed']:,} failed and count as wrong" if row["num_failed"] else ""


def _times(instance: dg.DagsterInstance, definitions: dg.Definitions) -> list[str]:
    """Seconds each asset took in the last run that materialized it, over its batches; not those that are no more."""
    graph = definitions.resolve_asset_graph()
    partitioned = {key.to_user_string(): graph.get(key).is_partitioned for key in graph.toposorted_asset_keys}
    made = latest_materializations(instance, partitioned)
    runs = {name: {one.run_id for one in latest.values()} for name, latest in made.items() if latest}
    took = {run_id: run_seconds(instance, run_id) for run_id in set[str]().union(*runs.values())}
    seconds = {name: sum(took[run_id].get(name, 0.0) for run_id in of_asset) for name, of_asset in runs.items()}
    return [f"{name:<28}{value:>8.1f} s" for name, value in sorted(seconds.items(), key=lambda item: -item[1])]


def run_seconds(instance: dg.DagsterInstance, run_id: str) -> dict[str, float]:
    """Step -> its seconds in a run."""
    steps = instance.get_run_step_stats(run_id)
    return {step.step_key: seconds_of([(step.start_time, step.end_time)]) for step in steps}


def seconds_of(steps: Iterable[tuple[float | None, float | None]]) -> float:
    """From the start to the end of each step; one of a process that was killed has no end, and counts nothing."""
    return sum((end - start for start, end in steps if start is not None and end is not None), 0.0)


def _places(warehouse: Warehouse, recipe: Recipe, findings: ReportData) -> list[str]:
    home = Path(warehouse.home)
    lines = [
        f'tables       {warehouse.catalog}   (dasd sql "SELECT … FROM sft_examples")',
        f"plots        {home / 'reports' / recipe.name}",
    ]
    lines += [f"{row['name']:<13}{warehouse.folder(row['path'])}" for row in findings.trained.iter_rows(named=True)]
    return [*lines, "web UI       dasd ui, then open the address it prints"]
