"""Signals at any moment of a command: it ends at once with one sentence, and the next run goes on from there."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import islice
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random

import dagster as dg
import interrupted_run
import psutil
import pytest
import yaml
from conftest import Project, change, forkserver, prompt_rows
from reliability import record
from test_drill import differences, tables

from dasd_assets.cli import INTERRUPTED
from dasd_assets.records.quarantine import quarantine
from dasd_assets.service.recovery import INTERRUPTED as COUNTS_FOR_NOTHING
from dasd_assets.service.recovery import fail_abandoned_runs
from dasd_resources.demo.questions import questions, write_rows
from dasd_resources.recipe import Recipe

NUM_PROMPTS = 2
SENTENCE = f"dasd: {INTERRUPTED['run']}"
BEGINNING = """
import os, signal, subprocess, sys, threading, time
from dasd_resources.interruption import at_interruption, begin, interruptible
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, here too
def say(text):
    print(text, flush=True)
"""


def interrupted(code: str, *signals: signal.Signals) -> tuple[int, str, str]:
    """(exit code, output, error output) of a command that is sent the signals, each after a line of its output."""
    command = [sys.executable, "-c", BEGINNING + code + "\nsys.exit(interruptible(work, 'interrupted'))"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    lines = ""
    for number in signals:
        lines += process.stdout.readline()
        process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    return process.returncode, lines + output, errors


SWALLOWS = """
def work():
    say('works')
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_work_that_swallows_everything_is_ended_with_one_line(number: signal.Signals) -> None:
    assert interrupted(SWALLOWS, number) == (128 + number, "works\n", "dasd: interrupted\n")


def test_a_query_and_its_processes_are_ended() -> None:
    code = """
import duckdb
def work():
    child = subprocess.Popen(['sh', '-c', 'sleep 600 & echo $!; wait'])
    duckdb.sql('SELECT sum(a.range * b.range) FROM range(10_000_000) a, range(10_000_000) b').fetchall()
"""
    returncode, output, errors = interrupted(code, signal.SIGINT)
    assert (returncode, errors) == (130, "dasd: interrupted\n")
    assert not psutil.pid_exists(int(output))


def test_what_is_registered_is_done_and_nothing_is_begun_after_it() -> None:
    code = """
ending = threading.Event()
def first():
    say('first')
    ending.set()
    time.sleep(0.3)
def work():
    with at_interruption(first, lambda: say('last')):
        say('works')
        ending.wait()
        begin()
        say('begun')
"""
    assert interrupted(code, signal.SIGTERM) == (143, "works\nfirst\nlast\n", "dasd: interrupted\n")


def test_a_second_signal_ends_it_though_something_is_still_to_be_done() -> None:
    code = """
def first():
    say('closing')
    time.sleep(600)
def work():
    with at_interruption(first, seconds=600):
        say('works')
        time.sleep(600)
"""
    assert interrupted(code, signal.SIGINT, signal.SIGINT) == (130, "works\nclosing\n", "")


def test_what_is_registered_may_say_how_the_command_ends() -> None:
    code = """
def work():
    with at_interruption(lambda: 0):
        say('serves')
        time.sleep(600)
"""
    assert interrupted(code, signal.SIGTERM)[0] == 0


def test_work_that_ends_by_itself_returns_or_raises() -> None:
    assert interrupted("def work(): return 7")[0] == 7
    returncode, _, errors = interrupted("def work(): raise ValueError('why')")
    assert returncode == 1
    assert errors.endswith("ValueError: why\n")


COPY = """
import shutil
from dasd_assets.commands.land import _copied
shutil.copyfile = lambda source, target, **options: half_of(Path(target))
def work():
    _copied(folder.parent / 'set', folder / 'set')
"""
DOWNLOAD = """
import tempfile
from dasd_assets.commands.land import Hub, land_datasets
from dasd_resources.recipe import load_recipe
tempfile.tempdir = str(folder)
hub = Hub(lambda: ['train.jsonl'], lambda path, into: half_of(into / path))
def work():
    land_datasets(load_recipe('demo'), folder.parent / 'home', [('us/set', hub)], None, None, lambda line: None)
"""


