"""Trackers that a training reports to (`training.report_to`): where each writes, in the home and without a network.

The training's process is offline, so each keeps its runs in a folder of its own, from where they are uploaded or looked
at later. A run is named for its checkpoint; a training that goes on after a kill goes on in the same run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dasd_resources.recipe.training_settings import Tracker

FOLDER = "trackers"  # in the home
SETTINGS = "trackers.json"  # in a training's partial folder: what `tracking.py` reads
PACKAGES: Mapping[Tracker, tuple[str, ...]] = {  # any of these
    "tensorboard": ("tensorboard", "tensorboardX"),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "trackio": ("trackio",),
}


@dataclass(frozen=True)
class Run:
    """What a training is called by its trackers. folder: of all of them. project: the recipe's name."""

    folder: Path
    project: str
    name: str


def places(names: Sequence[Tracker], run: Run) -> dict[Tracker, Path]:
    """The folder that each writes to."""
    found: dict[Tracker, Path] = {name: run.folder / name for name in names}
    return found | ({"tensorboard": run.folder / "tensorboard" / run.name} if "tensorboard" in names else {})


def tracker_environment(names: Sequence[Tracker], run: Run) -> dict[str, str]:
    """The variables by which each finds its folder and its run, and asks no network."""
    folders = {name: str(folder) for name, folder in places(names, run).items()}
    known: dict[Tracker, dict[str, str]] = {
        "tensorboard": {"TENSORBOARD_LOGGING_DIR": folders.get("tensorboard", "")},
        "wandb": {
            "WANDB_MODE": "offline",
            "WANDB_DIR": folders.get("wandb", ""),
            "WANDB_PROJECT": run.project,
            "WANDB_RUN_ID": run.name,
            "WANDB_RESUME": "allow",
            "WANDB_CONSOLE": "off",
            "WANDB_DISABLE_CODE": "true",
            "WANDB_DISABLE_GIT": "true",
            "WANDB_LOG_MODEL": "false",
        },
        "mlflow": {
            "MLFLOW_TRACKING_URI": f"file:{folders.get('mlflow', '')}",
            "MLFLOW_EXPERIMENT_NAME": run.project,
            "MLFLOW_ALLOW_FILE_STORE": "true",
        },
        "trackio": {"TRACKIO_DIR": folders.get("trackio", "")},
    }
    return {variable: value for name in names for variable, value in known[name].items()}
