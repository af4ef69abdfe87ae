import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from conftest import Project, prompt_rows
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import create_execution_plan, execute_run_iterator
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from filelock import FileLock, Timeout
from sqlalchemy import text

from dasd_assets.service import recovery
from dasd_assets.service.jobs import executor
from dasd_assets.service.recovery import (
    ABANDONED,
    INTERRUPTED,
    NOTE,
    OWNER,
    fail_abandoned_runs,
    of_command,
    owner,
    owners,
)
from dasd_resources.recipe import load_recipe


def test_a_run_is_abandoned_only_when_its_owner_is_gone(project: Project) -> None:
    with project.instance() as instance:
        job = project.definitions.resolve_implicit_global_asset_job_def()
        with owner(project.home) as tags:
            run = instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
            assert fail_abandoned_runs(instance, project.home) == 0
        assert fail_abandoned_runs(instance, project.home) == 1
        failed = instance.get_run_by_id(run.run_id)
        assert failed is not None
        assert failed.status == dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize("name", ["{outside}", "../../catalog", ".", "", "0" * 31, "0" * 32 + "\n"])
def test_an_owner_of_another_form_than_ours_names_no_file(project: Project, name: str) -> None:
    outside = project.home / "catalog"
    with project.instance() as instance:
        outside.touch()
        job = project.definitions.resolve_implicit_global_asset_job_def()
        tags = {OWNER: name.format(outside=outside)}
        instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.STARTED)
        assert fail_abandoned_runs(instance, project.home) == 0
    assert outside.exists()
    assert list(owners(project.home).iterdir()) == []


def test_a_run_of_the_service_has_no_other_owner_than_its_worker(project: Project) -> None:
    """As when somebody starts a run of `dasd run` again, with its tags, from the web UI."""
    with project.instance() as instance, owner(project.home) as tags:
        job = project.definitions.resolve_job_def("data_only")
        dead = {OWNER: "0" * 32}
        run = instance.create_run_for_job(job, tags=dead, status=dg.DagsterRunStatus.STARTED, remote_job_origin=ORIGIN)
        assert fail_abandoned_runs(instance, project.home) == 0
        (owners(project.home) / run.run_id).touch()
        instance.add_run_tags(run.run_id, tags)
        assert fail_abandoned_runs(instance, project.home) == 1


ORIGIN = RemoteJobOrigin(
    RemoteRepositoryOrigin(InProcessCodeLocationOrigin(LoadableTargetOrigin(python_file="x.py")), "repository"), "job"
)


def test_a_run_of_the_service_is_abandoned_when_its_workers_lock_is_free(project: Project) -> None:
    with project.instance() as instance:
        job = project.definitions.resolve_job_def("data_only")
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, remote_job_origin=ORIGIN)
        assert fail_abandoned_runs(instance, project.home) == 0  # its worker may not have come to lock
        with FileLock(owners(project.home) / run.run_id):
            assert fail_abandoned_runs(instance, project.home) == 0
        (owners(project.home) / run.run_id).touch()  # what a worker leaves that is killed
        assert fail_abandoned_runs(instance, project.home) == 1
        failed = instance.get_run_by_id(run.run_id)
        assert failed is not None
        assert failed.status == dg.DagsterRunStatus.FAILURE
        assert failed.tags[ABANDONED] == run.run_id
        assert list(owners(project.home).iterdir()) == []


STARTING, STARTED = dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED


@pytest.mark.parametrize(
    "looks",
    [
        [(STARTED, 0, 0), (STARTED, 59, 0), (STARTED, 2, 1)],
        [(STARTING, 0, 0), (STARTING, 239, 0), (STARTING, 2, 1)],
        [(STARTING, 0, 0), (STARTING, 239, 0), (STARTED, 2, 0), (STARTED, 59, 0), (STARTED, 2, 1)],
    ],
)
def test_a_worker_without_a_lock_is_dead_a_minute_after_its_start_whatever_the_time_of_day(
    project: Project, looks: list[tuple[dg.DagsterRunStatus, int, int]]
) -> None:
    """After four where it does not come to start, which on a busy machine takes long."""
    now = [1000.0]
    with project.instance() as instance:
        job = project.definitions.resolve_job_def("data_only")
        run = instance.create_run_for_job(job, status=STARTING, remote_job_origin=ORIGIN)
        forward = "UPDATE runs SET update_timestamp = '2020-01-01', start_time = 1577836800, status = :status"
        for status, seconds, found in looks:
            with instance.run_storage.connect() as connection:  # type: ignore[attr-defined]  # the clock was set
                connection.execute(text(forward), {"status": status.value})
            now[0] += seconds
            assert fail_abandoned_runs(instance, project.home, clock=lambda: now[0]) == found
        assert instance.get_runs(dg.RunsFilter(run_ids=[run.run_id]))[0].status == dg.DagsterRunStatus.FAILURE


