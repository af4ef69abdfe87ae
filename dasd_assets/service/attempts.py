"""How often a step has been tried, and whether it may be tried now: read from the runs that are tagged with it.

An attempt fails by an error of a step, or by the death of its process. Deaths are often the machine's fault, so many
more of them are allowed. Runs that died together with the service do not count, nor does an interrupted `dasd run`; a
killed one may have died of its step, so it does.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Literal

import dagster as dg

from dasd_assets.records.dagster_internals import (
    AUTO_RETRY_RUN_ID_TAG,
    PARTITION_NAME_TAG,
    RUN_FAILURE_REASON_TAG,
    WILL_RETRY_TAG,
    RunFailureReason,
)
from dasd_assets.records.tags import PERMANENT
from dasd_assets.service.gates import refusal
from dasd_assets.service.one_service import starts_queued_runs
from dasd_assets.service.recovery import ABANDONED, INTERRUPTED, of_command
from dasd_assets.service.steps import STEP, TARGET, Step
from dasd_resources.recipe import Automation

MAX_DEATHS = 10
MAX_PAUSE = 3600.0  # seconds: an outage may outlast many attempts
UNCHECKED = ".dagster/dasd_unchecked"  # on a run that leaves blocking checks to a later one, as rounds do
ONLY_CHECKED = ".dagster/dasd_only_checked"  # on that later one
RUNS_PER_STEP = 20  # that are read; must exceed MAX_DEATHS
AUTO_RETRY_SECONDS = 120.0  # within which Dagster starts a run that died again
CLOCK_SECONDS = 5.0  # by which the clocks of two processes may differ
UNFINISHED = [
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
DEATHS = {RunFailureReason.UNEXPECTED_TERMINATION, RunFailureReason.RUN_WORKER_RESTART, RunFailureReason.UNKNOWN}


@dataclass(frozen=True)
class AttemptDecision:
    """Whether a step may be tried; `number` is the next attempt's, `run_id` the last one's.

    still_stale: the last attempt succeeded, and the step is out of date all the same. died: whether the process of the
    last attempt died.
    """

    kind: Literal["due", "wait", "exhausted"]
    number: int
    why: str = ""
    run_id: str = ""
    still_stale: bool = False
    died: bool = False


@dataclass(frozen=True)
class Attempt:
    """A step that may run now, the number of this attempt, and the run of its target before it, if any.

    died: whether the attempt before it ended with its process.
    """

    step: Step
    number: int
    after: str = ""
    died: bool = False

    @property
    def key(self) -> str:
        """The same as long as no run of the step's target has come: two requests of one key are one."""
        return "/".join([self.step.target, self.step.identity, str(self.number), self.after])


def unfinished_runs(instance: dg.DagsterInstance, home: Path, now: float) -> list[dg.DagsterRun]:
    """Runs that are queued, begun, or died a moment ago and are about to be started again by Dagster.

    Not those that a stopped service has left in its queue: nobody begins them, unless it is started again.
    """
    running = list(instance.get_runs(dg.RunsFilter(statuses=UNFINISHED)))
    queued = [run for run in running if run.status == dg.DagsterRunStatus.QUEUED]
    if queued and not starts_queued_runs(instance, home):
        running = [run for run in running if run not in queued]
    # Not those of the future either, where a clock that was set back has left them: they would be waited for so long.
    since, until = (datetime.fromtimestamp(now + s).astimezone() for s in (-AUTO_RETRY_SECONDS, AUTO_RETRY_SECONDS))
    failed, tags = [dg.DagsterRunStatus.FAILURE], {WILL_RETRY_TAG: "true"}
    died = instance.get_runs(dg.RunsFilter(statuses=failed, tags=tags, updated_after=since, updated_before=until))
    return running + [run for run in died if AUTO_RETRY_RUN_ID_TAG not in run.tags]


def active_run_for(step: Step, runs: Iterable[tuple[dg.DagsterRun, set[str]]]) -> str | None:
    """The id of a run that makes an asset of the step, or None. runs: the unfinished ones, each with its assets."""
    for run, assets in runs:
        batch = run.tags.get(PARTITION_NAME_TAG)
        if not assets.isdisjoint(step.assets) and (step.batch is None or batch in (None, step.batch)):
            return run.run_id
    return None


def assets_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[str]:
    """The assets that a run makes; each of ours has a step of its name."""
    if run.asset_selection or run.asset_check_selection:
        checked = {check.asset_key for check in run.asset_check_selection or ()}
        return {key.to_user_string() for key in checked.union(run.asset_selection or ())}
    if run.step_keys_to_execute or run.execution_plan_snapshot_id is None:
        return set(run.step_keys_to_execute or [])
    return set(instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id).step_keys_to_execute)


def runs_of(instance: dg.DagsterInstance, steps: Sequence[Step]) -> dict[str, list[dg.RunRecord]]:
    """Target of each step -> its latest runs, newest first, whatever they were to make."""
    records: dict[str, list[dg.RunRecord]] = {step.target: [] for step in steps}
    if records:
        wanted = dg.RunsFilter(tags={TARGET: list(records)})
        for record in instance.get_run_records(wanted, limit=RUNS_PER_STEP * len(steps)):
            records[record.dagster_run.tags[TARGET]].append(record)
    return records


