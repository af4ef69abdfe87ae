"""Checks of training: what it is started with, the packages it needs, and its share of a GPU's memory."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import yaml

from dasd_assets.commands.check.outcome import CheckFailed, CheckUnknown, CheckWarning
from dasd_assets.records.wording import size_of
from dasd_assets.rules.checkpoints import trained_names
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.inference.gpus import visible_gpus
from dasd_resources.packages import pip_install
from dasd_resources.recipe import Recipe, Training
from dasd_resources.sft.launching import accelerate_config
from dasd_resources.sft.trackers import FOLDER
from dasd_resources.sft.trackers import PACKAGES as TRACKERS
from dasd_resources.sft.trainer import executable

PACKAGES = {
    "flash_attention_2": ("flash_attn", pip_install("dasd[flash-attn]", "--no-build-isolation")),
    "flash_attention_3": ("flash_attn_interface", "build it from FlashAttention's sources (hopper/)"),
}


def launcher(recipe: Recipe) -> str:
    """The command is here, and as many GPUs as it starts processes on this machine."""
    command = recipe.training.launcher or (sys.executable,)
    found = executable(command[0])
    if found is None:
        raise CheckFailed(f"training.launcher: no command {command[0]}; install it or correct the recipe")
    if recipe.training.strategy is not None:
        return _strategy(recipe.training)
    wanted, num_gpus = gpu_processes(command), len(visible_gpus())
    if wanted > max(num_gpus, 1):
        raise CheckFailed(
            f"training.launcher starts {wanted} processes here, each on a GPU of its own, and there are {num_gpus}; "
            "lower the number, or train where there are so many"
        )
    return found if wanted < 2 else f"{found}, {wanted} processes on {num_gpus} GPUs"


def _strategy(training: Training) -> str:
    """What is generated of a strategy: processes, and accelerate's settings as its file has them."""
    assert training.gpus_per_node is not None
    if training.strategy == "zero3" and find_spec("deepspeed") is None:
        remedy = pip_install("dasd[deepspeed]")
        raise CheckFailed(f"training.strategy zero3 needs DeepSpeed: {remedy}, or strategy: fsdp2")
    wanted, num_gpus = training.gpus_per_node, len(visible_gpus())
    settings = yaml.safe_dump(accelerate_config(training), default_flow_style=True, sort_keys=False, width=10**6)
    num_bins = training.per_device_batch_size * training.nodes * wanted
    message = (
        f"{training.strategy}, {training.num_processes} processes: {training.nodes} node{'s'[: training.nodes > 1]} of "
        f"{wanted} GPUs; accelerate launch with {settings.strip()}"
    )
    if num_gpus < wanted and wanted > 1:
        raise CheckFailed(
            f"training.gpus_per_node is {wanted}, and there are {num_gpus} GPUs here; lower it, or train where there "
            f"are as many. {message}"
        )
    if training.packing and training.batch_counts == "samples" and training.global_batch_size <= 2 * num_bins:
        raise CheckWarning(
            f"{message}; a step takes at least {num_bins} bins, so training.global_batch_size "
            f"{training.global_batch_size} holds only where a bin has no more than "
            f"{training.global_batch_size / num_bins:.1f} samples: with 5 in each, a step sees {5 * num_bins}; take "
            "fewer GPUs, or a larger batch"
        )
    return message


