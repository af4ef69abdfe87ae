"""How a training ends that is told to (SIGTERM): at once; or, if it is saving a checkpoint, when that is saved."""

import os
import signal
from pathlib import Path
from types import FrameType

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

TOLD_TO_END = 1  # exit code


class SavesBeforeEnding(TrainerCallback):
    """To be added after the callback that completes a save. mark: a file that exists while any process is saving."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark
        self.saving = self.told = False
        signal.signal(signal.SIGTERM, self._end)

    def _end(self, number: int, _: FrameType | None) -> None:
        self.told = True
        if not self.saving:
            os._exit(TOLD_TO_END)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if control.should_save:
            self.saving = True
            if state.is_world_process_zero:
                self.mark.touch()

    on_epoch_end = on_step_end

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if state.is_world_process_zero:  # which completes the save once all have done their part
            self.mark.unlink(missing_ok=True)
        self.saving = False
        if self.told:
            os._exit(TOLD_TO_END)
