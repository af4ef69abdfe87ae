"""What a training needs of each GPU's memory, estimated from a model's config alone: nothing is loaded or computed.

The model is built, and each of its layers run once, on the meta device, where tensors have shapes and no contents. Left
out: what the driver, the communication library and fragmentation take, and experts that more tokens than others go to.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dasd_resources.recipe import Training

FLOAT32, MOMENTS = 4, 8  # bytes of a weight, of AdamW's two moments of it
SHARDED = ("fsdp2", "zero3")
TILE = (4096, 32_768)  # tokens, and entries of the vocabulary, whose logits TRL computes at once
ATTENTION = "shapes_alone"


@dataclass(frozen=True)
class ModelSizes:
    """Of a model, in numbers of weights: all, its largest layer, its output projection; and of its activations.

    saved: bytes that the largest layer keeps for its backward pass, at the length that was asked for.
    """

    num_weights: int
    num_layer_weights: int
    num_head_weights: int
    num_layers: int
    hidden_size: int
    num_heads: int
    saved: int


@dataclass(frozen=True)
class GpuMemory:
    """Bytes of one GPU, at the worst moment of a step.

    gathered: whole layers and copies of weights, while they are computed with. activations: kept for the backward pass,
    with those of one layer computed anew under gradient checkpointing. mask: which tokens may see which.
    """

    parameters: int
    gradients: int
    optimizer: int
    gathered: int
    activations: int
    mask: int
    logits: int

    @property
    def total(self) -> int:
        return sum(getattr(self, field.name) for field in fields(self))


def gpu_memory(sizes: ModelSizes, training: Training) -> GpuMemory:
    """The sum of a training (docs/gpus.md has it as a formula).

    Weights, gradients and moments are float32; DeepSpeed alone computes with bfloat16 weights beside them.
    """
    computed = 2 if training.dtype == "bfloat16" else FLOAT32
    weights, tokens = sizes.num_weights, training.per_device_batch_size * training.max_length
    sharded = training.strategy in SHARDED
    shards = (training.num_processes or 1) if sharded else 1
    copies = computed if training.strategy == "zero3" else FLOAT32
    master = FLOAT32 if copies < FLOAT32 else 0
    if sharded:  # a layer and the next, then their gradients; the head from the loss to the end of the backward pass
        gathered = computed * (3 * sizes.num_layer_weights + 2 * sizes.num_head_weights)
    else:  # autocast keeps what it has cast; DDP sums gradients in buckets of its own
        gathered = weights * ((computed if computed < FLOAT32 else 0) + (FLOAT32 if training.strategy == "ddp" else 0))
    inputs = tokens * sizes.hidden_size * (computed if sharded else FLOAT32)
    activations = sizes.num_layers * inputs + sizes.saved
    return GpuMemory(
        parameters=weights * copies // shards,
        gradients=weights * copies // shards,
        optimizer=weights * (MOMENTS + master) // shards,
        gathered=gathered,
        activations=activations if training.gradient_checkpointing else sizes.num_layers * sizes.saved,
        mask=_mask(sizes, training, computed),
        logits=FLOAT32 * (tokens * sizes.hidden_size + sizes.num_head_weights) + computed * _tile(sizes, tokens),
    )


def _tile(sizes: ModelSizes, tokens: int) -> int:
    return min(tokens, TILE[0]) * min(sizes.num_head_weights // sizes.hidden_size, TILE[1])


def _mask(sizes: ModelSizes, training: Training, computed: int) -> int:
    square = training.per_device_batch_size * training.max_length**2
    if training.attn_implementation == "eager":
        return square * sizes.num_heads * (computed + FLOAT32)  # every head's weights, and their float32 softmax
    return square if training.attn_implementation == "sdpa" else 0


def model_sizes(config: PretrainedConfig, training: Training) -> ModelSizes:
    """Built and run on the meta device. Raises whatever the model's code does there, where it looks at contents."""
    dtype = getattr(torch, training.dtype)
    with _shapes_alone(), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=ATTENTION)
        layers = _layers(model)
        ids = torch.zeros(training.per_device_batch_size, training.max_length, dtype=torch.long)
        saved = _saved(model, layers, ids)
    text, head = config.get_text_config(), model.get_output_embeddings()
    return ModelSizes(
        num_weights=sum(weight.numel() for weight in model.parameters()),
        num_layer_weights=max(sum(weight.numel() for weight in layer.parameters()) for layer in layers),
        num_head_weights=head.weight.numel(),
        num_layers=len(layers),
        hidden_size=text.hidden_size,
        num_heads=text.num_attention_heads,
        saved=saved,
    )


def _layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """Those that FSDP2 shards one by one: of the classes that the model says are never split."""
    wrapped = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in wrapped]
    if not layers:
        raise ValueError(f"{type(model).__name__} names no layers that are never split; it cannot be sharded by layer")
    return layers


def _saved(model: PreTrainedModel, layers: list[torch.nn.Module], input_ids: torch.Tensor) -> int:
    """Bytes that the layer with the most keeps for its backward pass, its weights left out."""
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}
    most = 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    def begin(*_: object) -> None:
        kept.clear()

    def end(*_: object) -> None:
        nonlocal most
        most = max(most, sum(storage.nbytes() for storage in kept.values()))

    for layer in layers:
        layer.register_forward_pre_hook(begin)
        layer.register_forward_hook(end)
    model.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.base_model(input_ids=input_ids, use_cache=False)
    return most


class _Flash(torch.autograd.Function):
    """Attention as FlashAttention keeps it: its inputs, its output and a number per row; nothing is computed."""

    @staticmethod
    def forward(
        ctx: torch.autograd.function.FunctionCtx, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> torch.Tensor:
        output = torch.empty_like(query)
        ctx.save_for_backward(query, key, value, output, query.new_empty(query.shape[:-1], dtype=torch.float32))
        return output


def _attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    **_: object,
) -> tuple[torch.Tensor, None]:
    return _Flash.apply(query, key, value).transpose(1, 2).contiguous(), None


@contextmanager
def _shapes_alone() -> Iterator[None]:
    functions: Mapping[str, Callable[..., object]] = ALL_ATTENTION_FUNCTIONS
    ALL_ATTENTION_FUNCTIONS.register(ATTENTION, _attention)
    try:
        yield
    finally:
        assert ATTENTION in functions
        del ALL_ATTENTION_FUNCTIONS._global_mapping[ATTENTION]
