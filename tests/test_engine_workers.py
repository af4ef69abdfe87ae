"""Replicas of an engine in processes of their own: every request once, whatever dies; and the rows of one engine."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from multiprocessing.util import _finalizer_registry
from pathlib import Path
from random import Random

import pytest
from reliability import record
from worker_engines import (
    at_work_together,
    dead_at_once,
    endless,
    failing_at,
    killed,
    killed_at_each,
    killed_beside_a_child,
    undisturbed,
    unloadable,
)

from dasd_resources.inference.engine import (
    Completion,
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.engine_workers import LEAST, RUNS_AT_ONCE, EngineWorkers, part_size, take
from dasd_resources.inference.engines import Engines, once_each
from dasd_resources.recipe import load_recipe

TEACHER = load_recipe("demo").teacher
NO_GPUS: list[list[str]] = [[], []]
IN_TESTS = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}


def requests(number: int) -> list[GenerationRequest]:
    """The later, the longer."""
    return [GenerationRequest(f"r{i}", (5,) * (1 + i), 1.0, 1.0, 4, i, ()) for i in range(number)]


def answered(results: Iterator[Completion | Failure]) -> dict[str, Completion | Failure]:
    found: dict[str, Completion | Failure] = {}
    for result in results:
        assert result.request_id not in found
        found[result.request_id] = result
    return found


def at_exit() -> set[tuple[int | None, int]]:
    """What multiprocessing would do at the end of this process."""
    return {key for key in _finalizer_registry if key[0] is not None}


def test_first_all_get_an_even_part_then_ever_smaller_ones() -> None:
    assert part_size(1920, 1920, 8, is_first=True) == 240  # avg@64 of 30 questions: all run at once
    total = 10 * RUNS_AT_ONCE
    assert part_size(total, total, 2, is_first=True) == total * 3 // 8
    assert part_size(total // 4, total, 2, is_first=False) == total // 8
    assert part_size(40, total, 2, is_first=False) == LEAST


def test_a_part_has_requests_of_all_lengths() -> None:
    part, others = take(list(range(100)), 10)  # type: ignore[type-var]
    assert part == list(range(0, 100, 10))
    assert sorted([*part, *others]) == list(range(100))
    assert take([1, 2, 3], 10) == ([1, 2, 3], [])  # type: ignore[type-var]


def test_every_request_is_answered_once_and_by_all_processes(tmp_path: Path) -> None:
    asked = requests(40)
    hooks = at_exit()
    with closing(EngineWorkers(partial(at_work_together, 2, tmp_path), NO_GPUS)) as engine:
        found = answered(engine.generate(asked))
        processes = [worker.process for worker in engine._workers]
    assert set(found) == {r.request_id for r in asked}
    assert {c.token_ids[0] for c in found.values() if isinstance(c, Completion)} == {p.pid for p in processes}
    assert [process.exitcode for process in processes] == [0, 0]
    assert at_exit() == hooks  # a service that loads models for months must not keep what ended them


def test_no_more_processes_start_than_there_are_requests() -> None:
    with closing(EngineWorkers(undisturbed, NO_GPUS)) as engine:
        assert answered(engine.generate([])) == {} and engine._workers == []
        assert set(answered(engine.generate(requests(1)))) == {"r0"} and len(engine._workers) == 1
        assert set(answered(engine.generate(requests(2)))) == {"r0", "r1"} and len(engine._workers) == 2


def test_each_process_sees_its_own_gpus(tmp_path: Path) -> None:
    with closing(EngineWorkers(partial(at_work_together, 2, tmp_path), [["4", "5"], ["6", "7"]])) as engine:
        found = list(engine.score([ScoringRequest(str(i), (5, 6), 1) for i in range(8)]))
    assert {failure.reason for failure in found if isinstance(failure, Failure)} == {"4,5", "6,7"}


def test_what_a_killed_process_had_is_asked_of_the_others(tmp_path: Path) -> None:
    asked = requests(60)
    with closing(EngineWorkers(partial(killed_at_each, ["r30"], tmp_path), NO_GPUS)) as engine:
        found = answered(engine.generate(asked))
        assert len(engine._workers) == 1
    assert set(found) == {r.request_id for r in asked}
    assert all(isinstance(result, Completion) for result in found.values())


def test_what_has_lost_three_processes_is_a_failure_and_the_others_go_on() -> None:
    asked = requests(30)
    with closing(EngineWorkers(partial(killed, "r29"), [[], [], [], []])) as engine:
        found = answered(once_each(asked, engine.generate(asked)))
    assert set(found) == {r.request_id for r in asked}
    failure = found["r29"]
    assert isinstance(failure, Failure) and failure.kind == "engine_error"
    assert failure.reason.endswith("were lost while they had it, the last by exit code -9")
    assert isinstance(found["r0"], Completion)


def test_with_no_process_left_the_step_fails() -> None:
    with closing(EngineWorkers(dead_at_once, NO_GPUS)) as engine, pytest.raises(RuntimeError, match="every process of"):
        list(engine.generate(requests(3)))


@pytest.mark.parametrize(("load", "message"), [(unloadable, "set engine: vllm"), (partial(failing_at, "r2"), "r2 can")])
def test_an_error_is_raised_as_the_engine_raised_it(load: Callable[[], InferenceEngine], message: str) -> None:
    with closing(EngineWorkers(load, NO_GPUS)) as engine, pytest.raises(ValueError, match=message) as error:
        list(engine.generate(requests(4)))
    assert "in the process of a replica" in error.value.__notes__[0]


def test_a_caller_may_stop_early_and_ask_again() -> None:
    asked = requests(40)
    with closing(EngineWorkers(undisturbed, NO_GPUS)) as engine:
        early = engine.generate(asked)
        next(early)
        early.close()  # type: ignore[attr-defined]
        assert set(answered(engine.generate(asked))) == {r.request_id for r in asked}


def test_what_died_between_two_calls_is_started_again() -> None:
    asked = requests(40)
    with closing(EngineWorkers(undisturbed, NO_GPUS)) as engine:
        answered(engine.generate(asked))
        for worker in engine._workers:
            os.kill(worker.process.pid or 0, signal.SIGKILL)
            worker.process.join()
        assert set(answered(engine.generate(asked))) == {r.request_id for r in asked}
        assert len(engine._workers) == 2


def test_closing_ends_a_process_at_work() -> None:
    engine = EngineWorkers(endless, NO_GPUS)
    generating = engine.generate(requests(2))
    next(generating)
    processes = [worker.process for worker in engine._workers]
    engine.close()
    assert not any(process.is_alive() for process in processes)


def test_what_an_engine_started_ends_with_its_killed_process(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with closing(EngineWorkers(partial(killed_beside_a_child, lock), [[]])) as engine:
        with pytest.raises(RuntimeError, match="every process of"):
            list(engine.generate(requests(1)))
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # not before the process that holds it has ended


def test_processes_end_with_their_parent() -> None:
    code = """if True:
        from test_engine_workers import EngineWorkers, endless, requests
        engine = EngineWorkers(endless, [[], []])
        generating = engine.generate(requests(2))
        next(generating)
        print(*[worker.process.pid for worker in engine._workers], flush=True)
        next(generating)"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=IN_TESTS)
    assert parent.stdout is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    assert parent.stdout.read() == ""  # the processes have the other ends of this pipe, until they end
    parent.wait()


