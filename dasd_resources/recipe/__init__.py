"""The recipe: every setting of a distillation, validated once, frozen, and hashed part by part.

A recipe is a YAML file. Its shape is checked here, at load; whether its models exist and fit is checked when a run
starts (`dasd_resources/inference/model_files.py`, `dasd_resources/chat`).

| module | sections |
| --- | --- |
| `model_settings`, `server_settings`, `ray_settings` | `teacher`, `student` |
| `generation_settings` | `generation`, `parity` |
| `import_settings` | `imports` |
| `selection_settings` | `filters`, `selection` |
| `training_settings` | `training`, `mixed_policy` |
| `evaluation_settings` | `evaluation` |
| `provenance_settings` | `provenance` |
| `heldout_settings` | `heldout` |
| `verification_settings` | `verification` |
| `overlap_settings` | `decontamination`, `near_duplicates` |
| `landing_settings`, `ready_columns` | `landing` |
| `export_settings` | `export` |
| `service_settings` | `maintenance`, `automation`, `checks`, `freshness`, `owners` |
| `parts` | what sections share: their base class, bounded numbers |
| `keys`, `faults` | which keys there are; what is wrong with a document, and what a mistyped key was meant to be |
| `document` | a recipe as a YAML file, whole or in short; the JSON schema of recipes |
| `recipe`, `load` | all of them together; from a file |
| `experiment`, `experiment_files` | arms that change a recipe in part, to compare them; from files |
| `claim` | what an experiment claims of its arms, and which comparisons decide it |
| `experiment_recipes` | the recipes that an experiment makes of the one that it is of, or is carried over to |
"""

from dasd_resources.recipe.evaluation_settings import Benchmark, Evaluation, Task
from dasd_resources.recipe.export_settings import Export
from dasd_resources.recipe.generation_settings import Parity, Rescoring, dataset_name
from dasd_resources.recipe.heldout_settings import HeldOut
from dasd_resources.recipe.landing_settings import Columns, Landing, columns_for
from dasd_resources.recipe.load import RECIPES, load_model, load_recipe
from dasd_resources.recipe.model_settings import Model, Thinking
from dasd_resources.recipe.overlap_settings import NearDuplicates
from dasd_resources.recipe.parts import Option, RecipeError
from dasd_resources.recipe.ray_settings import LOCAL, RayCluster
from dasd_resources.recipe.recipe import Recipe
from dasd_resources.recipe.selection_settings import Divergence, Filters, Measure, Per, Repetition
from dasd_resources.recipe.server_settings import Server
from dasd_resources.recipe.service_settings import Automation, Checks, Maintenance
from dasd_resources.recipe.training_settings import MixedPolicy, Training

__all__ = [
    "LOCAL",
    "RECIPES",
    "Automation",
    "Benchmark",
    "Checks",
    "Columns",
    "Divergence",
    "Evaluation",
    "Export",
    "Filters",
    "HeldOut",
    "Landing",
    "Maintenance",
    "Measure",
    "MixedPolicy",
    "Model",
    "NearDuplicates",
    "Option",
    "Parity",
    "Per",
    "RayCluster",
    "Recipe",
    "RecipeError",
    "Repetition",
    "Rescoring",
    "Server",
    "Task",
    "Thinking",
    "Training",
    "columns_for",
    "dataset_name",
    "load_model",
    "load_recipe",
]
