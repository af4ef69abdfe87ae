"""The child of `trainer.py`: one SFT run in this process, or in as many as `accelerate launch` starts.

`python -m dasd_resources.sft.child <partial>/job.json [<checkpoint to resume from>]` reads job and rows, trains,
appends to `progress.jsonl`, and leaves the weights in `weights/` and counts in `result.json`, all in the same folder.
Rows reach the model as they are: no templates, no tokenization, no truncation (`trainer.check_rows` has checked them).
"""

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path

import pyarrow.compute as pc
import torch
from accelerate.state import DistributedType, PartialState
from datasets import Dataset
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Sampler
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_pt_utils import get_length_grouped_indices
from trl import SFTConfig, SFTTrainer

from dasd_resources.chat.tokenizer_files import load_tokenizer
from dasd_resources.orphans import end_with_holder
from dasd_resources.recipe import Training
from dasd_resources.sft.checkpoint import EPOCHS, FAILURE, SAVING, Pace, Progress
from dasd_resources.sft.ending import SavesBeforeEnding
from dasd_resources.sft.freed_memory import keep_freed_memory
from dasd_resources.sft.kept_epochs import KeepsEpochs
from dasd_resources.sft.packing import check_separation, load_rows, num_rows
from dasd_resources.sft.states import complete
from dasd_resources.sft.trackers import SETTINGS
from dasd_resources.sft.tracking import Tracked, tracked

SECONDS_BETWEEN_LINES = 10.0
WHOLE_LOGITS = 2**26  # bytes, of a forward pass on a CPU, up to which logits are held at once


def main(description: Path, resume: str | None) -> None:
    """Train; an exception is left for the trainer, for the log ends with what a launcher of several processes says."""
    try:
        run(description, resume)
    except Exception as error:
        left = description.parent / FAILURE  # of the first to fail
        with suppress(OSError), left.open("x", encoding="utf-8", errors="replace") as file:
            file.write(f"{type(error).__name__}: {error}")
        raise


def run(description: Path, resume: str | None) -> None:
    keep_freed_memory()
    job, folder = json.loads(description.read_text()), description.parent
    trainer = stage_trainer(job, folder)
    trainer.add_callback(SavesBeforeEnding(folder / SAVING))
    let_state_through()
    trainer.train(resume_from_checkpoint=resume)
    save_weights(trainer, trainer.processing_class, job["training"]["dtype"], folder / "weights")
    if trainer.is_world_process_zero():
        result = {"num_steps": trainer.state.max_steps, "num_bins": len(trainer.train_dataset)}
        result |= {"trackers": {one.name: one.fault or "ok" for one in trainer.trackers}} if trainer.trackers else {}
        (folder / "result.json").write_text(json.dumps(result))
    trainer.accelerator.end_training()


def stage_trainer(job: dict[str, object], folder: Path) -> "StageTrainer":
    """The trainer of a job (`trainer.SftJob`, as JSON), which reports and saves into the folder."""
    training, model = Training.model_validate(job["training"]), Path(str(job["model"]))
    rows = load_rows(Path(str(job["rows"])), training, folder / "cache")
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    accumulation = accumulation_steps(training, num_rows(rows), len(rows), world_size)
    config = sft_config(training, int(str(job["epochs"])), int(str(job["seed"])), accumulation, folder / "state")
    settings = json.loads((folder / SETTINGS).read_text())
    config.run_name, config.project = settings.get("run_name"), settings.get("project", config.project)
    shard_on_cpus()
    tokenizer = load_tokenizer(model).tokenizer
    trainer = StageTrainer(str(model), config, train_dataset=rows, processing_class=tokenizer)
    trainer.order = epoch_order(rows, config, training)
    trainer.unproven = training if training.packing else None
    few = holds_logits(training, trainer.model.config.get_text_config().vocab_size)
    # Transformers would weigh an auxiliary loss by the accumulation steps, and processes train as GPUs do: by tiles.
    trainer.holds_logits = few and world_size == 1 and not trainer.aux_loss_enabled
    if training.keep_epochs:
        save = partial(save_weights, trainer, tokenizer, training.dtype)
        trainer.add_callback(KeepsEpochs(folder / EPOCHS, save))
    trainer.add_callback(Reporter(folder / "progress.jsonl", trainer))
    trainer.trackers = tracked(settings["report_to"], folder)
    for tracker in trainer.trackers:
        trainer.add_callback(tracker)
    return trainer


