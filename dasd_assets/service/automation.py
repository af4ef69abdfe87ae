"""The service's sensors and schedule: landed files become batches, stale assets are made, training is scheduled.

| name | looks every | requests |
| --- | --- | --- |
| `landed_prompts` | 10 s | a new batch with its first run, in the same tick |
| `batch_rebuilds` | 15 s | models, then what a batch lacks or has out of date; quarantines failing batches |
| `selection_rebuilds` | 30 s | selection and datasets, when every batch that is not quarantined is complete |
| `training` | the recipe's cron | training, mixed policy, evaluation, report, where inputs, code or recipe changed |

Where models take long to load, `batch_rebuilds` requests one run that makes all batches in rounds (batches_run.py), and
`landed_prompts` none. Each asks the same plan as `dasd run` (planning.py). The mixed-policy data need a trained
student, so they are made with the training. All of it is level-triggered; the two cursors only save or order work. To
watch it under faults: start `dasd ui`, rename files into the landing folder, kill what you like; after a restart (`dasd
ui`, `dagster dev`) the next ticks mark dead runs as failed (recovery.py) and request their steps again. It is done when
no run is unfinished and `dasd run` finds nothing to do.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from dasd_assets.records.data_file_check import report_damage
from dasd_assets.records.landing_check import landing_evaluation
from dasd_assets.records.partitions import PROMPT_BATCH, batches
from dasd_assets.records.quarantine import changed_evaluation
from dasd_assets.records.wording import number_of
from dasd_assets.service import batches_run
from dasd_assets.service.attempts import Attempt
from dasd_assets.service.jobs import DATA_ONLY, TRAIN_ONLY
from dasd_assets.service.landed import look, never_begun, removed
from dasd_assets.service.planning import Plan, Planner
from dasd_assets.service.recovery import fail_abandoned_runs
from dasd_assets.service.rounds import Round
from dasd_assets.service.staleness import NEVER
from dasd_assets.service.steps import Step
from dasd_resources.inference.engines import Engines
from dasd_resources.landing.landing_folder import LandingFolder, landing_folder
from dasd_resources.recipe import Recipe
from dasd_resources.storage.data_files import DamagedFiles
from dasd_resources.storage.warehouse import Warehouse

RUNS_AT_A_TIME = 20  # batch runs begun or queued; the rest are requested as these end
Tick = Callable[[dg.SensorEvaluationContext], dg.SensorResult]


def build(
    recipe: Recipe,
    home: Path,
    engines: Engines,
    definitions: dg.Definitions,
    of_recipe: Sequence[Round],
    rounds_tags: Mapping[str, Any],
) -> dg.Definitions:
    """Sensors and schedules over the assets of `definitions`, all of them running unless stopped in the UI.

    of_recipe: the rounds in which batches are made, by a job that is then among them; none where each has its own runs.
    rounds_tags: of that job.
    """

    def planner(instance: dg.DagsterInstance) -> Planner:
        return Planner(instance, definitions, recipe, engines, Warehouse(home=str(home)))

    @_sensor(10, "Makes a batch of every complete landed file.")
    def landed_prompts(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        folder = landing_folder(recipe, home)
        return landing_tick(planner(context.instance), folder, context.cursor, 0 if of_recipe else RUNS_AT_A_TIME)

    batch_job = batches_run.JOB if of_recipe else DATA_ONLY

    @_sensor(15, "Makes what batches lack or have out of date; quarantines batches that keep failing.", batch_job)
    def batch_rebuilds(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        fail_abandoned_runs(context.instance, home)
        with reporting_damage(context.instance):
            if of_recipe:
                return rounds_tick(planner(context.instance), of_recipe)
            return batch_tick(planner(context.instance), context.cursor)

    @_sensor(30, "Makes the selection and the datasets again when all batches are complete.")
    def selection_rebuilds(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        plan = planner(context.instance).plan(["selection"])
        return dg.SensorResult(requests(plan.due), skip_reason=None if plan.due else idle(plan))

    jobs = [batches_run.build(planner, home, of_recipe, rounds_tags)] if of_recipe else []
    service = dg.Definitions(jobs=jobs, sensors=[landed_prompts, batch_rebuilds, selection_rebuilds])
    if recipe.automation.training_cron is None:
        return service

    @dg.schedule(
        recipe.automation.training_cron,
        job_name=TRAIN_ONLY,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Trains where a dataset's content, the code or the recipe's training part changed.",
    )
    def training(context: dg.ScheduleEvaluationContext) -> list[dg.RunRequest] | dg.SkipReason:
        return training_tick(planner(context.instance))

    return dg.Definitions.merge(service, dg.Definitions(schedules=[training]))


@contextmanager
def reporting_damage(instance: dg.DagsterInstance) -> Iterator[None]:
    """Damaged files that a tick meets are shown on an asset's page, too; the tick fails with their names."""
    try:
        yield
    except DamagedFiles as error:
        report_damage(instance, error.damages)
        raise
    report_damage(instance, ())


