"""Which runs count as attempts at a step, and where a step goes whose process died of it."""

import fcntl
import time
from dataclasses import replace

import dagster as dg
from conftest import Project, prompt_rows
from dagster._core.events import JobFailureData
from test_recovery import ORIGIN

from dasd_assets.commands.run import register_batches
from dasd_assets.records.dagster_internals import MAX_RETRIES_TAG, RunFailureReason
from dasd_assets.records.partitions import batches
from dasd_assets.records.quarantine import quarantine
from dasd_assets.service.attempts import (
    MAX_DEATHS,
    ONLY_CHECKED,
    UNCHECKED,
    AttemptDecision,
    decide,
    unfinished_runs,
)
from dasd_assets.service.planning import Planner
from dasd_assets.service.recovery import INTERRUPTED, OWNER, fail_abandoned_runs, owners
from dasd_assets.service.steps import Step
from dasd_resources.home import SERVICE_LOCK

STEP = Step("batch", "a-0", {"prompts": "never materialized"}, "step0")
KILLED = {OWNER: "0" * 32, MAX_RETRIES_TAG: "0"}  # the tags of `dasd run`


@dg.job
def some_job() -> None: ...


@dg.asset
def a() -> None: ...


@dg.asset
def b() -> None: ...


def abandon(project: Project, instance: dg.DagsterInstance, step: Step, of_service: bool) -> None:
    """A run of the step whose process is killed, and found to be."""
    tags, origin = (step.tags, ORIGIN) if of_service else ({**step.tags, **KILLED}, None)
    begun = dg.DagsterRunStatus.STARTED
    run = instance.create_run_for_job(some_job, tags=tags, status=begun, remote_job_origin=origin)
    (owners(project.home) / run.run_id).touch()
    assert fail_abandoned_runs(instance, project.home) == 1


def decision(project: Project, instance: dg.DagsterInstance, step: Step) -> AttemptDecision:
    return decide(instance, step, instance.get_run_records(), project.recipe.automation, (), 0.0)


def test_a_step_that_kills_dasd_run_is_given_up_after_many_deaths(project: Project) -> None:
    with project.instance() as instance:
        for number in range(1, MAX_DEATHS):
            abandon(project, instance, STEP, of_service=False)
            found = decision(project, instance, STEP)
            assert (found.kind, found.number, found.died) == ("due", number + 1, True)
        assert decision(project, instance, replace(STEP, identity="step1")) == AttemptDecision("due", 1)
        abandon(project, instance, STEP, of_service=False)
        found = decision(project, instance, STEP)
        assert found.kind == "exhausted"
        assert found.why == f"the process of run {found.run_id[:8]} was killed"


def test_runs_that_died_with_the_service_count_for_nothing(project: Project) -> None:
    with project.instance() as instance:
        for _ in range(MAX_DEATHS + 1):
            abandon(project, instance, STEP, of_service=True)
        assert decision(project, instance, STEP) == AttemptDecision("due", 1)


def test_a_batch_that_killed_its_process_comes_after_the_others_and_is_quarantined_in_the_end(project: Project) -> None:
    for number, name in enumerate("abc"):
        project.land(f"{name}.jsonl", prompt_rows(number, number + 1))
    project.materialize("teacher_model,student_model,held_out_questions")
    with project.instance() as instance:
        register_batches(instance, project.recipe, project.home, project.said.append)
        deadly, *others = batches(instance)
        planner = Planner(instance, project.definitions, project.recipe, project.engines, project.warehouse)
        first = planner.plan(["batch"]).due[0].step
        assert first.batch == deadly
        for more_deaths, expected in ((1, [*others, deadly]), (MAX_DEATHS - 1, others)):
            for _ in range(more_deaths):
                abandon(project, instance, first, of_service=False)
            assert [attempt.step.batch for attempt in planner.plan(["batch"], patient=False).due] == expected
    assert list(quarantine(project.warehouse).now) == [deadly]


def failed_run(instance: dg.DagsterInstance, step: Step) -> dg.DagsterRun:
    """An attempt at the step that ended with an error of it."""
    run = instance.create_run_for_job(some_job, tags={**step.tags, **KILLED}, status=dg.DagsterRunStatus.STARTED)
    instance.report_run_failed(run, job_failure_data=JobFailureData(None, RunFailureReason.STEP_FAILURE))
    return run


