"""`dasd run`: bring everything up to date in this process, and nothing that already is.

Landed files become batches; every stale asset is materialized, first what all batches need, then batch by batch, then
what reads them all. Asked for certain assets, it materializes exactly these.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import dagster as dg
from dagster import DagsterError

from dasd_assets.evaluation import benchmark_version
from dasd_assets.gates import closed_gate
from dasd_assets.partitions import PROMPT_BATCH, batches
from dasd_assets.prompts import landed_batches
from dasd_assets.recovery import fail_abandoned_runs, owner
from dasd_assets.staleness import Stale, stale_assets
from dasd_resources.engines import Engines
from dasd_resources.recipe import Recipe

Echo = Callable[[str], None]
MAX_ATTEMPTS = 3  # of the same step for the same reasons: beyond, materializing does not help


class RunFailed(RuntimeError):
    """A materialization failed; the message names the asset and its error."""


def bring_up_to_date(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    recipe: Recipe,
    engines: Engines,
    home: Path,
    echo: Echo,
) -> int:
    """Materialize what is stale; returns the number of materializations. Raises RunFailed or RecipeError."""
    roots = root_versions(engines, recipe)
    register_batches(instance, home, echo)
    done = 0
    tried: list[list[Stale]] = []
    while stale := stale_assets(instance, definitions, batches(instance), roots):
        step = next_step(stale, list(roots))
        tried.append(step)
        if tried.count(step) > MAX_ATTEMPTS:
            first = step[0]
            raise RunFailed(
                f"{first.asset} is still out of date ({first.reason}) after {MAX_ATTEMPTS} materializations"
            )
        reasons = {s.asset: s.reason for s in step}
        where = f" of batch {step[0].batch}" if step[0].batch else ""
        echo(f"materializing {len(step)} assets{where}: " + ", ".join(f"{a} ({r})" for a, r in reasons.items()))
        execute(instance, definitions, list(reasons), step[0].batch, home)
        done += len(step)
    return done


def root_versions(engines: Engines, recipe: Recipe) -> dict[str, str]:
    """Asset -> data version of what lies outside: models and benchmark files. Raises RecipeError if one is missing."""
    return {
        "teacher_model": engines.find(recipe.teacher, "teacher.model").fingerprint,
        "student_model": engines.find(recipe.student, "student.model").fingerprint,
        "benchmark_questions": benchmark_version(recipe),
    }


def register_batches(instance: dg.DagsterInstance, home: Path, echo: Echo) -> None:
    """Make a partition of every landed file that has none."""
    assert PROMPT_BATCH.name is not None
    new = sorted(set(landed_batches(home)) - set(batches(instance)))
    if new:
        instance.add_dynamic_partitions(PROMPT_BATCH.name, new)
        echo(f"{len(new)} new prompt batches: {', '.join(new)}")


def next_step(stale: Sequence[Stale], roots: Sequence[str]) -> list[Stale]:
    """The stale assets to materialize in one run: the roots, else one batch's, else the unpartitioned rest."""
    for chosen in ([s for s in stale if s.asset in roots], [s for s in stale if s.batch is not None]):
        if chosen:
            return [s for s in chosen if s.batch == chosen[0].batch]
    return list(stale)


def materialize_selected(
    instance: dg.DagsterInstance, definitions: dg.Definitions, selection: str, home: Path, echo: Echo
) -> int:
    """Materialize the assets of a Dagster selection (`response_scores+`), stale or not, in every batch."""
    register_batches(instance, home, echo)
    graph = definitions.resolve_asset_graph()
    keys = list(graph.toposorted_asset_keys)
    try:
        parts = [dg.AssetSelection.from_string(part.strip()) for part in selection.split(",")]
        chosen = set().union(*[part.resolve(graph) for part in parts])
    except DagsterError as error:
        raise RunFailed(
            f"--select {selection!r}: {error}; write names, 'a,b', or 'a+' for a and all below it"
        ) from None
    if not chosen:
        known = ", ".join(key.to_user_string() for key in keys)
        raise RunFailed(f"--select {selection!r} names no asset; there are: {known}")
    per_batch = [key for key in keys if key in chosen and graph.get(key).is_partitioned]
    single = [key for key in keys if key in chosen and not graph.get(key).is_partitioned]
    roots = [key for key in single if not graph.get(key).parent_keys]
    steps = [(roots, None), *[(per_batch, batch) for batch in batches(instance)]]
    steps.append(([key for key in single if key not in roots], None))
    for assets, batch in steps:
        if assets:
            names = [key.to_user_string() for key in assets]
            echo(f"materializing {', '.join(names)}" + (f" of batch {batch}" if batch else ""))
            execute(instance, definitions, names, batch, home)
    return sum(len(assets) for assets, _ in steps)


def execute(
    instance: dg.DagsterInstance, definitions: dg.Definitions, assets: Sequence[str], batch: str | None, home: Path
) -> None:
    """One Dagster run in this process. Raises RunFailed with the first error."""
    fail_abandoned_runs(instance, home)
    job = definitions.resolve_implicit_global_asset_job_def()
    with owner(home) as tags:
        result = job.execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(name) for name in assets],
            partition_key=batch,
            raise_on_error=False,
            run_config={"loggers": {"console": {}}},
            tags=tags,
        )
    if not result.success:
        raise RunFailed(_first_error(result))


def _first_error(result: dg.ExecuteInProcessResult) -> str:
    if told := closed_gate(result):
        return told
    failures = [event for event in result.all_events if event.is_step_failure]
    if not failures:
        return f"run {result.run_id} failed before its first step"
    error = failures[0].step_failure_data.error
    cause = error.cause if error is not None and error.cause is not None else error
    message = failures[0].step_failure_data.user_failure_data
    told = (
        message.description
        if message and message.description
        else (cause.message.strip() if cause else "unknown error")
    )
    return f"{failures[0].step_key}: {told}"
