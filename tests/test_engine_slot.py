"""A command that loads a model takes a slot of the pool of every engine step, waits for it, and gives it back."""

import os
import signal
import threading
import time
from pathlib import Path

import dagster as dg
import pytest
from conftest import Project, forkserver

from dasd_assets.commands.engine_slot import with_engine
from dasd_assets.records.declaration import ENGINE_POOL
from dasd_resources.recipe import Recipe


def slots(instance: dg.DagsterInstance) -> list[str]:
    return [slot.step_key for slot in instance.event_log_storage.get_concurrency_info(ENGINE_POOL).claimed_slots]


def test_it_is_the_pool_of_every_asset_that_loads_a_model(project: Project) -> None:
    graph = project.definitions.resolve_asset_graph()
    pools = {pool for key in graph.toposorted_asset_keys for pool in graph.get(key).pools}
    assert pools == {ENGINE_POOL}


def test_two_of_them_work_one_after_the_other(project: Project) -> None:
    done, said = list[str](), list[str]()
    with project.instance() as instance:

        def second() -> None:
            with_engine(instance, project.home, "second", lambda: done.append("second"), said.append)

        waiting = threading.Thread(target=second)

        def first() -> str:
            assert slots(instance) == ["first"]
            waiting.start()
            while not said:
                time.sleep(0.05)
            done.append("first")
            return "found"

        assert with_engine(instance, project.home, "first", first, said.append) == "found"
        waiting.join()
        assert done == ["first", "second"] and slots(instance) == []
        assert len(said) == 1 and said[0].startswith("waiting for the engine, which is taken: first of run ")


def test_one_that_loads_no_model_waits_for_nobody(project: Project) -> None:
    said = list[str]()
    with project.instance() as instance, project.instance() as other:

        def outer() -> str:
            assert slots(instance) == ["loads"]
            return with_engine(other, project.home, "served", lambda: "found", said.append, loads_here=False)

        assert with_engine(instance, project.home, "loads", outer, said.append) == "found"
    assert said == []


def work_and_die(home: Path, recipe: Recipe) -> None:
    with Project(home, recipe).instance() as instance:
        with_engine(instance, home, "killed", lambda: os.kill(os.getpid(), signal.SIGKILL), print)


def test_what_a_killed_one_has_is_given_back(project: Project) -> None:
    killed = forkserver().Process(target=work_and_die, args=(project.home, project.recipe))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    said = list[str]()
    with project.instance() as instance:
        assert slots(instance) == ["killed"]
        assert with_engine(instance, project.home, "next", lambda: 7, said.append) == 7
        states = {run.job_name: run.status for run in instance.get_runs()}
    assert states == {"killed": dg.DagsterRunStatus.FAILURE, "next": dg.DagsterRunStatus.SUCCESS}
    assert said == []


def test_an_error_is_raised_as_it_was_and_the_slot_is_free(project: Project) -> None:
    def fail() -> None:
        raise LookupError("no such model")

    with project.instance() as instance:
        with pytest.raises(LookupError, match="no such model"):
            with_engine(instance, project.home, "failing", fail, print)
        assert slots(instance) == []