@pytest.mark.parametrize("code", [COPY, DOWNLOAD])
def test_what_was_being_landed_is_removed(code: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    for name in ("folder", "set/data"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "set" / "data" / "a.jsonl").write_text('{"question": "a"}')
    setting = f"""
from pathlib import Path
folder = Path({str(folder)!r})
def half_of(target):
    target.parent.mkdir(exist_ok=True)
    target.write_text('half')
    say(len([*folder.rglob('*.jsonl')]))
    time.sleep(600)
"""
    assert interrupted(setting + code, signal.SIGINT)[:2] == (130, "1\n")
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "command", [["sql", "SELECT 1"], ["check"], ["audit", "verify"], ["audit", "staleness"], ["backup", "folder"]]
)
def test_any_command_is_ended_with_one_line(command: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "DASD_HOME": str(tmp_path / "home")}
    words = [sys.executable, "-m", "dasd_assets.cli", *command]
    process = psutil.Popen(words, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    while process.num_threads() == 1:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    sentence = INTERRUPTED.get(command[0], "interrupted")
    assert (process.returncode, output, errors.decode()) == (130, b"", f"dasd: {sentence}\n")


def test_a_generation_that_is_interrupted_keeps_what_was_finished(project: Project, tmp_path: Path) -> None:
    project.land("a.jsonl", prompt_rows(0, 2))
    recipe, output, waits = tmp_path / "recipe.yaml", tmp_path / "output", project.home / "waits"
    recipe.write_text(yaml.safe_dump(project.recipe.model_dump(mode="json")))
    process = forkserver().Process(target=interrupted_run.generate, args=(project.home, recipe, output))
    process.start()
    while not waits.exists():
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid or 0, signal.SIGINT)
    process.join(15)
    assert (process.exitcode, output.read_text()) == (130, f"{SENTENCE}\n")
    assert project.count("responses") == 2
    with project.instance() as instance:
        run, *before = instance.get_runs()
        assert run.status == dg.DagsterRunStatus.CANCELED and run.tags[COUNTS_FOR_NOTHING] == run.run_id
        assert all(one.status == dg.DagsterRunStatus.SUCCESS for one in before)
        assert fail_abandoned_runs(instance, project.home) == 0


@dataclass
class Trial:
    """A project that is run again and again, each time until a signal comes, and one that never was interrupted."""

    folder: Path
    undisturbed: Project
    seconds: float  # that the undisturbed run took
    trains: bool = False
    num_interrupted: int = 0
    num_finished: int = 0

    @property
    def project(self) -> Project:
        return Project(self.folder / "home", self.undisturbed.recipe)

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def start(self) -> ForkServerProcess:
        if not (self.project.home / "prompts").exists():
            self.project.land("a.jsonl", prompt_rows(0, NUM_PROMPTS))
        self.output.unlink(missing_ok=True)
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(self.project.recipe.model_dump(mode="json")))
        arguments = (self.project.home, recipe, self.output, self.trains)
        process = forkserver().Process(target=interrupted_run.main, args=arguments)
        process.start()
        while not self.output.exists():
            assert process.is_alive()
            time.sleep(0.001)
        return process

    def interrupt(self, number: signal.Signals, delay: float) -> None:
        process = self.start()
        process.join(delay)
        children = psutil.Process(process.pid).children(recursive=True) if process.is_alive() else []
        if process.is_alive():
            os.kill(process.pid or 0, number)
        process.join(15)
        if process.exitcode == 0:  # it was faster
            self.compare()
            return
        assert (process.exitcode, self.output.read_text().splitlines()) == (128 + number, [SENTENCE])
        assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]
        self.num_interrupted += 1
        self.check_runs()

    def check_runs(self) -> None:
        """None is unfinished or failed, and no canceled one counts."""
        with self.project.instance() as instance:
            runs = instance.get_runs()
        ended = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED}
        assert {run.status for run in runs} <= ended, [(run.status, run.tags) for run in runs]
        canceled = [run for run in runs if run.status == dg.DagsterRunStatus.CANCELED]
        assert all(run.tags[COUNTS_FOR_NOTHING] == run.run_id for run in canceled)

    def compare(self) -> None:
        """A run that is finished has made what the undisturbed one has; the next begins anew."""
        ours, theirs = tables(self.project.home), tables(self.undisturbed.home)
        assert ours.keys() == theirs.keys()
        found = {name: differences(ours[name], theirs[name]) for name in ours if not ours[name].equals(theirs[name])}
        assert found == {}
        assert not quarantine(self.project.warehouse).now
        self.num_finished += 1
        shutil.rmtree(self.project.home)

    def finish(self, process: ForkServerProcess) -> None:
        process.join(300)
        assert process.exitcode == 0, self.output.read_text()
        self.compare()


