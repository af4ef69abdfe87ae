"""Trackers get a training's curves in folders of the home, without a network, and decide nothing and end nothing.

The packages themselves are in the drill; here stand-ins for them are told what the real callbacks of Transformers say.
"""

import json
import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from conftest import Project
from tensorboard_files import scalars
from test_check import findings
from test_trainer import (  # noqa: F401 - the fixtures are used by name
    JobMaker,
    home,
    ignore,
    make_job,
    rows,
    student,
)
from transformers import TrainerControl, TrainerState, TrainingArguments

from dasd_assets.stage_training import tracker_faults
from dasd_resources.packages import pip_install
from dasd_resources.recipe import Training
from dasd_resources.recipe.parts import deciding
from dasd_resources.recipe.training_settings import Tracker
from dasd_resources.sft.checkpoint import RECORD, Trained
from dasd_resources.sft.trackers import PACKAGES, Run, places, tracker_environment
from dasd_resources.sft.tracking import MLFLOW_RUN, Tracked, tracked
from dasd_resources.sft.trainer import train

ALL = ("tensorboard", "wandb", "mlflow", "trackio")


def test_they_decide_nothing() -> None:
    assert deciding(Training(report_to=ALL)) == deciding(Training())
    with pytest.raises(ValueError, match="names a tracker twice"):
        Training(report_to=("wandb", "wandb"))


def test_each_is_offline_in_a_folder_of_the_home(tmp_path: Path) -> None:
    run = Run(tmp_path / "trackers", "mine", "abc")
    found = tracker_environment(ALL, run)
    assert found["WANDB_MODE"] == "offline"
    assert found["MLFLOW_TRACKING_URI"] == f"file:{tmp_path}/trackers/mlflow"
    assert (found["WANDB_RUN_ID"], found["WANDB_RESUME"]) == ("abc", "allow")
    assert all(folder.is_relative_to(run.folder) for folder in places(ALL, run).values())
    assert tracker_environment(["trackio"], run) == {"TRACKIO_DIR": f"{tmp_path}/trackers/trackio"}
    assert tracker_environment([], run) == {}


def log(tracker: Tracked, folder: Path, step: int, loss: float) -> None:
    args, state = TrainingArguments(str(folder), report_to=[]), TrainerState(global_step=step, max_steps=9)
    state.is_world_process_zero = True
    if step == 1:
        tracker.on_train_begin(args, state, TrainerControl())
    tracker.on_log(args, state, TrainerControl(), logs={"loss": loss})


def test_tensorboard_gets_each_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "runs"))
    tracker = Tracked("tensorboard")
    log(tracker, tmp_path, 1, 2.0)
    log(tracker, tmp_path, 2, 1.5)
    tracker.on_train_end(TrainingArguments(str(tmp_path), report_to=[]), TrainerState(), TrainerControl())
    assert tracker.fault == ""
    assert scalars(tmp_path / "runs")["train/loss"] == [(1, 2.0), (2, 1.5)]


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str) -> MagicMock:
    """A package that takes every call, with what Transformers asks of it."""
    package = MagicMock(__spec__=ModuleSpec(name, None), __version__="3.17.2", run=None)
    package.utils.validation.MAX_PARAM_VAL_LENGTH = package.utils.validation.MAX_PARAMS_TAGS_PER_BATCH = 100
    package.context_vars.current_space_id.get.return_value = None
    package.init.side_effect = lambda **_: setattr(package, "run", MagicMock())
    config_util = MagicMock(ConfigError=ValueError)
    for module, value in {name: package, f"{name}.sdk.lib.config_util": config_util}.items():
        monkeypatch.setitem(sys.modules, module, value)
    for parent in (f"{name}.sdk", f"{name}.sdk.lib"):
        monkeypatch.setitem(sys.modules, parent, MagicMock())
    return package


@pytest.mark.parametrize(("name", "point"), [("wandb", "log"), ("mlflow", "log_metrics"), ("trackio", "log")])
def test_each_is_told_of_every_point_and_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: Tracker, point: str
) -> None:
    package = stand_in(monkeypatch, name)
    package.active_run.return_value.info.run_id = "the-run"
    for variable, value in tracker_environment([name], Run(tmp_path / "trackers", "mine", "abc")).items():
        monkeypatch.setenv(variable, value)
    [tracker] = tracked([name], tmp_path)
    log(tracker, tmp_path, 1, 2.0)
    log(tracker, tmp_path, 2, 1.5)
    tracker.on_train_end(TrainingArguments(str(tmp_path), report_to=[]), TrainerState(), TrainerControl())
    assert tracker.fault == ""
    told = [call.kwargs.get("metrics") or call.args[0] for call in getattr(package, point).call_args_list]
    assert [said.get("loss", said.get("train/loss")) for said in told] == [2.0, 1.5]
    if name == "wandb":
        assert package.init.call_args.kwargs["project"] == "mine"


def test_a_resumed_training_goes_on_in_the_run_that_mlflow_gave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = stand_in(monkeypatch, "mlflow")
    package.active_run.return_value.info.run_id = "the-run"
    monkeypatch.setenv("MLFLOW_RUN_ID", "")
    for run_id in ("", "the-run"):
        log(tracked(["mlflow"], tmp_path)[0], tmp_path, 1, 2.0)
        assert os.environ["MLFLOW_RUN_ID"] == run_id
    assert (tmp_path / MLFLOW_RUN).read_text() == "the-run"


def test_one_that_fails_says_so_and_the_training_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "file" / "runs"))
    tracker = Tracked("tensorboard")
    log(tracker, tmp_path, 1, 2.0)
    log(tracker, tmp_path, 2, 1.5)
    assert tracker.fault.startswith("train_begin: NotADirectoryError")
    printed = capfd.readouterr()
    assert printed.out.count("The training goes on without tensorboard.") == 1
    assert "NotADirectoryError" in printed.err


def test_a_fault_is_a_warning_of_the_step(tmp_path: Path) -> None:
    trackers = {"wandb": "log: OSError: no space", "mlflow": "ok"}
    (fault,) = tracker_faults(Trained(tmp_path, "hash", [], 1.0, 1, 1, 1, trackers))
    assert fault.startswith("wandb failed (log: OSError: no space)")


def test_dasd_check_says_what_to_install(project: Project) -> None:
    missing = [name for name in ALL if not any(map(find_spec, PACKAGES[name]))]
    training = project.recipe.training.model_copy(update={"report_to": ALL})
    project.recipe = project.recipe.model_copy(update={"training": training})
    found = findings(project, quick=True)["trackers"]
    if missing:
        assert found.status == "failed" and pip_install(*missing) in found.message
    else:
        assert found.status == "ok" and str(project.home / "trackers") in found.message


@pytest.mark.drill
@pytest.mark.parametrize("name", ALL)
def test_a_training_reports(make_job: JobMaker, tmp_path: Path, name: str) -> None:  # noqa: F811
    if not any(map(find_spec, PACKAGES[name])):
        pytest.skip(f"{name} is not installed")
    run = Run(tmp_path / "trackers", "mine", f"reports-{name}")
    trained = train(make_job(run.name, epochs=2, report_to=(name,), run=run), ignore)
    assert trained.trackers == {name: "ok"}
    assert json.loads((trained.path / RECORD).read_text())["trackers"] == {name: "ok"}
    assert any(file.is_file() for file in places([name], run)[name].rglob("*"))
    assert trained.content_hash == train(make_job("reports-none", epochs=2), ignore).content_hash
