"""Mixed-policy distillation (report §5): the student begins, and where it runs on too long the teacher takes over.

| module | reads | writes |
| --- | --- | --- |
| `distilled_student` | the last off-policy checkpoint | nothing: it is the model that rolls out |
| `rollouts` | the latest stage's dataset and checkpoint | `student_rollouts`, capped at 1.5 × the reference's length |
| `cut_off_shares` | whether rollouts were cut off | nothing: it compares the shorter half with the longer |
| `cuts` | rollouts that hit the cap | `prefix_cuts`, at a random token beyond half |
| `continuations` | the prefix texts | `teacher_continuations` |
| `continuation_tokens` | the whole texts | `continuation_tokens`, in the student's tokens |
| `continuation_verdicts` | the whole texts and their tokens | `continuation_verdicts` |
| `mixture` | accepted continuations, off-policy rows | `sft_examples` of dataset `mixed` |
"""

import dagster as dg

from dasd_assets.mixed_policy import continuation_tokens, continuation_verdicts, continuations, cuts, mixture, rollouts
from dasd_resources.recipe import Recipe


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """From `student_rollouts` to `mixed_policy_dataset`."""
    modules = (rollouts, cuts, continuations, continuation_tokens, continuation_verdicts, mixture)
    return [asset for module in modules for asset in module.build(recipe)]
