"""Every model on held-out questions (report §7): what is asked, what is answered, and how well (docs/evaluation.md).

| module | what it is about | writes |
| --- | --- | --- |
| `questions` | benchmark files | `benchmark_questions` |
| `answers` | which answers are wanted of a model, and asking for those that are missing | rows of `evaluations`, … |
| `evaluations` | the answers of every model of the recipe | `evaluations`, `evaluation_requests` |
| `outcomes` | what has become of each wanted answer: answered, failed, not asked yet | |
| `traits` | what an answer's text says besides: its final answer, whether it repeats itself | `answer_traits` |
| `metrics` | avg@k, pass@k, maj@k, rates and lengths, with standard errors clustered by question | |
| `evaluation_metrics` | these figures as rows | `evaluation_metrics` |
| `accuracy` | avg@k of a recipe's models | |
| `accuracy_plots` | accuracies as a table and as bars | |
| `leaderboard` | every model of the home by its accuracy | |
"""

import dagster as dg

from dasd_assets.evaluation import evaluation_metrics, evaluations, leaderboard, questions
from dasd_assets.evaluation.accuracy import accuracy, checkpoint_accuracy
from dasd_assets.evaluation.accuracy_plots import accuracy_bars, accuracy_table, shown_accuracy
from dasd_assets.evaluation.answers import Asked, Checkpoint, answered, ask_missing, judged_row, wanted_answers
from dasd_assets.evaluation.evaluation_metrics import current_metrics, store_metrics, stored_accuracy
from dasd_assets.evaluation.evaluations import chain
from dasd_assets.evaluation.leaderboard import standings, write_leaderboard
from dasd_assets.evaluation.metrics import METRICS
from dasd_assets.evaluation.outcomes import checkpoint_outcomes, outcomes
from dasd_assets.evaluation.questions import (
    EVALUATION,
    EVALUATION_VERSION,
    benchmark_rows,
    benchmark_version,
    question_rows,
)
from dasd_resources.recipe import Recipe

__all__ = [
    "EVALUATION",
    "EVALUATION_VERSION",
    "METRICS",
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
    "checkpoint_outcomes",
    "current_metrics",
    "judged_row",
    "outcomes",
    "question_rows",
    "shown_accuracy",
    "standings",
    "store_metrics",
    "stored_accuracy",
    "wanted_answers",
    "write_leaderboard",
]


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """From `benchmark_questions` to `leaderboard`."""
    modules = (questions, evaluations, evaluation_metrics, leaderboard)
    return [asset for module in modules for asset in module.build(recipe)]
