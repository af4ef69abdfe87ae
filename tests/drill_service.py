"""The code location of the fault drill: the graph on the deterministic fake engine, slow enough to be killed in."""

import os
import time
from pathlib import Path

import dagster as dg
from conftest import Fake, fake_engines

from dasd_assets.definitions import build_definitions
from dasd_assets.service import recovery
from dasd_resources.recipe import load_recipe

SECONDS_PER_RESULT = 0.05
recovery.START_SECONDS = recovery.LOCK_SECONDS  # this code loads fast: what was killed as it began is found sooner


def slowly(request_id: str) -> bool:
    """No request fails, but each takes its time."""
    time.sleep(SECONDS_PER_RESULT)
    return False


@dg.definitions
def defs() -> dg.Definitions:
    """Of DASD_RECIPE over DASD_HOME."""
    home, fake = Path(os.environ["DASD_HOME"]), Fake(fails=slowly)
    return build_definitions(load_recipe(os.environ["DASD_RECIPE"]), home, fake_engines(home, fake), fake.train)
