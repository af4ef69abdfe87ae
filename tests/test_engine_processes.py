"""Engines in processes that run one model after another: libraries are loaded once, and a lost process is another's."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest
from worker_engines import endless, killed, undisturbed, unloadable

from dasd_resources.inference.engine import Completion, GenerationRequest, InferenceEngine
from dasd_resources.inference.engine_processes import EngineProcesses


def requests(number: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"r{i}", (5,), 1.0, 1.0, 4, i, ()) for i in range(number)]


@contextmanager
def processes(num: int) -> Iterator[EngineProcesses]:
    found = EngineProcesses(num, num_threads=1)
    try:
        yield found
    finally:
        found.end()


def pid_of(engine: InferenceEngine) -> int:
    """Its process, which a fake engine says as the first token of every answer."""
    found = list(engine.generate(requests(3)))
    assert [result.request_id for result in found] == ["r0", "r1", "r2"]
    [pid] = {result.token_ids[0] for result in found if isinstance(result, Completion)}
    return pid


def test_one_model_after_another_is_in_the_same_process() -> None:
    with processes(1) as found:
        pids = []
        for _ in range(2):
            with found.open(undisturbed) as engine:
                pids += [pid_of(engine), pid_of(engine)]
        assert len(set(pids)) == 1


def test_two_at_once_are_in_two_processes_and_a_third_waits() -> None:
    with processes(2) as found, found.open(undisturbed) as first:
        third = list[int]()

        def open_third() -> None:
            with found.open(undisturbed) as engine:
                third.append(pid_of(engine))

        with found.open(undisturbed) as second:
            pids = [pid_of(first), pid_of(second)]
            waiting = threading.Thread(target=open_third)
            waiting.start()
            waiting.join(0.3)
            assert third == []
        waiting.join()
        assert len(set(pids)) == 2 and third == [pids[1]]


def test_an_error_of_loading_is_raised_and_the_next_model_is_loaded() -> None:
    with processes(1) as found:
        with pytest.raises(ValueError, match="set engine: vllm"), found.open(unloadable):
            pass
        with found.open(undisturbed) as engine:
            assert pid_of(engine)


def test_a_killed_process_is_an_error_and_the_next_model_gets_another() -> None:
    with processes(1) as found:
        with (
            pytest.raises(RuntimeError, match=r"process ended \(exit code -9\)"),
            found.open(partial(killed, "r1")) as engine,
        ):
            list(engine.generate(requests(3)))
        with found.open(undisturbed) as engine:
            assert pid_of(engine)


def test_who_stops_listening_leaves_no_answer_to_the_next() -> None:
    with processes(1) as found:
        with found.open(endless) as engine, closing(engine.generate(requests(2))) as results:  # type: ignore[type-var]
            next(results)
        with found.open(undisturbed) as engine:
            assert pid_of(engine)


def test_a_process_that_is_killed_while_it_waits_is_free_again() -> None:
    with processes(1) as found:
        with found.open(undisturbed) as engine:
            pid = pid_of(engine)
            os.kill(pid, signal.SIGKILL)
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with found.open(undisturbed) as engine:
            other = pid_of(engine)
        os.kill(other, signal.SIGKILL)
        os.waitid(os.P_PID, other, os.WEXITED | os.WNOWAIT)
        with found.open(undisturbed) as engine:
            assert pid_of(engine) not in (pid, other)
