"""The layer kernels of a training (`training.use_kernels`), fetched from the hub before the training goes offline."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.integrations.hub_kernels import register_kernel_mapping_transformers


def fetch_kernels(model: Path) -> None:
    """Bring into the hub's cache what Transformers will load for a model's layers on this machine's GPU.

    The model has no weights here: its layers only say which kernels they take. Raises whatever the hub's client or the
    package `kernels` raises, such as where there is no network and no copy.
    """
    from kernels import Mode, kernelize

    config = AutoConfig.from_pretrained(model, local_files_only=True)
    with torch.device("meta"):
        layers = AutoModelForCausalLM.from_config(config).train()
    register_kernel_mapping_transformers()
    kernelize(layers, mode=Mode.TRAINING, device=torch.accelerator.current_accelerator())
