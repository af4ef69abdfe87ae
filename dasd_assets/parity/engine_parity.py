"""The student's logprobs, computed again by another engine or another way: `engine_parity` of `student_logprobs`."""

import dagster as dg

from dasd_assets.parity.rescoring import passed_earlier, rescore
from dasd_assets.parity.sample import stored_logprobs, student_sample
from dasd_assets.records.declaration import ENGINE_POOL
from dasd_assets.records.partitions import PROMPT_BATCH, batch_of
from dasd_assets.rules.candidates import Params, responses_to_score
from dasd_assets.student_logprobs import scoring_params
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
        if not stored and not faults:
            teacher = engines.fingerprint(recipe.teacher, "teacher.model")
            wanted = scoring_params(recipe, teacher, student.fingerprint, batch_of(context))
            faults += _none_scored(warehouse, wanted)
        return rescore("student", recipe, engines, student, stored, faults)

    return engine_parity


def _none_scored(warehouse: Warehouse, params: Params) -> list[str]:
    """The fault of a batch without any score, unless the student was asked for all of them, and each request failed."""
    num_wanted = len(responses_to_score(warehouse, params))
    query = "SELECT count(*) FROM failed_requests WHERE asset = 'student_logprobs' AND batch = $batch"
    if num_wanted <= warehouse.read(query, {"batch": params["batch"]}).item():
        return []
    return [f"none of {num_wanted} responses has a score of the student: materialize student_logprobs"]
