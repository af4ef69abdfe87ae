"""Which recipes have an engine that holds its GPU until its process ends (`holds_gpu_until_exit`), and loads for long.

Two things follow: where steps are processes of their own (jobs.py), and where batches are made in rounds (rounds.py).
"""

from collections.abc import Iterator

from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.recipe import Model, Recipe


def owns_gpu_engine(recipe: Recipe) -> bool:
    """Whether a process of ours has one, for a model or its parity check. On Ray an actor has it, which is ended."""
    return any(model.ray is None for model in _models(recipe))


def makes_rounds(recipe: Recipe) -> bool:
    """Whether a model or its parity check has one, here or on Ray, and it is kept loaded for the next batch."""
    return recipe.automation.keep_loaded_seconds > 0 and any(True for _ in _models(recipe))


def _models(recipe: Recipe) -> Iterator[Model]:
    """The models that run, or are scored again, in such an engine."""
    for model, parity in ((recipe.teacher, recipe.parity.teacher), (recipe.student, recipe.parity.student)):
        if any(ENGINES[name].holds_gpu_until_exit for name in (model.engine, parity.engine_for(model.engine))):
            yield model
