"""Experiments: arms of a declared grid, each trained from several seeds and compared (the report's tables).

| module | asset, of each experiment | table |
| --- | --- | --- |
| `datasets` | | `selected_responses`, `sft_examples`, … under policies of their own |
| `checkpoints` | `experiment_checkpoints_…`, a partition per arm and seed | `checkpoints`, `experiment_cells` |
| `evaluations` | `experiment_evaluations_…`, the same | `evaluations`, `evaluation_metrics` |
| `comparison` | `experiment_report_…` | `experiment_comparisons` |
| `cells` | | what an arm has under a seed: partitions, rows, answers |
| `result_table` | | the table of a report, as rows and as Markdown |
| `claims` | | what the experiment claims, and what its comparisons say of it |
| `report_tables` | | the other tables of a report: from the four below, as rows |
| `by_difficulty` | | accuracies and differences by domain and by level of difficulty |
| `dataset_traits` | | what the arms were trained on: length, correctness, scores |
| `dataset_differences` | | how these differ between arms that are compared, with intervals |
| `ways` | | in which ways the arms' responses and answers solve a question |
| `sentences_by_work` | | teacher sentences where the work is sound and where a step of it is wrong |
| `cut_off_rollouts` | | how many rollouts were cut off, by length |
| `figures`, `figure_data` | | its figures, and what they are drawn from |
| `pages`, `experiment_page`, `wording` | | the results of all as Markdown files with figures |
| `side_by_side` | | trainings in parallel, each after its parent |

They stand beside the pipeline: nothing of it depends on them, no job and no sensor makes them, and what they share with
it (responses, scores, datasets, checkpoints that are the same) is made once. `dasd experiment` runs one; so does the
web UI, any cell by itself.
"""

from collections.abc import Sequence

import dagster as dg

from dasd_assets.experiments import checkpoints, comparison, evaluations
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment


def assets(recipe: Recipe, experiments: Sequence[Experiment]) -> list[dg.AssetsDefinition]:
    """Three assets of each experiment of a recipe."""
    stages = (checkpoints, evaluations, comparison)
    return [stage.build(recipe, experiment) for experiment in experiments for stage in stages]