def decide(
    instance: dg.DagsterInstance,
    step: Step,
    runs: Sequence[dg.RunRecord],
    policy: Automation,
    released: Collection[str],
    now: float,
) -> AttemptDecision:
    """Whether a step may be tried now: attempts are its latest runs, back to one that was to make something else.

    What is but to be checked is counted since it was made. A check that passed is no attempt at anything else.

    runs: of its target, newest first. released: the runs after which its batch was quarantined, and then released: they
    and earlier ones do not count. Whatever the clock is set to, a step is tried: the runs' order is not that of times.
    """
    # 1. Which runs were attempts: since the last release, ended by themselves or by their step, and of this very step.
    #    An earlier run that was to make something else starts the count anew: its errors may be gone with it.
    since = takewhile(
        lambda r: r.dagster_run.run_id not in released and not _has_made(instance, r.dagster_run, step), runs
    )
    ended = [r for r in since if r.dagster_run.is_finished and not _is_no_attempt(r.dagster_run, step)]
    tried = list(takewhile(lambda record: record.dagster_run.tags.get(STEP) == step.identity, ended))
    number = len(tried) + 1
    if not ended:
        return AttemptDecision("due", number)
    # 2. Attempts left? Deaths and errors have limits of their own. A step that only asks failed rows again is not
    #    limited here: the ledger counts the attempts at each row.
    last = ended[0].dagster_run
    deaths = sum(_died(record.dagster_run) for record in tried)
    others = len(tried) - deaths
    hopeless = bool(tried) and failed_for_good(instance, last)
    if deaths >= MAX_DEATHS or hopeless or (others >= policy.max_attempts and not step.retry):
        return AttemptDecision("exhausted", number, explain(instance, last), last.run_id, last.is_success)
    # 3. The pause, which grows with the errors. None after a death (the machine may be fine again by now), nor after
    #    a success of another step: then something changed, and this is its first attempt. Nor where the end lies in the
    #    future: the clock was set back, and how long ago it was cannot be known.
    ended_at = ended[0].end_time or now
    wait = ended_at + pause(policy.retry_delay_seconds, others) - now
    if wait > 0 and ended_at <= now + CLOCK_SECONDS and (tried or not last.is_success) and not _died(last):
        why = f"{step.target}: next attempt in {wait:.0f} s; {explain(instance, last)}"
        return AttemptDecision("wait", number, why, last.run_id)
    return AttemptDecision("due", number, died=bool(tried) and _died(last))


def pause(first: float, number: int) -> float:
    """Seconds to wait after so many attempts: `first`, then four times as long each time, up to an hour."""
    return max(first, min(first * 4.0 ** min(max(number - 1, 0), 20), MAX_PAUSE))


def explain(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Why a run ended: a failed blocking check, else the first failed step's error, else what Dagster recorded."""
    if run.is_success:
        return "it is still out of date though it was made"
    evaluation, failure = dg.DagsterEventType.ASSET_CHECK_EVALUATION, dg.DagsterEventType.STEP_FAILURE
    for record in instance.get_records_for_run(run.run_id, of_type=evaluation, ascending=True).records:
        event = record.event_log_entry.dagster_event
        if event is not None and (message := refusal(event.asset_check_evaluation_data)):
            return message
    for record in instance.get_records_for_run(run.run_id, of_type=failure, limit=1, ascending=True).records:
        event = record.event_log_entry.dagster_event
        if event is not None:
            return step_error(event)
    if _was_abandoned(run):
        return f"the process of run {run.run_id[:8]} was killed"
    return f"run {run.run_id[:8]} {run.tags.get(RUN_FAILURE_REASON_TAG, run.status.value).lower().replace('_', ' ')}"


def failed_for_good(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    """Whether the first step that failed said that no further attempt can mend it (`tags.failure`)."""
    if run.status != dg.DagsterRunStatus.FAILURE:
        return False
    failed = instance.get_records_for_run(
        run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE, limit=1, ascending=True
    ).records
    event = failed[0].event_log_entry.dagster_event if failed else None
    data = event.step_failure_data.user_failure_data if event is not None else None
    return data is not None and PERMANENT in data.metadata


def step_error(event: dg.DagsterEvent) -> str:
    """`asset: error` of a step failure, without its traceback."""
    data = event.step_failure_data
    cause = data.error.cause if data.error is not None and data.error.cause is not None else data.error
    described = data.user_failure_data.description if data.user_failure_data else None
    return f"{event.step_key}: {described or (cause.message.strip() if cause else 'unknown error')}"


def _died(run: dg.DagsterRun) -> bool:
    reason = run.tags.get(RUN_FAILURE_REASON_TAG)
    return run.status == dg.DagsterRunStatus.FAILURE and reason in {None, *[death.value for death in DEATHS]}


def _has_made(instance: dg.DagsterInstance, run: dg.DagsterRun, step: Step) -> bool:
    """Whether it has made what is now but to be checked."""
    return run.is_success and UNCHECKED in run.tags and not step.only_checks.isdisjoint(assets_of(instance, run))


def _is_no_attempt(run: dg.DagsterRun, step: Step) -> bool:
    """Whether it says nothing of the step: it was cut off, or has passed the checks of what was made before."""
    return _was_cut_off(run) or (run.is_success and ONLY_CHECKED in run.tags and not step.only_checks)


def _was_cut_off(run: dg.DagsterRun) -> bool:
    """Whether it ended together with the service, or because somebody interrupted `dasd run`."""
    died_with_service = _was_abandoned(run) and not of_command(run)
    return died_with_service or run.tags.get(INTERRUPTED) == run.run_id


def _was_abandoned(run: dg.DagsterRun) -> bool:
    """The tag holds the run's own id: Dagster gives a run that it starts again the tags of the one before."""
    return run.tags.get(ABANDONED) == run.run_id
