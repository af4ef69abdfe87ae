"""`dasd run` on fake engines as a process's command, which a signal may end. Started from a forkserver."""

import os
import sys
from pathlib import Path

import dagster as dg
from conftest import Project, silent_log

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


def main(home: Path, recipe: Path, output: Path, trains: bool) -> None:
    """Exit code 0, or that of an interruption; what it says on either output goes to the file."""
    os.setsid()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    project = (Training if trains else Project)(home, load_recipe(str(recipe)))
    sys.exit(interruptible(lambda: min(project.run(), 0), INTERRUPTED["run"]))
