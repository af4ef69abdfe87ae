"""What is left running when a run's process is killed: nothing."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
from test_engine_workers import requests
from worker_engines import endless_beside_a_child

from dasd_resources.inference.engine_workers import EngineWorkers
from dasd_resources.orphans import SECONDS_BETWEEN_LOOKS, children_watched


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(done: Callable[[], bool], what: str, seconds: float = 120) -> None:
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends, what
        time.sleep(0.05)


def wait_for(note: Path, writer: BaseProcess) -> None:
    try:
        wait_until(note.exists, "it has not begun")
    except AssertionError:
        writer.kill()
        raise


def test_what_an_engine_started_ends_with_a_killed_caller_of_its_process(tmp_path: Path) -> None:
    note = tmp_path / "note"
    caller = multiprocessing.get_context("spawn").Process(target=ask_for_ever, args=(note,))
    caller.start()
    wait_for(note, caller)
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


def test_what_a_watched_process_started_ends_with_it_and_so_does_the_watcher(tmp_path: Path) -> None:
    note = tmp_path / "note"
    watched = multiprocessing.get_context("spawn").Process(target=start_something, args=(note,))
    watched.start()
    wait_for(note, watched)
    watcher, child, grandchild = map(int, note.read_text().split())
    try:
        time.sleep(3 * SECONDS_BETWEEN_LOOKS)
        assert all(map(is_alive, (watcher, child, grandchild)))
        watched.kill()
        wait_until(lambda: not is_alive(watcher), "the watcher goes on")
        assert not is_alive(child) and not is_alive(grandchild)
    finally:
        for pid in (watcher, child, grandchild):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def start_something(note: Path) -> None:
    with children_watched():
        [watcher] = psutil.Process().children()
        command = "sleep 3600 & echo $!; wait"
        child = subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert child.stdout is not None
        note.with_suffix(".part").write_text(f"{watcher.pid} {child.pid} {child.stdout.readline()}")
        note.with_suffix(".part").rename(note)
        time.sleep(3600)


def test_the_watcher_ends_when_it_is_needed_no_more() -> None:
    before = set(psutil.Process().children())
    with children_watched():
        [watcher] = set(psutil.Process().children()) - before
        child = subprocess.Popen(["sleep", "3600"])
    assert not watcher.is_running() and child.poll() is None
    child.kill()
    child.wait()


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
        wait_until(lambda: not is_alive(step), "the step goes on without its run", seconds=10)
    finally:
        for pid in (worker, step):
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)
