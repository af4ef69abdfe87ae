"""The weights after each epoch, kept on request: saved by the child under the partial folder, published by the trainer.

The last epoch's are the checkpoint itself.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dasd_resources.sft.checkpoint import UNFINISHED, put_in_place


class KeepsEpochs(TrainerCallback):
    """Saves the weights at the last step of every epoch but the last.

    It does so before the trainer saves its state of that step: a training that goes on from that state lacks no epoch.
    """

    def __init__(self, folder: Path, save: Callable[[Path], None]) -> None:
        self.folder, self.save = folder, save

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        epoch, steps = divmod(state.global_step, state.max_steps // state.num_train_epochs)
        if steps or epoch == state.num_train_epochs:
            return
        unfinished, saved = self.folder / f"{epoch}{UNFINISHED}", self.folder / str(epoch)
        self.save(unfinished)
        if state.is_world_process_zero:
            shutil.rmtree(saved, ignore_errors=True)  # of an attempt that was killed after it
            put_in_place(unfinished, saved)
