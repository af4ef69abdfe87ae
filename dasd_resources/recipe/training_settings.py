"""Supervised fine-tuning (report §6.4.1) and the mixed-policy stage (§5)."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from dasd_resources.dataset_names import MIXED
from dasd_resources.recipe.parts import AddedLater, Part, Positive, Probability


class StageTraining(Part):
    """What one stage has of its own in `training`; what it leaves out is that of all stages."""

    epochs: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None
    min_learning_rate: Annotated[float, Field(ge=0)] | None = None
    global_batch_size: Positive | None = None
    per_device_batch_size: Positive | None = None

    @property
    def given(self) -> dict[str, object]:
        """The keys that are set."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class Training(Part):
    """Full-parameter SFT (report §6.4.1), the same for every stage but for what `stages` names.

    group_order: of the groups of like length that an epoch is divided into. `descending` is the order of Hugging Face's
    trainers, within each of a few parts of the epoch; `random` learns more from the same steps (docs/training.md).
    keep_epochs: whether the weights after each epoch are kept beside the checkpoint.
    stages: dataset -> what the stage that trains on it has of its own. The mixed-policy stage has its epochs in
    `mixed_policy`.
    """

    launcher: tuple[str, ...] = Field(strict=False)
    epochs: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    min_learning_rate: Annotated[float, Field(ge=0)]
    warmup_ratio: Annotated[float, Field(ge=0, lt=1)]
    adam_beta1: Probability
    adam_beta2: Probability
    adam_epsilon: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    global_batch_size: Positive
    batch_counts: Literal["samples", "bins"]
    per_device_batch_size: Positive
    max_length: Positive
    packing: bool
    group_by_length: bool
    gradient_checkpointing: bool
    dtype: Literal["float32", "bfloat16"]
    attn_implementation: Literal["sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "eager"]
    use_kernels: bool
    save_every_steps: Positive | None
    group_order: Annotated[Literal["descending", "random"], AddedLater] = "descending"
    keep_epochs: Annotated[bool, AddedLater] = False
    stages: Annotated[dict[str, StageTraining], AddedLater] = Field(default_factory=dict)

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

    def _check(self) -> None:
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


class MixedPolicy(Part):
    """Rollouts of the distilled student, cut off at `length_cap` and continued by the teacher (report §5)."""

    num_questions: Positive | None
    rollout_temperature: Annotated[float, Field(gt=0, le=2)]
    rollout_top_p: Probability
    length_cap: Annotated[float, Field(ge=1)]
    continuation_temperature: Annotated[float, Field(gt=0, le=2)]
    off_policy_ratio: Annotated[float, Field(ge=0)]
    require_correct: bool
    loss_on_prefix: bool
    epochs: Positive
