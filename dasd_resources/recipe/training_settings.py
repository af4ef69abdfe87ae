"""Supervised fine-tuning (report §6.4.1) and the mixed-policy stage (§5)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dasd_resources.dataset_names import MIXED
from dasd_resources.recipe.parts import (
    CONTEXT,
    AddedLater,
    BelowOne,
    DecidesNothing,
    HashedAs,
    Part,
    Positive,
    Probability,
)

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]


class StageTraining(Part):
    """What one stage has of its own in `training`; what it leaves out is that of all stages."""

    epochs: Positive | None = None
    """As in training."""
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    """As in training."""
    min_learning_rate: Annotated[float, Field(ge=0)] | None = None
    """As in training."""
    global_batch_size: Positive | None = None
    """As in training."""
    per_device_batch_size: Positive | None = None
    """As in training."""

    @property
    def given(self) -> dict[str, object]:
        """The keys that are set."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class Training(Part):
    """Full-parameter SFT (report §6.4.1), the same for every stage but for what `stages` names.

    The defaults are the report's (§6.4.1, and its published YAML), but for the launcher: it had eight GPUs.
    """

    launcher: tuple[str, ...] = Field(default=(), strict=False)
    """The command that starts training, such as [accelerate, launch]; of a strategy, its command on each node."""
    epochs: Positive = 6
    """Of each stage; those of the mixed-policy stage are in mixed_policy."""
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    """At the end of the warm-up."""
    min_learning_rate: Annotated[float, Field(ge=0)] = 1e-5
    """At the end, along a cosine."""
    warmup_ratio: BelowOne = 0.1
    """Share of the steps; a stage of one step has no warm-up."""
    adam_beta1: BelowOne = 0.9
    """AdamW's."""
    adam_beta2: BelowOne = 0.95
    """AdamW's."""
    adam_epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """AdamW's."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.1
    """AdamW's."""
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    """Gradients are clipped to it."""
    global_batch_size: Positive = 64
    """Of one step, on all devices together."""
    batch_counts: Literal["samples", "bins"] = "bins"
    """What global_batch_size counts: samples, or bins that samples are packed into; the report leaves it open."""
    per_device_batch_size: Positive = 1
    """Of one forward pass; the rest of a step is accumulated."""
    max_length: Positive = CONTEXT
    """Tokens of a sequence; the training context."""
    packing: bool = True
    """Several samples in one sequence."""
    group_by_length: bool = False
    """Samples of like length in one batch; not with packing."""
    gradient_checkpointing: bool = True
    """Less memory, more computing."""
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    """In which it computes (autocast) and publishes; the weights that it trains are float32 (zero3: a copy of them)."""
    attn_implementation: Literal["sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "eager"] = (
        "flash_attention_2"
    )
    """Of Transformers; sdpa needs no further package."""
    use_kernels: bool = True
    """Liger's layer kernels, which need the package `kernels`."""
    # 200: as the demo and the school have it, whose ids stay.
    save_every_steps: Annotated[Positive | None, HashedAs(200)] = None
    """How often a resume point is saved; null: each epoch. No checkpoint's id depends on it."""
    group_order: Annotated[Literal["descending", "random"], AddedLater] = "descending"
    """Of the groups of like length: as Hugging Face has it, or random, which learns more (docs/training.md)."""
    keep_epochs: Annotated[bool, AddedLater] = False
    """Whether the weights after each epoch are kept beside the checkpoint."""
    strategy: Annotated[Literal["ddp", "fsdp2", "zero3"] | None, AddedLater] = None
    """How several GPUs share a training: copies, or shards (docs/gpus.md); null: as the launcher has it."""
    nodes: Annotated[Positive, AddedLater] = 1
    """Machines, of a strategy; of several, the launcher starts its command once on each."""
    gpus_per_node: Annotated[Positive | None, AddedLater] = None
    """Of each machine, of a strategy: one process for each."""
    report_to: Annotated[tuple[Tracker, ...], DecidesNothing] = Field(default=(), strict=False)
    """Trackers that get the curves while a stage trains, each in a folder of the home (docs/training.md)."""
    stages: Annotated[dict[str, StageTraining], AddedLater] = Field(default_factory=dict)
    """Dataset -> what the stage that trains on it has of its own."""

    def of(self, dataset: str) -> "Training":
        """Of the stage that trains on a dataset, as if all had it."""
        own = self.stages[dataset].given if dataset in self.stages else {}
        return self.model_copy(update={**own, "stages": {}})

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if "epochs" in self.stages.get(MIXED, StageTraining()).given:
            raise ValueError("stages.mixed.epochs: that stage's epochs are mixed_policy.epochs; set them there")
        for name in self.stages:
            try:
                self.of(name)._check()
            except ValueError as error:
                raise ValueError(f"stages.{name}: {error}") from None
        self._check()
        return self

    @property
    def num_processes(self) -> int | None:
        """Of a training with a strategy; None if the launcher decides it."""
        return None if self.gpus_per_node is None else self.nodes * self.gpus_per_node

    def _check(self) -> None:
        self._check_strategy()
        if len(set(self.report_to)) < len(self.report_to):
            raise ValueError(f"report_to names a tracker twice: {', '.join(self.report_to)}; once is enough")
        if self.min_learning_rate > self.learning_rate:
            raise ValueError(
                f"min_learning_rate {self.min_learning_rate} is above learning_rate {self.learning_rate}; lower it"
            )
        if self.global_batch_size % self.per_device_batch_size:
            raise ValueError(
                f"global_batch_size {self.global_batch_size} is no multiple of "
                f"per_device_batch_size {self.per_device_batch_size}; make it one"
            )
        if self.batch_counts == "bins" and not self.packing:
            raise ValueError("batch_counts is bins but packing is off; set batch_counts: samples")
        if self.group_order == "random" and not self.group_by_length:
            raise ValueError("group_order is random but there are no groups; set group_by_length: true or remove it")
        if self.packing and self.group_by_length:
            raise ValueError("packing makes bins of equal length; set group_by_length: false")

    def _check_strategy(self) -> None:
        if self.strategy is None:
            if self.nodes > 1 or self.gpus_per_node is not None:
                raise ValueError("nodes and gpus_per_node are a strategy's; set strategy: fsdp2, or remove them")
            return
        if self.num_processes is None:
            raise ValueError(f"strategy is {self.strategy}, for how many GPUs is not said; set gpus_per_node")
        if self.nodes > 1 and not self.launcher:
            raise ValueError(
                f"nodes is {self.nodes}, and nothing starts a process on each; set launcher, such as "
                f"[srun, --nodes={self.nodes}, --ntasks-per-node=1]"
            )
        if {"accelerate", "accelerate-launch", "torchrun"} & {*self.launcher}:
            raise ValueError("with a strategy accelerate launch is generated; remove launcher, or strategy")
        of_a_pass, of_a_step = self.per_device_batch_size * self.num_processes, self.global_batch_size
        if of_a_step % of_a_pass and not (self.packing and self.batch_counts == "samples"):
            raise ValueError(
                f"global_batch_size {of_a_step} is no multiple of per_device_batch_size {self.per_device_batch_size} "
                f"x {self.num_processes} processes; change one of them"
            )


class MixedPolicy(Part):
    """Rollouts of the distilled student, cut off at `length_cap` and continued by the teacher (report §5)."""

    num_questions: Positive | None = 50_000
    """Selected questions that the student answers, at most (report §5); null: all."""
    rollout_temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Of the student's answers; the report is silent."""
    rollout_top_p: Probability = 1.0
    """Of the student's answers; the report is silent."""
    length_cap: Annotated[float, Field(ge=1)] = 1.5
    """Times the length of the teacher's response, where an answer is cut off (report §5)."""
    continuation_temperature: Annotated[float, Field(gt=0, le=2)] = 1.0
    """Of the teacher's continuations; the report is silent."""
    off_policy_ratio: Annotated[float, Field(ge=0)] = 1.575
    """Off-policy samples for each mixed-policy one: the report's 20 to 12.7 thousand (§6.4.2)."""
    require_correct: bool = False
    """Whether only continuations with a right answer are trained on."""
    loss_on_prefix: bool = True
    """Whether the student's own part is learned; leaving it out is worse (report, Table 5)."""
    epochs: Positive = 1
    """Report §6.4.2."""