def shard_on_cpus() -> None:
    """Have FSDP2 shard over these processes, where there is no GPU.

    Accelerate shards over GPUs alone, so it is told that these processes have one; their device was found before. That
    is how the arithmetic of FSDP2 is tested where there are none.
    """
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and not torch.accelerator.is_available():
        PartialState().distributed_type = DistributedType.MULTI_GPU


def let_state_through() -> None:
    """DeepSpeed's state names two classes of its own beside tensors: they are read, nothing else that is pickled is."""
    if os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true":
        from deepspeed.runtime.fp16.loss_scaler import LossScaler
        from deepspeed.runtime.zero.config import ZeroStageEnum

        torch.serialization.add_safe_globals([LossScaler, ZeroStageEnum])


def accumulation_steps(training: Training, num_samples: int, num_bins: int, world_size: int) -> int:
    """Forward passes per optimizer step, so that a step sees `global_batch_size` samples (on average) or bins.

    Packed samples come in bins: with `batch_counts: samples` the nearest whole number of bins holds the batch.
    Raises ValueError if the batch does not divide by the processes.
    """
    bins_per_pass = training.per_device_batch_size * world_size
    if training.packing and training.batch_counts == "samples":
        return max(1, round(training.global_batch_size * num_bins / num_samples / bins_per_pass))
    if training.global_batch_size % bins_per_pass:
        raise ValueError(
            f"training.global_batch_size {training.global_batch_size} is no multiple of per_device_batch_size "
            f"{training.per_device_batch_size} x {world_size} processes; change one of them or the launcher"
        )
    return training.global_batch_size // bins_per_pass


def holds_logits(training: Training, vocab_size: int) -> bool:
    """Whether all logits of a pass are held at once, where they are few: on a CPU, TRL's tiles of them take longer.

    It depends on no row, so that a resumed run computes as the one before it.
    """
    positions = training.per_device_batch_size * training.max_length
    return not torch.accelerator.is_available() and 4 * positions * vocab_size <= WHOLE_LOGITS


def sft_config(training: Training, epochs: int, seed: int, accumulation: int, state: Path) -> SFTConfig:
    """The recipe as TRL's configuration.

    Weights and optimizer state are float32 whatever `dtype` is: bfloat16 is the type computed in (autocast), since at
    the report's learning rate an update is smaller than a bfloat16 weight can show.
    """
    return SFTConfig(
        output_dir=str(state),
        num_train_epochs=epochs,
        per_device_train_batch_size=training.per_device_batch_size,
        gradient_accumulation_steps=accumulation,
        learning_rate=training.learning_rate,
        lr_scheduler_type="cosine_with_min_lr",
        # Its share, not "min_lr": Transformers would look for the rate in the optimizer, where DeepSpeed has none.
        lr_scheduler_kwargs={"min_lr_rate": training.min_learning_rate / training.learning_rate},
        warmup_steps=training.warmup_ratio,  # below 1 it is a share of all steps (transformers 5)
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        max_length=training.max_length,
        packing=training.packing,
        packing_strategy="bfd_split",
        dataset_kwargs={"skip_prepare_dataset": True},
        gradient_checkpointing=training.gradient_checkpointing,
        bf16=training.dtype == "bfloat16",
        model_init_kwargs={
            "dtype": "float32",
            "attn_implementation": training.attn_implementation,
            "use_kernels": training.use_kernels,
            "use_safetensors": True,
            "local_files_only": True,
        },
        trust_remote_code=False,
        seed=seed,
        save_strategy="steps" if training.save_every_steps else "epoch",
        save_steps=training.save_every_steps or 1,
        save_total_limit=None,  # it goes by the clock: see states.py
        logging_steps=1 / 200,  # of all steps
        logging_nan_inf_filter=False,  # which would log a diverged training as a loss of 0
        disable_tqdm=True,
        report_to=[],
        use_cpu=not torch.accelerator.is_available(),
        dataloader_pin_memory=torch.accelerator.is_available(),
    )