def test_a_run_whose_owner_was_interrupted_is_canceled_and_counts_for_nothing(project: Project) -> None:
    """As after a second interrupt, when the process did not come to mark it."""
    with project.instance() as instance:
        job = project.definitions.resolve_implicit_global_asset_job_def()
        for status in (dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING):
            with owner(project.home) as tags:
                run = instance.create_run_for_job(job, tags=tags, status=status)
                (owners(project.home) / tags[OWNER]).with_suffix(NOTE).touch()
            assert fail_abandoned_runs(instance, project.home) == 1
            [canceled] = instance.get_runs(dg.RunsFilter(run_ids=[run.run_id]))
            assert canceled.status == dg.DagsterRunStatus.CANCELED
            assert canceled.tags[INTERRUPTED] == run.run_id
    assert list(owners(project.home).iterdir()) == []


def test_a_run_that_was_to_be_canceled_when_its_process_died_is_canceled(project: Project) -> None:
    with project.instance() as instance:
        job = project.definitions.resolve_job_def("data_only")
        canceling = dg.DagsterRunStatus.CANCELING
        run = instance.create_run_for_job(job, status=canceling, remote_job_origin=ORIGIN)
        (owners(project.home) / run.run_id).touch()
        assert fail_abandoned_runs(instance, project.home) == 1
        [canceled] = instance.get_runs(dg.RunsFilter(run_ids=[run.run_id]))
        assert canceled.status == dg.DagsterRunStatus.CANCELED
        assert INTERRUPTED not in canceled.tags


def test_a_run_that_has_ended_in_between_is_not_failed(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    with project.instance() as instance:
        job = project.definitions.resolve_job_def("data_only")
        run = instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, remote_job_origin=ORIGIN)

        def end_and_be_dead(*_: object) -> bool:
            instance.report_run_canceled(run)
            return True

        monkeypatch.setattr(recovery, "_is_abandoned", end_and_be_dead)
        assert fail_abandoned_runs(instance, project.home) == 0
        ended = instance.get_run_by_id(run.run_id)
        assert ended is not None
        assert ended.status == dg.DagsterRunStatus.CANCELED


def execute(home: Path, origin: RemoteJobOrigin | None, last: Callable[[list[Path]], None]) -> None:
    """Execute a run of one step in this process; then `last` is given the lock files that there are."""

    @dg.asset
    def nothing() -> None: ...

    definitions = dg.Definitions(assets=[nothing], executor=executor(load_recipe("demo"), home))
    with dg.DagsterInstance.ephemeral() as instance:
        job = definitions.resolve_implicit_global_asset_job_def()
        plan = create_execution_plan(job)
        run = instance.create_run_for_job(job, execution_plan=plan, remote_job_origin=origin)
        list(execute_run_iterator(InMemoryJob(job), run, instance))
    last(list(owners(home).iterdir()))


def test_a_worker_of_the_service_holds_its_lock_until_its_process_ends(tmp_path: Path) -> None:
    fork = multiprocessing.get_context("fork")
    found, may_end = fork.Queue(), fork.Event()

    def last(locks: list[Path]) -> None:
        found.put(locks)
        may_end.wait()

    worker = fork.Process(target=execute, args=(tmp_path, ORIGIN, last))
    worker.start()
    [lock] = found.get(timeout=60)
    with pytest.raises(Timeout):
        FileLock(lock, timeout=0).acquire()
    may_end.set()
    worker.join()
    assert worker.exitcode == 0
    assert list(owners(tmp_path).iterdir()) == []


def test_a_run_of_dasd_run_needs_no_lock_of_its_own(tmp_path: Path) -> None:
    found: list[Path] = []
    execute(tmp_path, None, found.extend)
    assert found == []


def test_runs_of_others_are_left_alone(project: Project) -> None:
    with project.instance() as instance:
        job = project.definitions.resolve_implicit_global_asset_job_def()
        instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
        assert fail_abandoned_runs(instance, project.home) == 0


def test_a_killed_dasd_run_does_not_block_the_next(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 400))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("DAGSTER", "DASD"))}
    begun = [
        sys.executable,
        "-m",
        "dasd_assets.cli",
        "run",
        "--select",
        "teacher_model,prompts,teacher_generations_t060",
    ]
    process = subprocess.Popen(begun, env={**clean, "DASD_HOME": str(project.home)}, stderr=subprocess.DEVNULL)
    with project.instance() as instance:
        deadline = time.monotonic() + 300
        while not _slot_is_held(instance):
            assert time.monotonic() < deadline, "the generation never began"
            assert process.poll() is None, f"{begun} ended before it was killed"
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert fail_abandoned_runs(instance, project.home) == 1
        assert not _slot_is_held(instance)
        (run,) = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
        assert OWNER in run.tags
        assert of_command(run) and run.remote_job_origin is not None


def _slot_is_held(instance: dg.DagsterInstance) -> bool:
    return bool(instance.event_log_storage.get_concurrency_info("engine").claimed_slots)
