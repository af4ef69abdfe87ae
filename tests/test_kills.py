"""The ledger under kill -9: real engines, a process that dies at any moment, and a count of what was done twice."""

import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from random import Random

import counting_run
import pytest
import yaml
from conftest import Project, change, forkserver, prompt_rows
from reliability import record

from dasd_resources.storage.ledger import Ledger

ASSETS = ["teacher_model", "student_model", "prompts", "teacher_generations_t060", "student_tokens"]
SELECTION = ",".join([*ASSETS, "response_verdicts", "student_logprobs"])
TABLES = {"generated": "responses", "scored": "student_logprobs"}
MAX_ROWS = Ledger.max_rows  # a flush's: the most that a kill can cost


@dataclass
class Drill:
    """A project, the processes that ran on it, and what their engines wrote down."""

    project: Project
    folder: Path
    lost: list[int] = field(default_factory=list)  # by each kill: results not yet committed

    @property
    def log(self) -> Path:
        return self.folder / "results.log"

    def start(self) -> ForkServerProcess:
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(self.project.recipe.model_dump(mode="json")))
        child = forkserver().Process(target=counting_run.main, args=(self.project.home, recipe, SELECTION, self.log))
        child.start()
        return child

    def results(self, process: int | None = None) -> list[tuple[str, str]]:
        """(kind, id) of every result written down, by one process or by all."""
        lines = self.log.read_text().splitlines() if self.log.is_file() else []
        rows = [line.split() for line in lines]
        return [(kind, id) for owner, kind, id in rows if kind in TABLES and process in (None, int(owner))]

    def committed(self) -> set[tuple[str, str]]:
        if not self.project.warehouse.catalog.exists():
            return set()
        return {
            (kind, id)
            for kind, table in TABLES.items()
            for id in self.project.read(f"SELECT response_id FROM {table}")["response_id"]
        }

    def kill_after(self, num_results: int, delay: float) -> bool:
        """Kill -9 a process once it has so many results and some time has passed; False if it ended before."""
        before, child = self.committed(), self.start()
        while child.is_alive() and len(self.results(child.pid)) < num_results:
            time.sleep(0.01)
        time.sleep(delay)
        child.kill()
        child.join()
        assert child.exitcode in (0, -signal.SIGKILL)
        self.check(child.pid, before)
        return child.exitcode != 0

    def finish(self) -> None:
        before, child = self.committed(), self.start()
        child.join()
        assert child.exitcode == 0
        self.check(child.pid, before)

    def check(self, process: int | None, before: set[tuple[str, str]]) -> None:
        """A process did nothing that was there when it began, nothing twice, and lost at most one flush per asset."""
        done = self.results(process)
        assert not set(done) & before
        assert len(done) == len(set(done))
        self.lost.append(len(set(done) - self.committed()))
        assert self.lost[-1] <= MAX_ROWS

    def check_end(self, num_responses: int) -> None:
        """Every id is there once, and what was done twice is what the kills lost."""
        for table in TABLES.values():
            ids = self.project.read(f"SELECT response_id FROM {table}")["response_id"]
            assert ids.is_unique().all()
        assert self.project.count("responses") == num_responses
        assert self.project.count("failed_requests") == 0
        times = Counter(self.results())
        assert set(times) == self.committed()
        again = sum(times.values()) - len(times)
        assert again == sum(self.lost)
        print(f"{len(self.lost)} processes, {len(times)} results; done again: {again} ({self.lost} by process)")


def drill(project: Project, folder: Path, num_questions: int, num_candidates: int = 1) -> Drill:
    project.recipe = change(project.recipe, "generation.num_candidates", num_candidates)
    project.land("a.jsonl", prompt_rows(0, num_questions))
    return Drill(project, folder)


def test_killed_twice_nothing_is_lost_or_doubled(project: Project, tmp_path: Path) -> None:
    run = drill(project, tmp_path, 24)
    assert run.kill_after(5, 0.0)
    assert run.kill_after(24 + 3, 0.0)  # while scoring
    run.finish()
    run.check_end(24)


@pytest.mark.drill
def test_killed_twenty_times_nothing_is_lost_or_doubled(project: Project, tmp_path: Path) -> None:
    run, rng = drill(project, tmp_path, 1200, num_candidates=2), Random(7)
    kills = sum(run.kill_after(rng.randint(1, 700), rng.uniform(0, 0.3)) for _ in range(20))
    assert kills == 20
    run.finish()
    run.check_end(2400)
    record(
        "ledger",
        faults="SIGKILL of a run on real engines at a random result",
        seed=7,
        tried=kills,
        survived=kills,
        detected=0,
        silent=0,
        command="pytest -m drill tests/test_kills.py -k test_killed_twenty_times_nothing_is_lost_or_doubled",
        note=f"each of 2,400 ids once; of 4,800 results {sum(run.lost)} were lost by a kill and done again, at most "
        f"{max(run.lost)} by one (limit {MAX_ROWS})",
    )


def test_two_runs_of_one_batch_at_once_write_each_id_once(project: Project, tmp_path: Path) -> None:
    run = drill(project, tmp_path, 12)
    children = [run.start(), run.start()]
    for child in children:
        child.join()
        assert child.exitcode == 0
    for table in TABLES.values():
        ids = project.read(f"SELECT response_id FROM {table}")["response_id"]
        assert ids.is_unique().all()
    assert project.count("responses") == 12
    assert set(run.results()) == run.committed()
