"""`dasd run` on fake engines as a process's command, which a signal may end. Started from a forkserver."""

import os
import sys
from pathlib import Path

from conftest import Project

from dasd_assets.cli import INTERRUPTED
from dasd_resources.interruption import interruptible
from dasd_resources.recipe import load_recipe


def main(home: Path, recipe: Path, output: Path) -> None:
    os.setsid()
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    project = Project(home, load_recipe(str(recipe)))
    sys.exit(interruptible(lambda: min(project.run(), 0), INTERRUPTED["run"]))