def _sensor(seconds: int, description: str, job: str = DATA_ONLY) -> Callable[[Tick], dg.SensorDefinition]:
    running = dg.DefaultSensorStatus.RUNNING
    return dg.sensor(job_name=job, minimum_interval_seconds=seconds, default_status=running, description=description)


def landing_tick(
    planner: Planner, folder: LandingFolder, cursor: str | None, most_runs: int = RUNS_AT_A_TIME
) -> dg.SensorResult:
    """Register every complete file that is new, and request its batch's first run; remove batches of no file.

    cursor: of the tick before, the stamps of the files that were still growing, and what was not read. most_runs: to be
    requested here; batch_rebuilds requests the others.
    """
    before = json.loads(cursor or "{}")
    seen = {name: (size, modified) for name, (size, modified) in before.get("growing", {}).items()}
    landed = look(folder, batches(planner.instance), seen, time.time())
    first = landed.new[:most_runs]
    due = planner.first_runs(first) if first else []
    doomed = never_begun(planner.instance, landed.without_file)
    unread = sorted(landed.passed_over)
    message = f"{landed.message}; {removed(doomed, landed.url)}" if doomed else landed.message
    added = [PROMPT_BATCH.build_add_request(landed.new)] if landed.new else []
    return dg.SensorResult(
        run_requests=requests(due),
        skip_reason=None if due else message,
        dynamic_partitions_requests=[*added, *([PROMPT_BATCH.build_delete_request(doomed)] if doomed else [])],
        cursor=json.dumps({"growing": {file.name: file.stamp for file in landed.growing}, "not_read": unread}),
        asset_events=[landing_evaluation(landed.passed_over)] if unread != before.get("not_read", []) else [],
    )


def batch_tick(planner: Planner, cursor: str | None) -> dg.SensorResult:
    """Request what models and batches lack, a bounded number of runs at a time.

    cursor: the last batch there was at the tick before. Later ones wait a tick, by which the run that the landing
    sensor requested with them can be seen.
    """
    known = batches(planner.instance)
    old = known[: known.index(cursor) + 1] if cursor in known else []
    plan = planner.plan(["models", "batch"])
    room = max(RUNS_AT_A_TIME - len(plan.active_runs), 0)
    due = [attempt for attempt in plan.due if attempt.step.batch is None or attempt.step.batch in old][:room]
    return dg.SensorResult(
        run_requests=requests(due),
        skip_reason=None if due else idle(plan),
        cursor=known[-1] if known else None,
        asset_events=changed_evaluation(planner.instance, plan.quarantined),
    )


def rounds_tick(planner: Planner, of_recipe: Sequence[Round]) -> dg.SensorResult:
    """Request the run that makes models and batches in rounds, if they lack anything and none is under way."""
    plan = batches_run.requested(planner, of_recipe)
    return dg.SensorResult(
        run_requests=batches_run.requests(plan, planner.recipe),
        skip_reason=None if plan.due else idle(plan),
        asset_events=changed_evaluation(planner.instance, plan.quarantined),
    )


def training_tick(planner: Planner) -> list[dg.RunRequest] | dg.SkipReason:
    """Request the training that the current datasets call for, or give the reason why there is none."""
    plan = planner.training_plan()
    return requests(plan.due) if plan.due else dg.SkipReason(idle(plan))


def requests(due: Iterable[Attempt]) -> list[dg.RunRequest]:
    """A run per step. The run key keeps one attempt from being begun twice if the service dies in between."""
    return [
        dg.RunRequest(
            run_key=attempt.key,
            partition_key=attempt.step.batch,
            asset_selection=[dg.AssetKey(name) for name in attempt.step.assets],
            tags={**attempt.step.tags, "dasd.why": _why(attempt.step)},
        )
        for attempt in due
    ]


def _why(step: Step) -> str:
    """Short enough for the list of runs."""
    return "new batch" if step.batch and set(step.reasons.values()) == {NEVER} else step.why[:500]


def idle(plan: Plan) -> str:
    """Why nothing is requested."""
    exhausted = [f"no attempts left for {step.target}: {decision.why}" for step, decision in plan.exhausted]
    active = [f"{number_of(len(plan.active_runs), 'run')} active"] if plan.active_runs else []
    quarantined = number_of(len(plan.quarantined), "quarantined batch", "quarantined batches")
    except_for = f", except for {quarantined}" if plan.quarantined else ""
    return "; ".join([*exhausted, *plan.waiting, *active]) or f"everything is up to date{except_for}"
