"""The Recipe: every choice of a distillation, validated once, frozen, and hashed part by part.

A recipe is a YAML file. Its shape is checked here, at load; whether its models exist and fit is checked when a run
starts (`dasd_resources/models.py`, `dasd_resources/chat`).

| module | sections |
| --- | --- |
| `models`, `server` | `teacher`, `student` |
| `generation` | `generation`, `parity` |
| `selection` | `filters`, `selection` |
| `training` | `training`, `mixed_policy`, `evaluation` |
| `automation` | `maintenance`, `automation`, `checks`, `freshness`, `owners` |
| `recipe`, `load` | all of them together; from a file |
"""

from dasd_resources.recipe.automation import Automation, Checks, Freshness, Maintenance, Owner
from dasd_resources.recipe.generation import Generation, Parity, Rescoring, dataset_name
from dasd_resources.recipe.load import RECIPES, UniqueKeys, load_recipe
from dasd_resources.recipe.models import Model
from dasd_resources.recipe.parts import Option, Part, Positive, Probability, RecipeError, Seconds, Share
from dasd_resources.recipe.recipe import Recipe
from dasd_resources.recipe.selection import (
    SCORE_NAMES,
    Divergence,
    FilterName,
    Filters,
    Measure,
    Per,
    Repetition,
    ScoreName,
    Selection,
)
from dasd_resources.recipe.server import BASE_URL, Server
from dasd_resources.recipe.training import Benchmark, Evaluation, MixedPolicy, Training

__all__ = [
    "BASE_URL",
    "RECIPES",
    "SCORE_NAMES",
    "Automation",
    "Benchmark",
    "Checks",
    "Divergence",
    "Evaluation",
    "FilterName",
    "Filters",
    "Freshness",
    "Generation",
    "Maintenance",
    "Measure",
    "MixedPolicy",
    "Model",
    "Option",
    "Owner",
    "Parity",
    "Part",
    "Per",
    "Positive",
    "Probability",
    "Recipe",
    "RecipeError",
    "Repetition",
    "Rescoring",
    "ScoreName",
    "Seconds",
    "Selection",
    "Server",
    "Share",
    "Training",
    "UniqueKeys",
    "dataset_name",
    "load_recipe",
]
