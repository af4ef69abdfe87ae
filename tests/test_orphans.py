"""What is left running when a run's process is killed: nothing."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from test_engine_workers import requests
from worker_engines import endless_beside_a_child

from dasd_resources.inference.engine_workers import EngineWorkers


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(done: Callable[[], bool], what: str) -> None:
    ends = time.monotonic() + 30
    while not done():
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def test_what_an_engine_started_ends_with_a_killed_caller_of_its_process(tmp_path: Path) -> None:
    note = tmp_path / "note"
    caller = multiprocessing.get_context("spawn").Process(target=ask_for_ever, args=(note,))
    caller.start()
    wait_until(note.exists, "the engine is not loaded")
    worker, child = map(int, note.read_text().split())
    try:
        assert is_alive(worker) and is_alive(child)
        caller.kill()
        wait_until(lambda: not is_alive(worker), "the engine's process goes on")
        wait_until(lambda: not is_alive(child), "what the engine has started goes on")
    finally:
        for pid in (worker, child):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def ask_for_ever(note: Path) -> None:
    list(EngineWorkers(partial(endless_beside_a_child, note), [[]]).generate(requests(2)))


def test_a_step_ends_with_its_runs_process_and_that_outlives_its_starter(tmp_path: Path) -> None:
    home, log = tmp_path / "home", tmp_path / "log"
    home.mkdir()
    with log.open("wb") as output:
        command = [sys.executable, str(Path(__file__).with_name("orphan_run.py")), str(home)]
        starter = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            starter.wait(120)
        finally:
            starter.kill()
    assert (home / "processes").exists(), log.read_text()[-3000:]
    worker, step = map(int, (home / "processes").read_text().split())
    assert worker not in (starter.pid, os.getpid())
    try:
        time.sleep(1)
        assert is_alive(worker) and is_alive(step)
        os.kill(worker, signal.SIGKILL)
        ends = time.monotonic() + 10
        while is_alive(step):
            assert time.monotonic() < ends, "the step goes on without its run"
            time.sleep(0.05)
    finally:
        for pid in (worker, step):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
