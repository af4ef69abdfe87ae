"""Which GPUs each replica of a model gets: a replica's process sees its own alone, by `CUDA_VISIBLE_DEVICES`.

Where there is no GPU at all, replicas are processes that share the cores.
"""

import os

from dasd_resources.recipe import RecipeError

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as `CUDA_VISIBLE_DEVICES` names them; none where there is none."""
    import torch  # takes seconds, and most recipes have no replicas

    names = os.environ.get(VISIBLE, "").split(",") if VISIBLE in os.environ else map(str, range(64))
    return [name for name, _ in zip(names, range(torch.cuda.device_count()), strict=False)]


def divide(gpus: list[str], replicas: int, each: int) -> list[list[str]]:
    """The GPUs of every replica, `each` of them; of none, none. Raises RecipeError if there are some, but too few."""
    if gpus and replicas * each > len(gpus):
        raise RecipeError(
            f"replicas: {replicas}, each on {each} GPU{'s' if each > 1 else ''}, exceed the {len(gpus)} that can be "
            "used here; lower replicas" + (" or the engine's parallel size" if each > 1 else "")
        )
    return [gpus[index * each : (index + 1) * each] for index in range(replicas)]
