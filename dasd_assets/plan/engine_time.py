"""Seconds of decoding, prefill and training on the devices of a machine that the recipe uses: peaks, utilisation.

Decoding: a step of the sequences that fit reads the weights once and each sequence's cache; it takes the longer of
reading and computing (the roofline of Williams et al., 2009). Devices that share one copy wait for one another: each
doubling of their number keeps `parallel_efficiency` of the rate.
"""

import math
from dataclasses import replace

from dasd_assets.plan.figures import Values
from dasd_assets.plan.hardware import Machine
from dasd_assets.plan.model_size import ModelSize
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.recipe import Model, Recipe, Training

MEMORY_SHARE = 0.9  # of a device's memory that an engine takes, vLLM's default
MAX_SEQUENCES = 256  # at a time, vLLM's default, where engine_options.max_num_seqs says nothing else
RECOMPUTED = 1  # forward passes more, with gradient checkpointing, beside 1 forward and 2 backward


def used_by(spec: Model, machine: Machine) -> Machine:
    """The part of the machine that the copies of a model are on; of a server's devices, or of cores, all."""
    if machine.is_cpu or ENGINES[spec.engine].served:
        return machine
    return replace(machine, num=min(spec.replicas * spec.num_gpus_each, machine.num))


def used_by_training(settings: Training, machine: Machine) -> Machine:
    """The part that the processes of a training are on; how many a launcher starts is not ours to know: all."""
    if machine.is_cpu or (settings.launcher and settings.strategy is None):
        return machine
    return replace(machine, num=min(settings.num_processes or 1, machine.num))


def idle(recipe: Recipe, machine: Machine) -> dict[str, int]:
    """Key of the recipe that says how many devices are used -> those that it leaves idle, if any."""
    training, left = recipe.training, dict[str, int]()
    for role, spec in (("teacher", recipe.teacher), ("student", recipe.student)):
        num = machine.num - used_by(spec, machine).num
        if not ENGINES[spec.engine].absent:
            left[f"{role}.{'replicas' if num >= spec.num_gpus_each else 'engine_options'}"] = num
    key = "training.gpus_per_node" if training.strategy else "training.strategy"
    left[key] = machine.num - used_by_training(training, machine).num
    return {key: num for key, num in left.items() if num}


def group_size(spec: Model, machine: Machine) -> int:
    """Devices that hold one copy of the model; a server's are not ours to know: all."""
    if machine.is_cpu:
        return 1
    return machine.num if ENGINES[spec.engine].served else min(spec.num_gpus_each, machine.num)


def fits(size: ModelSize, machine: Machine, each: int) -> bool:
    """Whether a copy and one sequence of 8,192 tokens have room on so many devices."""
    room = MEMORY_SHARE * machine.device.memory * each - size.num_bytes
    return room > size.cache_bytes(8192)


def decoding(
    num_tokens: float, mean: float, prompt: float, size: ModelSize, spec: Model, machine: Machine, values: Values
) -> float:
    """num_tokens: written in all, in responses of `mean` tokens to prompts of `prompt`."""
    if not num_tokens:
        return 0.0
    machine = used_by(spec, machine)
    device, each = machine.device, group_size(spec, machine)
    context = prompt + mean / 2  # of a sequence that is half written
    cache = size.cache_bytes(context)
    if machine.is_cpu:
        sequences = 32.0
    else:
        room = max(MEMORY_SHARE * device.memory * each - size.num_bytes, 0.0)
        sequences = max(min(float(_most_at_once(spec)), room / max(cache, 1.0)), 1.0)
    copies = 1.0 if machine.is_cpu else machine.num / each  # they share the responses
    sequences = min(sequences, max(num_tokens / mean / copies, 1.0))
    reading = (size.weights_read(sequences) + sequences * cache) / (each * device.bytes_per_second)
    computing = sequences * _forward(size, context) / (each * device.flops)
    utilisation = values["utilisation.decode"] * math.pow(values["parallel_efficiency"], math.log2(each))
    per_second = sequences * utilisation / max(reading, computing) * (machine.num / each)
    return num_tokens / per_second


def prefill(
    num_tokens: float, mean: float, size: ModelSize, spec: Model, machine: Machine, utilisation: float
) -> float:
    """num_tokens: read in all, in sequences of `mean` tokens."""
    return _computing(num_tokens, mean, size, used_by(spec, machine), utilisation)


def training(
    num_tokens: float, mean: float, size: ModelSize, settings: Training, machine: Machine, utilisation: float
) -> float:
    """num_tokens: of all epochs. Three forward passes' work, and one more where activations are computed again."""
    passes = 3 + (RECOMPUTED if settings.gradient_checkpointing else 0)
    return passes * _computing(num_tokens, mean, size, used_by_training(settings, machine), utilisation)


def _computing(num_tokens: float, mean: float, size: ModelSize, machine: Machine, utilisation: float) -> float:
    """Of forward passes on the whole machine; a token attends to half of its sequence on average."""
    return num_tokens * _forward(size, mean / 2) / (machine.num * machine.device.flops * utilisation)


def _forward(size: ModelSize, context: float) -> float:
    """Operations of one token at this context: two a parameter, and its attention."""
    return 2 * size.num_active + size.attention_flops(context)


def _most_at_once(spec: Model) -> int:
    said = spec.engine_options.get("max_num_seqs")
    return said if isinstance(said, int) and said > 0 else MAX_SEQUENCES
