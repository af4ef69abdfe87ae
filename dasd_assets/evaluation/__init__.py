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
from dasd_resources.recipe import Recipe


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """From `benchmark_questions` to `leaderboard`."""
    modules = (questions, evaluations, evaluation_metrics, leaderboard)
    return [asset for module in modules for asset in module.build(recipe)]
