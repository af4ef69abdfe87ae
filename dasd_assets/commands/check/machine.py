"""Checks of the machine: what training is started with, its kernels, and room on the disk."""

import math
import shutil
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

from dasd_assets.commands.check.outcome import CheckFailed, CheckUnknown
from dasd_assets.rules.checkpoints import trained_names
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.inference.gpus import visible_gpus
from dasd_resources.inference.model_files import WEIGHTS
from dasd_resources.recipe import Recipe
from dasd_resources.sft.trainer import executable
from dasd_resources.storage.lake import Lake

# ids, logprob and offset of a token take 7.7 bytes; the text some 2 more. The student has its own tokens.
BYTES_PER_TOKEN = 2 * 7.7 + 2 + 2  # teacher, student, text, sentence sums
STATE_COPIES = 4  # a private training checkpoint: weights, two moments, and the one before it being deleted
PACKAGES = {"flash_attention_2": "flash_attn", "flash_attention_3": "flash_attn_interface"}


def launcher(recipe: Recipe) -> str:
    """The command is here, and as many GPUs as it starts processes on this machine."""
    command = recipe.training.launcher or (sys.executable,)
    found = executable(command[0])
    if found is None:
        raise CheckFailed(f"training.launcher: no command {command[0]}; install it or correct the recipe")
    wanted, num_gpus = gpu_processes(command), len(visible_gpus())
    if wanted > max(num_gpus, 1):
        raise CheckFailed(
            f"training.launcher starts {wanted} processes here, each on a GPU of its own, and there are {num_gpus}; "
            "lower the number, or train where there are so many"
        )
    return found if wanted < 2 else f"{found}, {wanted} processes on {num_gpus} GPUs"


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


def attention(recipe: Recipe) -> str:
    name = recipe.training.attn_implementation
    needed = [PACKAGES[name]] if name in PACKAGES else []
    needed += ["kernels"] if recipe.training.use_kernels else []
    if missing := [package for package in needed if find_spec(package) is None]:
        raise CheckFailed(
            f"training.attn_implementation {name} and use_kernels {recipe.training.use_kernels} need "
            f"{', '.join(missing)}: pip install it, or set attn_implementation: sdpa and use_kernels: false"
        )
    return name


def disk(recipe: Recipe, home: Path, student: PromptedModel | None, num_prompts: int) -> str:
    """Rows of all responses, at most, or of as many tokens as there are by now; and the checkpoint of every stage."""
    if student is None:
        raise CheckUnknown("the student is not here, and so the size of its checkpoints is not known")
    num_responses = num_prompts * recipe.generation.num_candidates * len(recipe.generation.temperatures)
    mean, known = _mean_tokens(home)
    rows = num_responses * (mean or recipe.generation.max_tokens) * BYTES_PER_TOKEN
    weights = sum(file.stat().st_size for file in student.path.glob(WEIGHTS))
    checkpoints = weights * (len(trained_names(recipe)) + STATE_COPIES)
    there = next(folder for folder in (home, *home.parents) if folder.is_dir())
    needed, free = math.ceil(rows + checkpoints), shutil.disk_usage(there).free
    message = (
        f"{_size(needed)} needed ({_size(rows)} for {num_responses:,} responses of {known} "
        f"{mean or recipe.generation.max_tokens:,.0f} tokens, {_size(checkpoints)} for checkpoints), {_size(free)} free"
    )
    if needed > free:
        raise CheckFailed(f"{message}: make room, or set DASD_HOME to a larger disk")
    return message


def _mean_tokens(home: Path) -> tuple[float | None, str]:
    lake = Lake(home=str(home))
    if not lake.catalog.is_file():
        return None, "at most"
    mean = lake.read("SELECT avg(len(token_ids)) FROM responses").item()
    return (mean, "so far") if mean else (None, "at most")


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} TB"
