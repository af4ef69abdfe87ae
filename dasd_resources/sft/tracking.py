"""A training's reports to its trackers, by the callbacks that Transformers has for them: none can end the training.

A tracker that fails is left out from there on. What it said stands in the log and, by name, in the checkpoint's record;
no point of the curves is lost, since they are kept with the checkpoint whatever trackers do.
"""

import os
import traceback
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks

from dasd_resources.recipe.training_settings import Tracker

MLFLOW_RUN = "mlflow-run.txt"  # in a training's partial folder: the run that a resumed training goes on in


class Tracked(TrainerCallback):
    """One tracker; `fault` says how it failed, once it has."""

    def __init__(self, name: Tracker) -> None:
        self.name, self.fault = name, ""
        self.callback: TrainerCallback | None = None

    def _tell(self, event: str, *args: object, **kwargs: object) -> None:
        if self.fault:
            return
        try:
            if self.callback is None:
                (kind,) = get_reporting_integration_callbacks([self.name])
                self.callback = kind()
            getattr(self.callback, event)(*args, **kwargs)
        except Exception as error:  # whatever a tracker may raise: a full disk, a missing package, a server's refusal
            self.fault = f"{event.removeprefix('on_')}: {type(error).__name__}: {error}"
            traceback.print_exc()
            print(f"The training goes on without {self.name}.", flush=True)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: object
    ) -> None:
        self._tell("on_train_begin", args, state, control, **others)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: object) -> None:
        self._tell("on_log", args, state, control, **others)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: object
    ) -> None:
        self._tell("on_train_end", args, state, control, **others)


class TrackedByMlflow(Tracked):
    """MLflow, which gives runs ids of its own: the first is kept, so that a resumed training finds it again."""

    def __init__(self, kept: Path) -> None:
        super().__init__("mlflow")
        self.kept = kept

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **others: object
    ) -> None:
        if self.kept.is_file():
            os.environ["MLFLOW_RUN_ID"] = self.kept.read_text()
        super().on_train_begin(args, state, control, **others)
        if state.is_world_process_zero and not self.fault:
            import mlflow

            self.kept.write_text(mlflow.active_run().info.run_id)


def tracked(names: list[Tracker], partial: Path) -> list[Tracked]:
    """The callbacks of the trackers that a training reports to. partial: its folder."""
    return [TrackedByMlflow(partial / MLFLOW_RUN) if name == "mlflow" else Tracked(name) for name in names]
