"""A GPU's share of a training, against numbers worked out by hand from what is known of the models."""

import pytest
import torch
from transformers import PretrainedConfig, Qwen3Config, Qwen3MoeConfig

from dasd_resources.recipe import Training
from dasd_resources.sft.memory import ModelSizes, gpu_memory, model_sizes

QWEN3_4B = {
    "vocab_size": 151_936,
    "hidden_size": 2560,
    "intermediate_size": 9728,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
QWEN3_30B_A3B = {
    **QWEN3_4B,
    "hidden_size": 2048,
    "num_hidden_layers": 48,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 768,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}
T = 65_536
REPORT = Training(strategy="fsdp2", gpus_per_node=8)


def kept_of_attention(hidden: int, queries: int, keys: int) -> int:
    """Bytes a token: in bfloat16 the inputs and outputs of projections, in float32 those of norms, numbers per head."""
    numbers = 2 * queries // 128 + keys // 128 + 2
    return 2 * (4 * hidden + 3 * queries + 3 * keys + 2 * 128) + 4 * (2 * hidden + queries + keys) + 4 * numbers


MLP = 2 * 4 * 9728  # gate, its activation, up, their product
EXPERTS = 2 * 8 * (2 * 2048 + 4 * 768)  # the same of each of 8 experts, with what goes in and comes out
ROUTING = 4 * 128 + 8 * (4 * 8 + 4 + 2) + 4  # all experts' probabilities, and numbers per chosen one


@pytest.mark.parametrize(
    ("config", "weights", "layer", "saved_per_token"),
    [
        (Qwen3Config(**QWEN3_4B), 4_022_468_096, 100_930_816, kept_of_attention(2560, 4096, 1024) + MLP),
        (
            Qwen3MoeConfig(**QWEN3_30B_A3B),
            30_532_122_624,
            623_120_640,
            kept_of_attention(2048, 4096, 512) + EXPERTS + ROUTING,
        ),
    ],
    ids=["4b", "30b-a3b"],
)
def test_sizes_of_known_models(config: PretrainedConfig, weights: int, layer: int, saved_per_token: int) -> None:
    sizes = model_sizes(config, REPORT)
    assert (sizes.num_weights, sizes.num_layer_weights) == (weights, layer)
    assert sizes.saved == pytest.approx(saved_per_token * T, rel=1e-5)
    assert sizes.num_layers == config.num_hidden_layers
    assert sizes.num_head_weights == 151_936 * config.hidden_size


SIZES = ModelSizes(4_000, 100, 400, num_layers=36, hidden_size=10, num_heads=2, saved=7_000)
SMALL = Training(max_length=100, dtype="bfloat16", global_batch_size=64)


@pytest.mark.parametrize(
    ("changes", "parameters", "gradients", "optimizer", "gathered", "activations"),
    [
        ({}, 16_000, 16_000, 32_000, 8_000, 36 * 4_000 + 7_000),
        ({"strategy": "ddp", "gpus_per_node": 8}, 16_000, 16_000, 32_000, 24_000, 36 * 4_000 + 7_000),
        ({"strategy": "fsdp2", "gpus_per_node": 8}, 2_000, 2_000, 4_000, 2_200, 36 * 2_000 + 7_000),
        ({"strategy": "zero3", "gpus_per_node": 8}, 1_000, 1_000, 6_000, 2_200, 36 * 2_000 + 7_000),
        ({"dtype": "float32", "gradient_checkpointing": False}, 16_000, 16_000, 32_000, 0, 36 * 7_000),
    ],
)
def test_the_sum_of_each_strategy(
    changes: dict[str, object], parameters: int, gradients: int, optimizer: int, gathered: int, activations: int
) -> None:
    found = gpu_memory(SIZES, SMALL.model_copy(update=changes))
    assert (found.parameters, found.gradients, found.optimizer) == (parameters, gradients, optimizer)
    assert (found.gathered, found.activations, found.mask) == (gathered, activations, 0)
    computed = 4 if changes.get("dtype") == "float32" else 2
    assert found.logits == 4 * (100 * 10 + 400) + computed * 100 * 40
    assert found.total == sum((parameters, gradients, optimizer, gathered, activations, found.logits))


def test_attention_that_makes_a_mask_pays_for_it() -> None:
    assert gpu_memory(SIZES, SMALL.model_copy(update={"attn_implementation": "sdpa"})).mask == 100 * 100
    assert gpu_memory(SIZES, SMALL.model_copy(update={"attn_implementation": "eager"})).mask == 100 * 100 * 2 * 6


def test_what_a_layer_is_said_to_keep_is_what_it_keeps_on_a_real_device() -> None:
    """The same small layer on the CPU, with real tensors, but for the attention's own."""
    changes = {"num_hidden_layers": 1, "vocab_size": 50, "hidden_size": 64, "intermediate_size": 96, "head_dim": 32}
    config = Qwen3Config(**{**QWEN3_4B, **changes, "num_attention_heads": 2, "num_key_value_heads": 1})
    training = Training(max_length=128, dtype="float32")
    estimated = model_sizes(config, training).saved
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa").train()
    weights = {weight.untyped_storage()._cdata for weight in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if (storage := tensor.untyped_storage())._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    layer = model.model.layers[0]
    layer.register_forward_pre_hook(lambda *_: kept.clear())
    measured: list[int] = []
    layer.register_forward_hook(lambda *_: measured.append(sum(one.nbytes() for one in kept.values())))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=torch.arange(128)[None] % 50, use_cache=False)
    assert measured[0] == pytest.approx(estimated, rel=0.1)
