"""The student's logprobs, computed again by another engine or another way: `engine_parity` of `student_logprobs`."""

import dagster as dg

from dasd_assets.parity.rescoring import passed_earlier, rescore
from dasd_assets.parity.sample import stored_logprobs, student_sample
from dasd_assets.records.declaration import ENGINE_POOL
from dasd_assets.records.partitions import PROMPT_BATCH, batch_of
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse


def build(recipe: Recipe) -> dg.AssetChecksDefinition:
    """The check of one forward pass over each response; its tokens must be in `student_tokens`."""

    @dg.asset_check(
        asset="student_logprobs",
        blocking=True,
        partitions_def=PROMPT_BATCH,
        pool=ENGINE_POOL,
        description="The student's logprobs agree, within the recipe's tolerance, with those of another computation.",
    )
    def engine_parity(
        context: dg.AssetCheckExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.AssetCheckResult:
        if earlier := passed_earlier(context, recipe, "student"):
            return earlier
        student = engines.find(recipe.student, "student.model")
        params = {"batch": batch_of(context), "student": student.fingerprint}
        stored, faults = [], []
        for row in student_sample(warehouse, recipe.parity, params):
            if row["token_ids"] is None:
                faults.append(f"response {row['response_id']}: its tokens are not in student_tokens: materialize that")
                continue
            ids, num_prompt = row["token_ids"], row["num_prompt_tokens"]
            stored.append(stored_logprobs(row, ids[:num_prompt], ids[num_prompt:], student))
        return rescore("student", recipe, engines, student, stored, faults)

    return engine_parity