def test_a_caller_that_raises_ends_though_its_traceback_keeps_what_it_read() -> None:
    """As `dasd evaluate` does: at the end of Python, nobody has closed the engine yet."""
    code = """if True:
        from contextlib import closing
        from worker_engines import undisturbed
        from dasd_resources.inference.engine import GenerationRequest
        from dasd_resources.inference.engine_workers import EngineWorkers

        def answers():
            with closing(EngineWorkers(undisturbed, [[], []])) as engine:
                yield from engine.generate([GenerationRequest(f"r{i}", (5,), 1.0, 1.0, 4, i, ()) for i in range(2)])

        def consume():
            results = answers()
            raise LookupError(next(results).request_id)

        consume()"""
    ended = subprocess.run(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=IN_TESTS, timeout=30, check=False
    )
    assert (ended.returncode, "LookupError: r" in ended.stderr) == (1, True), ended.stderr


def test_two_replicas_make_the_rows_of_one(tmp_path: Path) -> None:
    """Of the demo's teacher, with one of two processes killed after the first row."""
    engines = Engines(home=str(tmp_path))
    one = engines.find(TEACHER, "teacher.model")
    two = engines.find(TEACHER.model_copy(update={"replicas": 2}), "teacher.model")
    assert two.fingerprint == one.fingerprint
    prompt = tuple(one.chat.prompt_ids("State the final answer to the following arithmetic problem: 4 + 5 - 2 ="))
    asked = [GenerationRequest(str(i), prompt, 0.6, 1.0, 40, i, one.chat.stop_token_ids) for i in range(12)]
    alone = answered(engines.generate(one, asked))
    with engines.open(two) as engine:
        generating = engine.generate(asked)
        first = next(generating)
        assert isinstance(engine, EngineWorkers)
        os.kill(engine._workers[0].process.pid or 0, signal.SIGKILL)
        together = answered(iter([first, *generating]))
        to_score = [
            ScoringRequest(key, (*prompt, *c.token_ids), len(prompt))
            for key, c in together.items()
            if isinstance(c, Completion)
        ]
        scores = {s.request_id: s for s in engine.score(to_score) if isinstance(s, Score)}
    assert set(together) == set(alone) == set(scores)
    for key, made in alone.items():
        other = together[key]
        assert isinstance(made, Completion) and isinstance(other, Completion)
        assert (other.token_ids, other.finish_reason) == (made.token_ids, made.finish_reason)
        assert other.logprobs == pytest.approx(made.logprobs, abs=1e-4)
        assert scores[key].logprobs == pytest.approx(made.logprobs, abs=1e-4)


@pytest.mark.drill
def test_replicas_killed_at_random_moments_lose_and_double_nothing(tmp_path: Path) -> None:
    """Two of three processes killed, each at a request of its own; what ends is compared with what was asked."""
    survived, num_runs, seed = 0, 15, 14
    rng = Random(seed)
    for run in range(num_runs):
        marks, asked = tmp_path / str(run), requests(200)
        marks.mkdir()
        at = tuple(f"r{index}" for index in rng.sample(range(200), 2))
        with closing(EngineWorkers(partial(killed_at_each, at, marks), [[], [], []])) as engine:
            found = answered(engine.generate(asked))
        assert {path.name for path in marks.iterdir()} == set(at)
        survived += 2 * all(isinstance(found.get(r.request_id), Completion) for r in asked)
    record(
        "replicas",
        faults="SIGKILLs of a replica's process",
        seed=seed,
        tried=2 * num_runs,
        survived=survived,
        detected=0,
        silent=2 * num_runs - survived,
        command="pytest -m drill tests/test_engine_workers.py",
    )
    assert survived == 2 * num_runs
