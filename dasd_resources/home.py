"""The folder that holds everything a distillation writes."""

import os
import shutil
from pathlib import Path

LANDING_FOLDER = "prompts"
DAGSTER_SETTINGS = Path(__file__).parent / "dagster.yaml"


def prepare_home(home: Path, dagster_home: str | None) -> Path:
    """Create the landing folder and DAGSTER_HOME (`home`/dagster unless given), with the packaged dagster.yaml."""
    (home / LANDING_FOLDER).mkdir(parents=True, exist_ok=True)
    folder = Path(dagster_home).resolve() if dagster_home else home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    if not settings.exists():
        aside = folder / f".dagster.yaml.{os.getpid()}"
        shutil.copyfile(DAGSTER_SETTINGS, aside)
        aside.rename(settings)
    return folder