def made_in_rounds(instance: dg.DagsterInstance, step: Step, asset: str, how: str) -> None:
    """A run that has made an asset of the step without its check, or has but checked it."""
    job = dg.Definitions([a, b]).resolve_implicit_global_asset_job_def()
    tags, chosen = {**step.tags, how: "true"}, frozenset({dg.AssetKey(asset)})
    instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.SUCCESS, asset_selection=chosen)


def test_what_is_but_to_be_checked_is_counted_since_it_was_made(project: Project) -> None:
    """Not since something else was: what stays out of date however often it is made must be given up in the end."""
    step = replace(STEP, reasons={"a": "to be checked", "b": "changed"}, only_checks=frozenset({"a"}))
    with project.instance() as instance:
        failed_run(instance, step)
        failed_run(instance, step)
        assert decision(project, instance, step).number == 3
        made_in_rounds(instance, step, "a", UNCHECKED)
        assert decision(project, instance, step).number == 1
        failed_run(instance, step)
        assert decision(project, instance, step).number == 2
        made_in_rounds(instance, step, "b", UNCHECKED)
        made_in_rounds(instance, step, "b", UNCHECKED)
        assert decision(project, instance, step).kind == "exhausted"


def test_a_check_that_passed_is_no_attempt_at_anything_else(project: Project) -> None:
    with project.instance() as instance:
        failed_run(instance, STEP)
        made_in_rounds(instance, replace(STEP, identity="checks"), "a", ONLY_CHECKED)
        assert decision(project, instance, STEP).number == 2
        made_in_rounds(instance, STEP, "a", ONLY_CHECKED)
        made_in_rounds(instance, STEP, "a", ONLY_CHECKED)
        assert decision(project, instance, replace(STEP, only_checks=frozenset({"a"}))).number == 3


def test_a_clock_that_was_set_back_makes_no_step_wait(project: Project) -> None:
    policy, now = project.recipe.automation, time.time()
    with project.instance() as instance:
        failed_run(instance, STEP)
        for later, kind in ((1.0, "wait"), (-3600.0, "due"), (3600.0, "due")):
            found = decide(instance, STEP, instance.get_run_records(), policy, (), now + later)
            assert (found.kind, found.number) == (kind, 2)


def test_attempts_after_a_release_are_told_by_the_order_of_runs(project: Project) -> None:
    policy, later = project.recipe.automation, time.time() + 3600
    with project.instance() as instance:
        runs = [failed_run(instance, STEP) for _ in range(policy.max_attempts)]
        assert decide(instance, STEP, instance.get_run_records(), policy, (), later).kind == "exhausted"
        released = {runs[-1].run_id}
        assert decide(instance, STEP, instance.get_run_records(), policy, released, later).number == 1
        failed_run(instance, STEP)
        assert decide(instance, STEP, instance.get_run_records(), policy, released, later).number == 2


def test_runs_that_a_stopped_service_left_in_its_queue_are_waited_for_by_nobody(project: Project) -> None:
    with project.instance() as instance:
        begun, queued = (
            instance.create_run_for_job(some_job, status=status, remote_job_origin=ORIGIN)
            for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.QUEUED)
        )
        assert [run.run_id for run in unfinished_runs(instance, project.home, 0.0)] == [begun.run_id]
        with (project.home / SERVICE_LOCK).open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)  # as a service holds it
            unfinished = unfinished_runs(instance, project.home, 0.0)
        assert {run.run_id for run in unfinished} == {begun.run_id, queued.run_id}


def test_an_interrupted_run_is_no_attempt(project: Project) -> None:
    with project.instance() as instance:
        failed_run(instance, STEP)
        run = instance.create_run_for_job(some_job, tags={**STEP.tags, **KILLED}, status=dg.DagsterRunStatus.STARTED)
        instance.add_run_tags(run.run_id, {INTERRUPTED: run.run_id})
        instance.report_run_canceled(run)
        assert decide(instance, STEP, instance.get_run_records(), project.recipe.automation, (), 0.0).number == 2