def trial(folder: Path, tiny: Recipe, trains: bool) -> Trial:
    held_out = folder / "held_out.jsonl"
    write_rows(held_out, list(islice(questions("test"), 1)))
    recipe = change(tiny, "evaluation.benchmarks", [{"name": "one", "path": str(held_out), "max_tokens": 100}])
    recipe = change(recipe, "evaluation.samples_per_question", 1)
    undisturbed = (interrupted_run.Training if trains else Project)(folder / "undisturbed", recipe)
    undisturbed.land("a.jsonl", prompt_rows(0, NUM_PROMPTS))
    began = time.monotonic()
    undisturbed.run()
    return Trial(folder, undisturbed, time.monotonic() - began, trains)


@pytest.mark.drill
def test_interrupted_four_times_and_stopped_once_nothing_is_lost_or_counted(tmp_path: Path, tiny: Recipe) -> None:
    rng, small = Random(14), trial(tmp_path, tiny, trains=False)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        small.interrupt(number, rng.uniform(0, small.seconds / 2))
    assert small.num_interrupted > 0
    # Stopped, whatever the time: nobody takes it for dead, and it goes on.
    shutil.rmtree(small.project.home, ignore_errors=True)  # so that all is still to be done
    process = small.start()
    process.join(small.seconds / 4)
    os.kill(process.pid or 0, signal.SIGSTOP)
    with small.project.instance() as instance:
        assert fail_abandoned_runs(instance, small.project.home, clock=lambda: time.monotonic() + 1e6) == 0
    os.kill(process.pid or 0, signal.SIGCONT)
    small.finish(process)


@pytest.mark.drill
def test_twenty_four_signals_at_random_moments_change_nothing(tmp_path: Path, tiny: Recipe) -> None:
    """With real trainings, in processes of their own."""
    seed, num_signals = 24, 24
    rng = Random(seed)
    drill = trial(tmp_path, tiny, trains=True)
    print(f"undisturbed: {drill.seconds:.0f} s", flush=True)
    while drill.num_interrupted < num_signals:
        number = (signal.SIGINT, signal.SIGTERM)[drill.num_interrupted % 2]
        drill.interrupt(number, rng.uniform(0, drill.seconds / 3))
        print(f"{time.strftime('%H:%M:%S')} {drill.num_interrupted} signals, {drill.num_finished} finished", flush=True)
    drill.finish(drill.start())
    record(
        "signals",
        faults="SIGINT or SIGTERM to `dasd run` at a random moment",
        seed=seed,
        tried=num_signals,
        survived=num_signals,
        detected=0,
        silent=0,
        command="pytest -m drill tests/test_interruption.py -s",
        note=f"all tables equal to the undisturbed run's, {drill.num_finished} times",
    )
