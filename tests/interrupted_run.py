"""`dasd run` on fake engines as a process's command, which a signal may end. Started from a forkserver."""

import os
import sys
import time
from itertools import count
from pathlib import Path

import dagster as dg
from conftest import Fake, Project, silent_log

from dasd_assets.cli import INTERRUPTED
from dasd_assets.definitions import build_definitions
from dasd_resources.interruption import interruptible
from dasd_resources.recipe import load_recipe


class Training(Project):
    """A project whose trainings are real, in processes of their own."""

    @property
    def definitions(self) -> dg.Definitions:
        built = build_definitions(self.recipe, self.home, self.engines)
        return dg.Definitions.merge(built, dg.Definitions(loggers={"console": silent_log}))


def generate(home: Path, recipe: Path, output: Path) -> None:
    """A generation of which the first two responses come at once, and the next in an hour."""
    _say_to(output)
    results = count()

    def waits(request_id: str) -> bool:
        if next(results) == 2:
            (home / "waits").touch()
            time.sleep(3600)
        return False

    project = Project(home, load_recipe(str(recipe)), Fake(fails=waits))
    assets = "teacher_model,student_model,prompts,teacher_generations_t060"
    sys.exit(interruptible(lambda: min(project.materialize(assets), 0), INTERRUPTED["run"]))


def main(home: Path, recipe: Path, output: Path, trains: bool) -> None:
    """Exit code 0, or that of an interruption."""
    _say_to(output)
    project = (Training if trains else Project)(home, load_recipe(str(recipe)))
    sys.exit(interruptible(lambda: min(project.run(), 0), INTERRUPTED["run"]))


def _say_to(output: Path) -> None:
    """In a session of its own, with both outputs in a file."""
    os.setsid()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
