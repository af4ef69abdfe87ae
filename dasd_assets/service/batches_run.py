"""The run of the service that makes batches in rounds, each part of them by a run of its own in the same process.

A run of the service is a process, and so is each step where an engine holds its GPU: each would load its models anew.
So, where models take long to load (`rounds`), the service requests one run of the job `batches_in_rounds` for all that
is out of date, and no other for batches. It does what `dasd run` does: it plans, makes one part of one batch by an
asset run within itself, which is an attempt of its own and fails alone, and plans again, so that a batch that lands
meanwhile joins in. `kept_loaded` has the models: they are this process's, and end with it however it ends. Then
recovery.py marks both runs, and the next tick requests another, which continues from what was committed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg

from dasd_assets.records.dagster_internals import MAX_RETRIES_TAG, RUN_FAILURE_REASON_TAG, RunFailureReason
from dasd_assets.records.wording import number_of
from dasd_assets.service.attempts import UNFINISHED, Attempt
from dasd_assets.service.in_process import RunFailed, execute
from dasd_assets.service.jobs import owned
from dasd_assets.service.planning import Plan, Planner
from dasd_assets.service.recovery import INTERRUPTED, MAKER
from dasd_assets.service.rounds import Part, Round, next_part
from dasd_assets.service.steps import Level, Step
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.kept_loaded import free_kept_engine
from dasd_resources.recipe import Recipe, RecipeError

JOB, OP = "batches_in_rounds", "make_batches"
LEVELS_MADE: tuple[Level, ...] = ("models", "batch")
RECIPE = ".dagster/dasd_recipe"  # hash of the recipe that a run was requested under
OUTDATED = "dasd.outdated"  # on a run that is to end after the part it is making


def build(
    planner: Callable[[dg.DagsterInstance], Planner], home: Path, of_recipe: Sequence[Round], tags: Mapping[str, Any]
) -> dg.JobDefinition:
    """The job, with these tags. Dagster does not begin it again itself: the next tick does, if it is called for."""

    @dg.op(name=OP, out=dg.Out(dg.Nothing))
    def make_batches(context: dg.OpExecutionContext) -> None:
        try:
            made = make(planner(context.instance), of_recipe, home, context.run_id, context.log.info)
        finally:
            free_kept_engine()
        context.log.info(f"made {number_of(made, 'part')} of batches; nothing more may be made now")

    @dg.job(
        name=JOB,
        executor_def=owned(dg.in_process_executor, home),
        tags={**tags, MAX_RETRIES_TAG: "0"},
        description="All batches in rounds, each model loaded once for a round; requested by the service.",
    )
    def batches_in_rounds() -> None:
        make_batches()

    return batches_in_rounds


def requested(planner: Planner, of_recipe: Sequence[Round]) -> Plan:
    """What models and batches lack, as one step that a run of the job carries out; none while one is under way."""
    plan = planner.plan(LEVELS_MADE, of_recipe=of_recipe)
    under_way = planner.instance.get_runs(dg.RunsFilter(job_name=JOB, statuses=UNFINISHED))
    for run in under_way:
        if run.tags.get(RECIPE) not in (None, _hash(planner.recipe)):  # None: begun by hand
            planner.instance.add_run_tags(run.run_id, {OUTDATED: "the recipe has changed since it began"})
    if not plan.due or under_way:
        return replace(plan, due=[], active_runs=sorted({*plan.active_runs, *(run.run_id for run in under_way)}))
    steps = [attempt.step for attempt in plan.due]
    why = f"{number_of(len(steps), 'step')} out of date, the first {steps[0].target}: {steps[0].why}"
    # A retry, so that its errors are not limited, and begun again after any number of deaths: a batch that fails or
    # kills it is given up by itself.
    identity = content_hash(sorted(step.identity for step in steps))[:16]
    whole = Step("batch", None, {OP: why}, identity, only_retries=frozenset({OP}))
    found = planner.plan_of(whole)
    again = [Attempt(step, decision.number, decision.run_id, died=True) for step, decision in found.exhausted]
    return replace(plan, due=[*found.due, *again], waiting=[*plan.waiting, *found.waiting])


def requests(plan: Plan, recipe: Recipe) -> list[dg.RunRequest]:
    """A run of the job, if the plan calls for one."""
    return [
        dg.RunRequest(
            run_key=attempt.key,
            tags={**attempt.step.tags, RECIPE: _hash(recipe), "dasd.why": attempt.step.reasons[OP][:500]},
        )
        for attempt in plan.due
    ]


def make(
    planner: Planner, of_recipe: Sequence[Round], home: Path, maker: str, say: Callable[[str], None] = lambda _: None
) -> int:
    """Make part after part of what is due, until nothing is, or the run `maker` is to end; returns how many.

    A part that fails is an attempt at its batch: the plan leaves it to a later run, and the others go on.
    """
    made = 0
    part: Part | None = None
    while may_go_on(planner.instance, maker) and (due := planner.plan(LEVELS_MADE, of_recipe=of_recipe).due):
        part = next_part(due, of_recipe, part)
        step = part.step
        say(f"{step.target}: {step.why}")
        tags = {**step.tags, MAKER: maker, "dasd.why": step.why[:500]}
        try:
            execute(
                planner.instance,
                planner.definitions,
                step.assets,
                step.batch,
                home,
                tags,
                part.unchecked,
                part.only_checks,
                logger=None,
            )
            made += 1
        except (RunFailed, RecipeError) as error:
            _end_if_interrupted(planner.instance, maker)
            say(f"{step.target} failed, going on with the others: {error}")
    return made


def may_go_on(instance: dg.DagsterInstance, maker: str) -> bool:
    """Not if somebody has marked it as ended in the web UI, nor if its recipe is no longer the service's."""
    run = instance.get_run_by_id(maker)
    return run is not None and not run.is_finished and OUTDATED not in run.tags


def _end_if_interrupted(instance: dg.DagsterInstance, maker: str) -> None:
    """An interruption ends the run within as a failure, and goes no further: it was meant for this one."""
    for last in instance.get_runs(dg.RunsFilter(tags={MAKER: maker}), limit=1):
        if last.tags.get(RUN_FAILURE_REASON_TAG) == RunFailureReason.UNEXPECTED_TERMINATION.value:
            instance.add_run_tags(last.run_id, {INTERRUPTED: last.run_id})
            raise dg.DagsterExecutionInterruptedError


def _hash(recipe: Recipe) -> str:
    return content_hash(recipe.model_dump(mode="json"))[:16]
