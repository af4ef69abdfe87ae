"""Signals at any moment of a command: it ends at once with one sentence, and the next run goes on from there."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from random import Random

import dagster as dg
import interrupted_run
import psutil
import pytest
import yaml
from conftest import Project, change, prompt_rows
from test_drill import differences, tables

from dasd_assets.cli import INTERRUPTED
from dasd_assets.records.quarantine import quarantine
from dasd_assets.service.attempts import UNFINISHED
from dasd_assets.service.recovery import INTERRUPTED as INTERRUPTED_TAG
from dasd_resources.demo.questions import questions, write_rows
from dasd_resources.recipe import Recipe

SENTENCE = f"dasd: {INTERRUPTED['run']}"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["dasd_assets.definitions", "interrupted_run"])
BEGINNING = """
import os, signal, subprocess, sys, threading, time
from dasd_resources.interruption import at_interruption, begin, interruptible
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


@dataclass
class Trial:
    """A project that is run again and again, each time until a signal comes."""

    project: Project
    recipe: Path
    folder: Path
    codes: list[int] = field(default_factory=list)

    def interrupt(self, rng: Random, most: float) -> bool:
        """At a random moment; False if the command had ended before."""
        number, delay = rng.choice([signal.SIGINT, signal.SIGTERM]), rng.uniform(0, most)
        output = self.folder / "output"
        process = PROCESSES.Process(target=interrupted_run.main, args=(self.project.home, self.recipe, output))
        process.start()
        while not output.exists():
            time.sleep(0.001)
        process.join(delay)
        os.kill(process.pid or 0, number)
        sent = time.monotonic()
        process.join(20)
        took = time.monotonic() - sent
        code, said = process.exitcode, output.read_text()
        output.unlink()
        if code == 0:
            return False
        assert (code, said.splitlines()) == (128 + number, [SENTENCE])
        assert took < 10
        self.check()
        return True

    def check(self) -> None:
        """No run is unfinished or failed, and no canceled one counts."""
        with self.project.instance() as instance:
            runs = instance.get_runs()
            assert {run.status for run in runs} <= {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED}
            canceled = [run for run in runs if run.status == dg.DagsterRunStatus.CANCELED]
            assert all(run.tags[INTERRUPTED_TAG] == run.run_id for run in canceled)
            assert instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED)) == 0


def small(folder: Path, recipe: Recipe) -> Recipe:
    """One candidate, and two held-out questions."""
    held_out = folder / "held_out.jsonl"
    write_rows(held_out, list(islice(questions("test"), 2)))
    recipe = change(recipe, "evaluation.benchmarks", [{"name": "few", "path": str(held_out), "max_tokens": 100}])
    return change(change(recipe, "evaluation.samples_per_question", 1), "generation.num_candidates", 1)


def written(folder: Path, recipe: Recipe) -> Path:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return file


def check_same_tables(home: Path, undisturbed: Path) -> None:
    ours, theirs = tables(home), tables(undisturbed)
    assert ours.keys() == theirs.keys()
    assert {name: differences(ours[name], theirs[name]) for name in ours if not ours[name].equals(theirs[name])} == {}


def interrupt_and_compare(folder: Path, tiny: Recipe, num_signals: int, seed: int) -> None:
    recipe = small(folder, tiny)
    undisturbed = Project(folder / "undisturbed", recipe)
    undisturbed.land("a.jsonl", prompt_rows(0, 3))
    began = time.monotonic()
    undisturbed.run()
    seconds, rng = time.monotonic() - began, Random(seed)
    trial, ended, interrupted = Trial(Project(folder / "home", recipe), written(folder, recipe), folder), 0, 0
    trial.project.land("a.jsonl", prompt_rows(0, 3))
    while interrupted < num_signals:
        if trial.interrupt(rng, 0.5 * seconds if interrupted < num_signals / 2 else seconds):
            interrupted += 1
        else:  # all is made: once more from the beginning
            check_same_tables(trial.project.home, undisturbed.home)
            shutil.rmtree(trial.project.home)
            trial.project.land("a.jsonl", prompt_rows(0, 3))
            ended += 1
    trial.project.run()
    check_same_tables(trial.project.home, undisturbed.home)
    assert not quarantine(trial.project.warehouse).now
    print(f"{interrupted} interrupted, {ended + 1} finished in between; undisturbed {seconds:.1f} s")


def test_interrupted_at_random_moments_nothing_is_lost_or_counted(tmp_path: Path, tiny: Recipe) -> None:
    interrupt_and_compare(tmp_path, tiny, 6, 5)
