"""Children that answer, and what becomes of those that do not."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dasd_resources.verifiers.worker_pool import ENVIRONMENT, Died, TimedOut, WorkerPool

ODD = Path(__file__).parent / "data" / "verifiers" / "odd_worker.py"


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    pool = WorkerPool(ODD, (), seconds=60, size=2)
    yield pool
    pool.close()


def test_replies_come_back_to_who_asked(pool: WorkerPool) -> None:
    asked = ["a", {"b": "\ud800\n"}, [1, None]] * 20
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(pool.ask, asked)) == asked


def test_a_child_has_neither_our_environment_nor_our_folder(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    names, folder, _ = pool.ask("environment")  # type: ignore[misc]
    assert set(names) <= {*ENVIRONMENT, "LC_CTYPE", "PWD", "SHLVL", "_"}
    assert folder == "/"


@pytest.mark.parametrize("request_", ["die", "garbage", "flood"])
def test_a_child_that_fails_twice_is_an_error_and_the_next_one_answers(pool: WorkerPool, request_: str) -> None:
    with pytest.raises(Died):
        pool.ask(request_)
    assert pool.ask("next") == "next"


def test_a_child_that_computes_too_long_is_ended_by_the_system(pool: WorkerPool) -> None:
    with pytest.raises(TimedOut):
        pool.ask("compute")
    assert pool.ask("next") == "next"


def test_a_child_that_waits_too_long_is_killed() -> None:
    pool = WorkerPool(ODD, (), seconds=0.5, size=1)
    with pytest.raises(TimedOut):
        pool.ask("sleep")
    pool.close()


def test_closing_ends_the_children(pool: WorkerPool) -> None:
    _, _, child = pool.ask("environment")  # type: ignore[misc]
    pool.close()
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)
