"""A Dagster run in this process: of `dasd run`, of a command that loads a model, and within the service's own runs."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from uuid import uuid4

import dagster as dg

from dasd_assets.records.dagster_internals import MAX_RETRIES_TAG, BaseAssetGraph, in_code_location
from dasd_assets.service.attempts import ONLY_CHECKED, UNCHECKED, step_error
from dasd_assets.service.gates import closed_gate
from dasd_assets.service.recovery import OF_COMMAND, canceled_if_interrupted, fail_abandoned_runs, owner
from dasd_resources.errors import UserError
from dasd_resources.recipe import RecipeError


class RunFailed(UserError, RuntimeError):
    """A materialization failed; the message names the asset and its error."""


def execute(
    instance: dg.DagsterInstance,
    definitions: dg.Definitions,
    assets: Sequence[str],
    batch: str | None,
    home: Path,
    tags: Mapping[str, str] | None = None,
    unchecked: Collection[str] = (),
    only_checks: bool = False,
    logger: str | None = "console",
) -> None:
    """One Dagster run in this process. Raises RunFailed with the first error, or RecipeError.

    unchecked: assets whose blocking checks are left to a later run, until which nothing is made from them. only_checks:
    run these checks alone, of the assets as they are. logger: of the definitions; None for the one of Dagster itself.
    """
    fail_abandoned_runs(instance, home)
    job = definitions.resolve_implicit_global_asset_job_def()
    keys = [dg.AssetKey(name) for name in assets]
    graph = definitions.resolve_asset_graph()
    if unchecked:
        checks = _checks(graph, assets) - _checks(graph, unchecked, blocking=True)
        job, keys = job.get_subset(asset_selection=set(keys), asset_check_selection=checks), []
        tags = {**(tags or {}), UNCHECKED: "true"}
    if only_checks:
        checks = _checks(graph, assets, blocking=True)
        job, keys = job.get_subset(asset_selection=set(), asset_check_selection=checks), []
        tags = {**(tags or {}), ONLY_CHECKED: "true"}
    result = run_here(instance, job, home, tags, keys, batch, logger)
    if not result.success:
        raise _first_error(result)


def run_here(
    instance: dg.DagsterInstance,
    job: dg.JobDefinition,
    home: Path,
    tags: Mapping[str, str] | None = None,
    assets: Sequence[dg.AssetKey] | None = None,
    batch: str | None = None,
    logger: str | None = "console",
) -> dg.ExecuteInProcessResult:
    """A run of the job, which has this logger, in this process, as whose it is known if it is killed."""
    run_id = str(uuid4())
    with owner(home) as owned, canceled_if_interrupted(instance, home, run_id, owned), in_code_location(instance, job):
        return job.execute_in_process(
            instance=instance,
            run_id=run_id,
            asset_selection=assets,
            partition_key=batch,
            raise_on_error=False,
            run_config={"loggers": {logger: {}}} if logger else None,
            tags={
                **owned,
                **(tags or {}),
                OF_COMMAND: run_id,
                MAX_RETRIES_TAG: "0",
            },  # the service must not start it again
        )


def _checks(graph: BaseAssetGraph, assets: Collection[str], blocking: bool = False) -> set[dg.AssetCheckKey]:
    """The checks of these assets. blocking: only those that block."""
    every = [graph.get(check) for name in assets for check in graph.get(dg.AssetKey(name)).check_keys]
    return {check.key for check in every if check.blocking or not blocking}


def _first_error(result: dg.ExecuteInProcessResult) -> RunFailed | RecipeError:
    if message := closed_gate(result):
        return RunFailed(message)
    failures = [event for event in result.all_events if event.is_step_failure]
    if not failures:
        return RunFailed(f"run {result.run_id} failed before its first step")
    error = failures[0].step_failure_data.error
    of_recipe = error and error.cause and error.cause.cls_name == RecipeError.__name__  # such as a model not there
    return (RecipeError if of_recipe else RunFailed)(step_error(failures[0]))
