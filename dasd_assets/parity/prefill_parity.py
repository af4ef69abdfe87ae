"""The teacher's own tokens, scored again by prefill: `prefill_parity` of a generation asset."""

import dagster as dg

from dasd_assets.parity.rescoring import passed_earlier, rescore
from dasd_assets.parity.sample import stored_logprobs, teacher_sample
from dasd_assets.records.declaration import ENGINE_POOL
from dasd_assets.records.partitions import PROMPT_BATCH, batch_of
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.candidates import candidate_params
from dasd_resources.chat import UnsupportedQuestion
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse

NOT_COMPARED = (
    "not compared: the logprobs are as they landed, and teacher {}, which could compute them again, is not here; "
    "that their tokens say the texts was checked"
)


def build(recipe: Recipe, dataset: str, temperature: float) -> dg.AssetChecksDefinition:
    """The check of the candidates at one temperature; their tokens must read as the stored text, too."""

    @dg.asset_check(
        asset=generation_asset(dataset),
        blocking=True,
        partitions_def=PROMPT_BATCH,
        pool=ENGINE_POOL,
        description="The teacher's sampling logprobs agree, within the recipe's tolerance, with those of a prefill.",
    )
    def prefill_parity(
        context: dg.AssetCheckExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.AssetCheckResult:
        if earlier := passed_earlier(context, recipe, "teacher"):
            return earlier
        if ENGINES[recipe.teacher.engine].absent:
            return dg.AssetCheckResult(passed=True, description=NOT_COMPARED.format(recipe.teacher.stands_for))
        teacher = engines.find(recipe.teacher, "teacher.model")
        read = teacher.chat.read_response if recipe.imports is None else teacher.chat.read_landed
        params = candidate_params(recipe, teacher.fingerprint)
        params |= {"batch": batch_of(context), "temperature": temperature}
        stored, faults = [], []
        for row in teacher_sample(warehouse, recipe.parity, params):
            aligned = read(row["token_ids"])
            if (aligned.text, aligned.offsets) != (row["text"], row["offsets"]):
                faults.append(
                    f"response {row['response_id']}: its tokens no longer read as its stored text and offsets"
                )
            try:
                prompt_ids = teacher.chat.prompt_ids(row["question"], row["system_prompt"])
            except UnsupportedQuestion as error:  # its logprobs are as they landed
                context.log.warning(f"response {row['response_id']} is not compared: {error}")
                continue
            stored.append(stored_logprobs(row, prompt_ids, row["token_ids"], teacher))
        return rescore("teacher", recipe, engines, teacher, stored, faults)

    return prefill_parity
