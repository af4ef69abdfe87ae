"""How large a model is, from its configuration alone: it is built on the meta device, which takes no memory.

Of a model that takes images, too, only what reads and writes text is counted.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from dasd_resources.errors import UserError
from dasd_resources.visible_text import excerpt_line

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0}
# Of a parameter in weights that are stored smaller; mxfp4 is 4 bits and a scale of 8 for every 32 of them.
QUANTISED = {"mxfp4": 4.25 / 8, "fp8": 1.0, "awq": 0.56, "gptq": 0.56}
REASON_CHARS = 120  # of an error that may list all models
WITHOUT_CACHE = {"linear_attention", "conv", "moe", "mlp"}  # kinds of layers that keep nothing of each token
NUM_EXPERTS = ("num_local_experts", "num_experts", "moe_num_experts")  # of a layer, by the names of several models
ACTIVE_EXPERTS = ("num_experts_per_tok", "top_k_experts", "moe_topk")
# Configurations of the models that the report names, so that its recipe can be planned before they are downloaded.
REPORTED: dict[str, dict[str, object]] = {
    "openai/gpt-oss-120b": {
        "model_type": "gpt_oss",
        "num_hidden_layers": 36,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "num_local_experts": 128,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "vocab_size": 201088,
        "quantization_config": {"quant_method": "mxfp4"},
    },
    "Qwen/Qwen3-4B-Instruct-2507": {
        "model_type": "qwen3",
        "num_hidden_layers": 36,
        "hidden_size": 2560,
        "intermediate_size": 9728,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": True,
    },
}


@dataclass(frozen=True)
class Attention:
    """Of one layer. window: the last tokens that a token attends to, 0 for all.

    kv_bytes: that one token leaves in the cache. flops: of one token for each token it attends to.
    """

    window: int
    kv_bytes: float
    flops: float

    def attended(self, context: float) -> float:
        """Tokens attended to at this context."""
        return min(context, float(self.window)) if self.window else context


@dataclass(frozen=True)
class ModelSize:
    """num_parameters, num_active: all, and those that a token passes through. num_bytes: of the weights.

    layers: how many there are of each kind of attention; layers of linear attention are none of them, whose cost does
    not grow with the context. active_expert_share: of a layer's experts, those that one token passes through; 1 without
    experts.
    """

    name: str
    num_parameters: float
    num_active: float
    num_bytes: float
    layers: Mapping[Attention, int]
    active_expert_share: float = 1.0

    def cache_bytes(self, context: float) -> float:
        """Of a sequence with this context, in all layers."""
        return sum(num * layer.kv_bytes * layer.attended(context) for layer, num in self.layers.items())

    def attention_flops(self, context: float) -> float:
        """Of one token at this context, in all layers."""
        return sum(num * layer.flops * layer.attended(context) for layer, num in self.layers.items())

    def weights_read(self, num_tokens: float) -> float:
        """Bytes of the weights that a step of so many tokens reads: of rarely chosen experts not all."""
        if self.active_expert_share >= 1:
            return self.num_bytes
        of_experts = self.num_parameters - self.num_active
        experts = min(of_experts / (1 - self.active_expert_share), self.num_parameters) / self.num_parameters
        touched = 1 - (1 - self.active_expert_share) ** max(num_tokens, 1.0)
        return float(self.num_bytes * (1 - experts + experts * touched))


ABSENT = ModelSize("absent", 0.0, 0.0, 0.0, {})  # a teacher whose responses are imported


def size_of(name: str, path: Path | None, dtype: str) -> ModelSize:
    """Of the model in a folder, or of one of REPORTED. Raises UserError for no configuration, or an unknown one."""
    if path is not None and (path / "config.json").is_file():
        document = json.loads((path / "config.json").read_text(encoding="utf-8"))
    elif name in REPORTED:
        document = REPORTED[name]
    else:
        raise UserError(
            f"{name}: its size is not known, as its config.json is not here; run `hf download {name} config.json`"
        )
    return _size(name, json.dumps(document, sort_keys=True), dtype)


@cache
def _size(name: str, document: str, dtype: str) -> ModelSize:
    import torch
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig, AutoModelForCausalLM

    raw: Mapping[str, object] = json.loads(document)
    settings = {key: value for key, value in raw.items() if key not in ("model_type", "quantization_config")}
    try:
        config = AutoConfig.for_model(raw.get("model_type"), **settings).get_text_config()
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        in_experts = sum(weights.numel() for key, weights in model.named_parameters() if ".experts." in key)
        share = _number(config, ACTIVE_EXPERTS) / _number(config, NUM_EXPERTS) if in_experts else 1.0
        layers = Counter(_attention(config))
    except (ValueError, LookupError, TypeError, AttributeError, RuntimeError, StrictDataclassError) as error:
        reason = excerpt_line(str(error), REASON_CHARS)
        raise UserError(
            f"{name}: its size is not known, as transformers makes no language model of its config.json, or none whose "
            f"layers are known ({reason}): correct the file, or upgrade transformers"
        ) from None
    num_parameters = sum(weights.numel() for weights in model.parameters())
    return ModelSize(
        name=name,
        num_parameters=num_parameters,
        num_active=num_parameters - in_experts * (1 - share),
        num_bytes=_num_bytes(raw, dtype, num_parameters, in_experts),
        layers=layers,
        active_expert_share=share,
    )


def _number(config: "PreTrainedConfig", names: Sequence[str]) -> int:
    """The first of these settings that is there. Raises ValueError for none."""
    for name in names:
        if isinstance(value := getattr(config, name, None), int) and value:
            return value
    raise ValueError(f"it has experts, but none of {', '.join(names)} is a number")


def _attention(config: "PreTrainedConfig") -> Iterator[Attention]:
    """Of every layer that has any; heads may differ from layer to layer."""
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * config.num_hidden_layers
    for layer, kind in zip(config.per_layer_config, kinds, strict=True):
        if kind in WITHOUT_CACHE:
            continue
        if "compressed" in kind:
            raise ValueError(f"how much of the context layers of {kind} keep is not known here")
        num_heads = layer.num_attention_heads
        head = getattr(layer, "head_dim", None) or layer.hidden_size // num_heads
        value = getattr(layer, "v_head_dim", None) or head
        cached = (getattr(layer, "num_key_value_heads", None) or num_heads) * (head + value)
        if latent := getattr(layer, "kv_lora_rank", None):  # of which all heads' keys and values are made (MLA)
            head, cached = layer.qk_nope_head_dim + layer.qk_rope_head_dim, latent + layer.qk_rope_head_dim
        window = (getattr(layer, "sliding_window", None) or 0) if "sliding" in kind else 0
        yield Attention(window, kv_bytes=2.0 * cached, flops=2.0 * num_heads * (head + value))


def _num_bytes(raw: Mapping[str, object], dtype: str, num_parameters: int, in_experts: int) -> float:
    """Of the weights as they are stored; of a quantised model of experts, the experts alone are smaller."""
    quantised = raw.get("quantization_config")
    method = str(quantised.get("quant_method")) if isinstance(quantised, Mapping) else ""
    smaller = in_experts or num_parameters
    return (num_parameters - smaller) * BYTES[dtype] + smaller * QUANTISED.get(method, BYTES[dtype])