def gpu_processes(command: Sequence[str]) -> int:
    """How many processes a launcher (accelerate, torchrun) starts on each machine, a GPU each; 1 where it says none.

    `accelerate launch` counts those of all machines, `torchrun` those of one. A word such as `gpu` or `auto` is 1: it
    takes what there is.
    """
    if "--cpu" in command:
        return 1
    of_all, machines = _option(command, "num_processes"), _option(command, "num_machines")
    if of_all is not None:
        return max(of_all // (machines or 1), 1)
    return _option(command, "nproc_per_node") or 1


def _option(command: Sequence[str], name: str) -> int | None:
    """The number that `--name 8`, `--name=8` or `--na-me 8` gives, if one does."""
    words = [word for part in command for word in part.split("=", 1)]
    for word, value in pairwise(words):
        if word.replace("-", "_") == f"__{name}" and value.isdecimal():
            return int(value)
    return None


def attention(recipe: Recipe, student: PromptedModel | None) -> str:
    """The packages that the recipe's attention and layer kernels are from, and the kernels themselves."""
    name = recipe.training.attn_implementation
    needed = [PACKAGES[name]] if name in PACKAGES else []
    needed += [("kernels", pip_install("dasd[kernels]"))] if recipe.training.use_kernels else []
    if missing := {package: remedy for package, remedy in needed if find_spec(package) is None}:
        raise CheckFailed(
            f"training.attn_implementation {name} and use_kernels {recipe.training.use_kernels} need "
            f"{', '.join(missing)}: {', '.join(missing.values())}, or set attn_implementation: sdpa and "
            "use_kernels: false"
        )
    if not recipe.training.use_kernels or student is None:
        return name
    return f"{name}, with layer kernels {kernels_here(student.path, bool(visible_gpus()))}"


def kernels_here(model: Path, has_gpu: bool, fetch: Callable[[Path], None] | None = None) -> str:
    """Whether a training, which asks no network, will find its kernels. fetch: brings them here, or raises."""
    if not has_gpu:
        return "that are fetched where there is a GPU: run dasd check there"
    try:
        (fetch or _fetch)(model)
    except Exception as error:  # of the hub's client, the package or its compiled code
        raise CheckFailed(
            f"training.use_kernels: they cannot be fetched ({type(error).__name__}: {error}), and the training asks no "
            "network: run dasd check once where the hub is reached, or set use_kernels: false"
        ) from None
    return "in the hub's cache"


def _fetch(model: Path) -> None:
    from dasd_resources.sft.layer_kernels import fetch_kernels  # loads torch, and most machines have no kernels

    fetch_kernels(model)


def trackers(recipe: Recipe, home: Path) -> str:
    """Each is installed, and where it will write."""
    names = recipe.training.report_to
    if missing := [name for name in names if not any(map(find_spec, TRACKERS[name]))]:
        raise CheckFailed(
            f"training.report_to: {', '.join(missing)} not installed: {pip_install(*missing)}, or report to "
            "fewer; the curves are kept with each checkpoint in any case"
        )
    return f"{', '.join(names)}, without a network, in {home / FOLDER}"


def memory(recipe: Recipe, student: PromptedModel | None) -> str:
    """What a training takes of one GPU, by the student's config, against what this machine's GPUs have."""
    if student is None:
        raise CheckUnknown("the student is not here, and so its size is not known")
    training = max(map(recipe.training.of, trained_names(recipe)), key=lambda own: own.per_device_batch_size)
    if training.strategy is None and training.launcher:
        raise CheckUnknown("how training.launcher shares the model among GPUs is not known; training.strategy would be")
    import torch
    from transformers import AutoConfig

    from dasd_resources.sft.memory import gpu_memory, model_sizes

    config = AutoConfig.from_pretrained(student.path, local_files_only=True)
    found = gpu_memory(model_sizes(config, training), training)
    parts = ", ".join(f"{name} {size_of(value)}" for name, value in asdict(found).items() if value)
    message = f"{size_of(found.total)} of each GPU, for {training.max_length:,} tokens: {parts}"
    if not visible_gpus():
        return f"{message}; there is no GPU here to compare it with"
    there = torch.cuda.get_device_properties(0).total_memory
    if found.total > there:
        raise CheckWarning(
            f"{message}; a GPU here has {size_of(there)}: take more GPUs (training.gpus_per_node, nodes), a lower "
            "training.max_length, or both"
        )
    return f"{message}; a GPU here has {size_of(there)}"