class EpochOrder(Sampler[int]):
    """Row numbers in an order that only `seed` and `epoch` decide, in groups of like length if `lengths` are given.

    group_order: `descending` groups, longest first within each part of the epoch, or the same in `random` order, with
    one that is not full at the end. The samplers of transformers draw on the global generator or lose count of the
    epoch when a run is resumed within one: rows would then be seen twice, or never.
    """

    def __init__(
        self, num_rows: int, lengths: list[int] | None, group_size: int, seed: int, group_order: str = "descending"
    ) -> None:
        self.num_rows, self.lengths, self.group_size, self.seed = num_rows, lengths, group_size, seed
        self.group_order, self.epoch = group_order, 0

    def __len__(self) -> int:
        return self.num_rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.lengths is None:
            return iter(torch.randperm(self.num_rows, generator=generator).tolist())
        rows = get_length_grouped_indices(self.lengths, self.group_size, generator=generator)
        if self.group_order == "descending":
            return iter(rows)
        num_full = self.num_rows // self.group_size
        firsts = (torch.randperm(num_full, generator=generator) * self.group_size).tolist()
        return chain.from_iterable(rows[f : f + self.group_size] for f in [*firsts, num_full * self.group_size])


def epoch_order(rows: Dataset, config: SFTConfig, training: Training) -> EpochOrder:
    """The order of training, grouped so that all rows of an optimizer step are alike in length."""
    grouped = training.group_by_length
    lengths = pc.list_value_length(rows.data.column("input_ids")).to_pylist() if grouped else None
    group_size = config.per_device_train_batch_size * config.gradient_accumulation_steps * config.world_size
    return EpochOrder(len(rows), lengths, group_size, config.seed, training.group_order)


class StageTrainer(SFTTrainer):
    """SFTTrainer whose rows come in an order that survives a restart."""

    order: EpochOrder

    def __init__(self, *args: object, **settings: object) -> None:
        super().__init__(*args, **settings)
        self.positions = [0, 0]  # of this process, since they were last gathered: with a token, and all
        self.trackers: list[Tracked] = []
        self.unproven: Training | None = None  # of a training that packs, until its first step
        self.holds_logits = False

    @property
    def num_tokens(self) -> int:
        """Tokens seen since they were last gathered, if each process saw as many as this one."""
        return int(self.positions[0] * self.accelerator.num_processes)

    def training_step(
        self, model: torch.nn.Module, inputs: dict[str, torch.Tensor], num_items_in_batch: torch.Tensor | None = None
    ) -> torch.Tensor:
        if self.unproven is not None:
            check_separation(partial(self.last_packed, model), inputs["input_ids"][0].tolist(), self.unproven)
            self.unproven = None
        mask = inputs.get("attention_mask")  # there is none without padding
        num_tokens = inputs["input_ids"].numel() if mask is None else int(mask.sum())
        self.positions[0] += num_tokens
        self.positions[1] += inputs["input_ids"].numel()
        if self.holds_logits:  # TRL counts them in its own loss, for trackers
            self._total_train_tokens += num_tokens
        loss: torch.Tensor = super().training_step(model, inputs, num_items_in_batch)
        return loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> torch.Tensor:
        """TRL's loss, or Transformers' (`holds_logits`), without TRL's two means over tokens: entropy and accuracy."""
        if not self.holds_logits:
            loss: torch.Tensor = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
            return loss
        self._metrics["train"]["num_tokens"] = [self._total_train_tokens]
        given = {**inputs, "use_cache": False}
        loss = super(SFTTrainer, self).compute_loss(model, given, return_outputs, num_items_in_batch)
        return loss

    @torch.no_grad()
    def last_packed(self, model: torch.nn.Module, samples: list[list[int]]) -> torch.Tensor:
        """Logprobs of the last sample's tokens, packed behind the others; every process computes as many rows."""
        others, last = [token for sample in samples[:-1] for token in sample], samples[-1]
        lengths = [len(sample) for sample in samples]
        bin_ = {"input_ids": others + last, "labels": [-100] * len(others) + last, "seq_lengths": lengths}
        model.eval()  # until the training step
        inputs = self._prepare_inputs(self.data_collator([bin_]))
        with self.compute_loss_context_manager():
            logprobs: torch.Tensor = model(**inputs, use_cache=False, fused_lm_head=True).log_probs
        return logprobs

    def gather_tokens(self) -> tuple[int, float]:
        """Tokens that all processes saw since this was last asked, and the share of positions that held none.

        TRL counts none of some processes where an epoch ends.
        """
        counts = torch.tensor([self.positions], device=self.accelerator.device)
        tokens, positions = self.accelerator.gather(counts).sum(dim=0).tolist()
        self.positions = [0, 0]
        return tokens, 1 - tokens / positions if positions else 0.0

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LRScheduler:
        """Transformers', without a warm-up where there is one step: the first of a warm-up has the rate 0."""
        if num_training_steps == 1:
            self.args.warmup_steps = 0
        scheduler: LRScheduler = super().create_scheduler(num_training_steps, optimizer)
        return scheduler

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> EpochOrder:
        return self.order


