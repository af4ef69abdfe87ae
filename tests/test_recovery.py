import os
import signal
import subprocess
import sys
import time

import dagster as dg
from conftest import Project, prompt_rows

from dasd_assets.recovery import OWNER, fail_abandoned_runs, owner


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


def _slot_is_held(instance: dg.DagsterInstance) -> bool:
    return bool(instance.event_log_storage.get_concurrency_info("engine").claimed_slots)
