"""The home: the folder that holds everything a distillation writes, and the environment variables that name it.

`python -m dasd_resources.home` prepares one, for services that Dagster's own commands start (deploy/).
"""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from dasd_resources.errors import UserError
from dasd_resources.packages import pip_install
from dasd_resources.whole_files import write_whole

LANDING_FOLDER = "prompts"
CHECKPOINT_FOLDER = "checkpoints"
BENCHMARK_FOLDER = "benchmarks"  # where the shipped recipes name the files of benchmarks that we may not ship
VIEWER = "http://127.0.0.1:3001"  # where `dasd view` is unless it is told otherwise: Dagster's pages link to it
EXPERIMENT_FOLDER = "experiments"  # experiments that are declared in the home
SERVICE_LOCK = "service.lock"  # held while a service runs
DAGSTER_SETTINGS = Path(__file__).parent / "dagster.yaml"
HISTORY_VARIABLE = "DASD_DAGSTER_STORAGE"  # where Dagster keeps its history
DRIVER = "postgresql+psycopg2://"  # SQLAlchemy would take another one, which Dagster does not bring
IN_DATABASE = f"""
storage: # Dagster's history, in the database that this environment variable names
  postgres:
    postgres_url: {{env: {HISTORY_VARIABLE}}}
"""
WORKSPACE = Path(__file__).parent / "workspace.yaml"  # names the code location: a sensor that is off stays off


def home_of(environment: Mapping[str, str]) -> Path:
    """DASD_HOME (default `.dasd`), absolute."""
    return Path(environment.get("DASD_HOME", ".dasd")).resolve()


def viewer_of(environment: Mapping[str, str]) -> str:
    """DASD_VIEWER: where `dasd view` is for whoever follows a link of Dagster's pages."""
    return environment.get("DASD_VIEWER", VIEWER).rstrip("/")


def recipe_of(environment: Mapping[str, str]) -> str:
    """DASD_RECIPE (default `demo`): a shipped recipe's name or a path."""
    return environment.get("DASD_RECIPE", "demo")


class HistoryConflict(UserError):
    """Dagster's history is elsewhere than asked for; the message says where."""

    exit_code = 2


def prepare_home(home: Path, dagster_home: str | None) -> Path:
    """Create the landing folder and DAGSTER_HOME (default: `home`/dagster), with the packaged dagster.yaml.

    One that was placed there by an earlier release is given the scheduler that allows one service per home.
    """
    (home / LANDING_FOLDER).mkdir(parents=True, exist_ok=True)
    folder = Path(dagster_home).resolve() if dagster_home else home / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "dagster.yaml"
    packaged = DAGSTER_SETTINGS.read_text()
    found = settings.read_text() if settings.exists() else packaged
    if found.startswith(packaged.partition("\n")[0]) and "\nscheduler:" not in found:  # placed by an earlier release
        found += packaged[packaged.index("\nscheduler:") + 1 :]
    if not settings.exists() or found != settings.read_text():
        write_whole(settings, found.encode())
    return folder


def names_history(settings: str) -> bool:
    """Whether the text of a dagster.yaml says where the history is; else it is in files beside it."""
    return "\nstorage:" in settings


def keep_history(home: Path, dagster_home: str | None, url: str) -> None:
    """Have Dagster keep the history of a new home in the database of HISTORY_VARIABLE, whose URL is not written down.

    Raises HistoryConflict for another kind of database, or where there is a history in files already.
    """
    if not url.startswith(DRIVER):
        raise HistoryConflict(f"{HISTORY_VARIABLE} must be {DRIVER}user:password@host:port/database")
    if find_spec("dagster_postgres") is None:
        raise HistoryConflict(f"{HISTORY_VARIABLE} needs dagster-postgres: {pip_install('dasd[cluster]')}")
    settings = prepare_home(home, dagster_home) / "dagster.yaml"
    found = settings.read_text()
    if names_history(found):
        return
    if any(settings.parent.rglob("*.db")):
        raise HistoryConflict(
            f"{settings.parent} has Dagster's history in files: unset {HISTORY_VARIABLE}, or begin with a new home"
        )
    write_whole(settings, (found + IN_DATABASE).encode())


if __name__ == "__main__":
    from dasd_resources.storage.place import choose_storage

    choose_storage(home_of(os.environ), os.environ)
    prepare_home(home_of(os.environ), os.environ.get("DAGSTER_HOME"))
    if HISTORY_VARIABLE in os.environ:
        keep_history(home_of(os.environ), os.environ.get("DAGSTER_HOME"), os.environ[HISTORY_VARIABLE])
