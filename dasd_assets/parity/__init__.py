"""The parity checks: do the stored logprobs agree with those of another computation? They block every batch that fails.

Everything after generation rests on one logprob per token from each model. A sample of each batch is scored again in
another way (the teacher's own tokens by prefill, the student's by another engine) and compared with `responses` and
`student_logprobs`. Beyond the recipe's tolerance the check fails, and nothing downstream is made from the batch.

| module | what it is about |
| --- | --- |
| `prefill_parity` | the check of every generation asset |
| `engine_parity` | the check of `student_logprobs` |
| `sample` | which responses of a batch are compared, and their stored logprobs |
| `rescoring` | the engine that scores them again, and whether that is needed |
| `comparison` | differences token by token, and limits: pure functions |
| `outcome` | what a check says of a comparison |
"""

import warnings

import dagster as dg

from dasd_assets.parity import engine_parity, prefill_parity
from dasd_resources.recipe import Recipe


def build(recipe: Recipe) -> list[dg.AssetChecksDefinition]:
    """`prefill_parity` of every generation asset and `engine_parity` of `student_logprobs`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks; the pinned Dagster has them
        generations = [prefill_parity.build(recipe, name, temperature) for name, temperature in recipe.datasets.items()]
        return [*generations, engine_parity.build(recipe)]
