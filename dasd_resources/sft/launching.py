"""How the processes of a training are started: `training.strategy`, nodes and GPUs -> accelerate's configuration.

One process a GPU, on every node. Each strategy gives the losses of one process; they differ in what a process holds:
`ddp` all weights, gradients and moments, `fsdp2` (PyTorch) and `zero3` (DeepSpeed) a share, gathered layer by layer.
Without a strategy the recipe's own `launcher` starts the training, or nothing does and it is one process.
"""

import os
import socket
import sys
from pathlib import Path

import yaml

from dasd_resources.inference.gpus import VISIBLE
from dasd_resources.recipe import Training

CONFIG = "accelerate.yaml"  # in a training's partial folder
PORT = 29500  # where the processes of several nodes meet: PyTorch's own default
Settings = dict[str, object]

# A layer is gathered when it is computed, and the next while it is; state is saved in as many parts as there are
# processes. Only the first process of a node reads the weights from disk.
FSDP2: Settings = {
    "fsdp_version": 2,
    "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "fsdp_reshard_after_forward": True,
    "fsdp_state_dict_type": "SHARDED_STATE_DICT",
    "fsdp_cpu_ram_efficient_loading": True,
    "fsdp_activation_checkpointing": False,  # training.gradient_checkpointing is Transformers' own
    "fsdp_offload_params": False,
}
ZERO3: Settings = {
    "zero_stage": 3,
    "zero3_init_flag": True,
    "zero3_save_16bit_model": True,  # or the weights could not be gathered to be published
    "offload_optimizer_device": "none",
    "offload_param_device": "none",
    "deepspeed_multinode_launcher": "standard",
}


def accelerate_config(training: Training) -> Settings:
    """What `accelerate launch --config_file` reads, for a training with a strategy."""
    assert training.strategy is not None and training.gpus_per_node is not None
    several = training.nodes > 1
    by_strategy: dict[str, Settings] = {
        "ddp": {"distributed_type": "MULTI_GPU"},
        "fsdp2": {"distributed_type": "FSDP", "fsdp_config": FSDP2},
        "zero3": {"distributed_type": "DEEPSPEED", "deepspeed_config": ZERO3},
    }
    return {
        "compute_environment": "LOCAL_MACHINE",
        **by_strategy[training.strategy],
        "mixed_precision": "bf16" if training.dtype == "bfloat16" else "no",
        "num_machines": training.nodes,
        "num_processes": training.nodes * training.gpus_per_node,
        "machine_rank": 0,  # several nodes agree on their numbers when they meet
        "main_process_ip": socket.gethostname() if several else None,
        "main_process_port": PORT if several else 0,  # 0: any that is free
        "rdzv_backend": "c10d" if several else "static",
        "same_network": not several,
        "main_training_function": "main",
    }


def config_text(training: Training) -> str:
    """The same as the file has it."""
    return yaml.safe_dump(accelerate_config(training), sort_keys=False)


def launch_command(training: Training, config: Path) -> list[str]:
    """What is put before the training's own command. config: where `config_text` is."""
    if training.strategy is None:
        return list(training.launcher or [sys.executable])
    # As `accelerate launch`, which imports all of accelerate's commands first: 5.3 CPU seconds instead of 2.2.
    return [*training.launcher, "accelerate-launch", "--config_file", str(config)]


def gpus_seen(training: Training) -> dict[str, str]:
    """What the environment of a training adds: one process that nothing launches sees the first GPU alone.

    Of several, TRL spreads the model over all of them, or refuses.
    """
    if training.strategy or training.launcher:
        return {}
    return {VISIBLE: os.environ.get(VISIBLE, "0").partition(",")[0]}
