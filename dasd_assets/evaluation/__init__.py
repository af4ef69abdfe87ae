"""Every model on held-out questions (report §7): what is asked, the answers, and how good they are.

| module | what it is about | writes |
| --- | --- | --- |
| `questions` | benchmark files | `benchmark_questions` |
| `answers` | which answers are wanted of a model, and asking for those that are missing | rows of `evaluations` |
| `evaluations` | the answers of every model of the recipe | `evaluations` |
| `accuracy` | avg@k of what was answered | |
| `accuracy_plots` | accuracies as a table and as bars | |
"""

import dagster as dg

from dasd_assets.evaluation import evaluations, questions
from dasd_assets.evaluation.accuracy import ACCURACY, accuracy, checkpoint_accuracy, checkpoint_answers
from dasd_assets.evaluation.accuracy_plots import accuracy_bars, accuracy_table
from dasd_assets.evaluation.answers import Asked, Checkpoint, answered, ask_missing, judged_row, wanted_answers
from dasd_assets.evaluation.evaluations import chain
from dasd_assets.evaluation.questions import (
    EVALUATION,
    EVALUATION_VERSION,
    benchmark_rows,
    benchmark_version,
    question_rows,
)
from dasd_resources.recipe import Recipe

__all__ = [
    "ACCURACY",
    "EVALUATION",
    "EVALUATION_VERSION",
    "Asked",
    "Checkpoint",
    "accuracy",
    "accuracy_bars",
    "accuracy_table",
    "answered",
    "ask_missing",
    "benchmark_rows",
    "benchmark_version",
    "build",
    "chain",
    "checkpoint_accuracy",
    "checkpoint_answers",
    "judged_row",
    "question_rows",
    "wanted_answers",
]


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`benchmark_questions` and `evaluations`."""
    return [*questions.build(recipe), *evaluations.build(recipe)]
