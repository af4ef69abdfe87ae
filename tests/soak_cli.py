"""The `dasd` command on the deterministic fake engine, slow enough to be killed in: `python -m soak_cli run`.

`dasd ui` serves `drill_service`, whose graph is the same. Maintenance keeps nothing for longer than a minute or two,
less than a recipe may ask for, so that readers meet it.
"""

import sys
from pathlib import Path

import dagster as dg
from conftest import Fake, fake_engines
from drill_service import slowly

from dasd_assets import cli
from dasd_assets.commands import run, ui
from dasd_assets.definitions import build_definitions
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe

FAKE = Fake(fails=slowly)
MINUTE = {"keep_snapshots_days": 60 / 86400, "grace_hours": 120 / 3600}


def engines(home: str) -> Engines:
    return fake_engines(Path(home), FAKE)


def definitions(recipe: Recipe, home: Path, engines: Engines) -> dg.Definitions:
    maintenance = recipe.maintenance.model_copy(update=MINUTE)
    return build_definitions(recipe.model_copy(update={"maintenance": maintenance}), home, engines, FAKE.train)


if __name__ == "__main__":
    run.EnvironmentEngines, run.build_definitions = engines, definitions  # type: ignore[assignment, misc]
    ui.WORKSPACE = Path(__file__).parent / "data" / "drill_workspace.yaml"
    sys.exit(cli.main())