class Reporter(TrainerCallback):
    """Appends each point of the loss curve to `progress`, with every save too, and marks saves that are complete.

    Between the points, which lie hours apart in a long training, it reports the pace. The points are of fixed steps and
    never of a clock: a run that was killed and resumed ends with the curve of one that was not. A point that is not
    finite ends the training, by ValueError, before what diverged is saved.
    """

    def __init__(self, progress: Path, trainer: StageTrainer) -> None:
        self.progress, self.trainer = progress, trainer
        self.last_written = 0.0  # when the last line was written
        self.tokens, self.point_at = 0, 0.0  # up to the last point, and when that was

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        state.save_steps = int(args.save_steps)  # a resumed training's state has those of before
        points = self.progress.read_text().splitlines()
        self.tokens = json.loads(points[-1])["tokens"] if points else 0
        self.point_at = time.monotonic()
        self._write(Pace(state.global_step, state.max_steps, self.tokens))

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self.trainer.order.epoch = int(state.epoch or 0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        control.should_log |= control.should_save
        if not control.should_log and time.monotonic() - self.last_written >= SECONDS_BETWEEN_LINES:
            self._write(Pace(state.global_step, state.max_steps, self.tokens + self.trainer.num_tokens))

    def on_epoch_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        control.should_log |= control.should_save

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        logs = state.log_history[-1]
        if "loss" not in logs:
            return
        for measured in ("loss", "grad_norm"):
            if not math.isfinite(logs.get(measured) or 0.0):
                raise ValueError(
                    f"the training has diverged: {measured} is {logs[measured]} at step {state.global_step} of "
                    f"{state.max_steps}; lower training.learning_rate, which is {args.learning_rate:g} here"
                )
        now = time.monotonic()
        tokens, padding_share = self.trainer.gather_tokens()
        self.tokens += tokens
        point = Progress(
            step=state.global_step,
            num_steps=state.max_steps,
            loss=logs["loss"],
            learning_rate=logs["learning_rate"],
            tokens=self.tokens,
            grad_norm=logs.get("grad_norm"),
            padding_share=padding_share,
            tokens_per_second=tokens / (now - self.point_at),
            time=time.time(),
        )
        self.point_at = now
        self._write(point)

    def _write(self, reading: Progress | Pace) -> None:
        self.last_written = time.monotonic()
        if self.trainer.is_world_process_zero():
            with self.progress.open("a") as lines:
                lines.write(json.dumps(asdict(reading)) + "\n")

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.trainer.accelerator.wait_for_everyone()
        if state.is_world_process_zero:
            complete(Path(str(args.output_dir)) / f"checkpoint-{state.global_step}")


def save_weights(trainer: StageTrainer, tokenizer: PreTrainedTokenizerBase, dtype: str, folder: Path) -> None:
    """Model (safetensors, in `dtype`), tokenizer, generation config; all processes take part in gathering shards."""
    weights = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    if not trainer.is_world_process_zero():
        return
    model = trainer.accelerator.unwrap_model(trainer.model_wrapped)
    tied = model.all_tied_weights_keys
    weights = {name: value.to(getattr(torch, dtype)) for name, value in weights.items() if name not in tied}
    cached, model.config.use_cache = model.config.use_cache, True  # the trainer turned it off
    model.save_pretrained(folder, state_dict=weights)
    model.config.use_cache = cached
    if isinstance(tokenizer.chat_template, dict):  # it was trained on the default; the others go into a folder
        tokenizer.chat_template = tokenizer.get_chat_template()
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "dtype": dtype}, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    end_with_holder(0)  # the trainer, of standard input, which `accelerate launch` hands on to each of its processes
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
