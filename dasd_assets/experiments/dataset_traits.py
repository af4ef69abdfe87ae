"""What an experiment's arms were trained on: how long the examples are, how many are right, how much is the teacher's.

Policies differ in all of these at once; an arm that wins may win by any of them.
"""

import polars as pl

from dasd_assets.records.current_checkpoint import current_checkpoint
from dasd_assets.rules.filters import CORRECTNESS, filter_version
from dasd_assets.rules.scores import threshold_version
from dasd_assets.sft_datasets import NO_LOSS
from dasd_resources.recipe import Recipe
from dasd_resources.storage.tables import measured
from dasd_resources.storage.warehouse import Warehouse

_SCORES = {"teacher_share": "teacher_share", "mean_difference": "mean_probability_token"}
_OF_EXAMPLES = {
    "examples": "count(*)",
    "continuations": "count(e.continuation_id)",
    "tokens": "avg(len(e.input_ids))",
    "with_loss": f"""sum(len(list_filter(e.labels, lambda label: label <> {NO_LOSS})))::DOUBLE
        / sum(len(e.input_ids))""",
    "sentences": "avg(teacher_share.num_sentences)",
    "right": "avg(v.passed::INT)",
    **{name: f"avg({name}.score)" for name in _SCORES},
    "probability": "avg(exp(r.mean_logprob))",
}
TRAITS = tuple(_OF_EXAMPLES)


def dataset_traits(warehouse: Warehouse, recipe: Recipe, stages: pl.DataFrame) -> pl.DataFrame:
    """(arm, stage, dataset, TRAITS) of what each stage is trained on, means over seeds.

    examples, continuations: how many, and how many of them go on from what the student wrote. tokens: of an example,
    for the student. with_loss: share of all tokens that carry loss. The others are means over the teacher's own
    responses. right: the share whose answer passed verification. teacher_share, mean_difference: scores by which
    responses are ranked. probability: geometric mean over a response's tokens, under the teacher. None: no response
    has it. stages: of `cells.stage_rows`.
    """
    used = stages.filter(pl.col("stage") > 0).select("arm", "seed", "stage", "dataset", "policy")
    traits = _traits(warehouse, recipe, used["policy"].unique().to_list())
    of_stages = used.join(traits, on=["dataset", "policy"], maintain_order="left")
    return of_stages.group_by("arm", "stage", "dataset", maintain_order=True).agg(pl.col(TRAITS).mean())


def _traits(warehouse: Warehouse, recipe: Recipe, policies: list[str]) -> pl.DataFrame:
    """(dataset, policy, TRAITS) of all that the recipe's arms by these policies are trained on."""
    student = str(current_checkpoint(warehouse, recipe, "student")["checkpoint_id"])
    scores = "".join(
        f"""LEFT JOIN (SELECT response_id, score, num_sentences FROM response_scores WHERE score_name = '{score}'
            AND student_fingerprint = $student AND threshold_version = $threshold_version) {name} USING (response_id)
        """
        for name, score in _SCORES.items()
    )
    query = f"""SELECT e.dataset, e.policy, {", ".join(f"{value} AS {name}" for name, value in _OF_EXAMPLES.items())}
        FROM sft_examples e LEFT JOIN {measured("responses", "mean_logprob", "response_id")} r USING (response_id)
            {scores} LEFT JOIN (SELECT response_id, passed FROM response_verdicts
                WHERE filter = '{CORRECTNESS}' AND filter_version = $filter_version) v USING (response_id)
        WHERE e.recipe = $recipe AND list_contains($policies, e.policy) GROUP BY ALL ORDER BY ALL"""
    params = {
        "recipe": recipe.name,
        "policies": policies,
        "student": student,
        "threshold_version": threshold_version(recipe),
        "filter_version": filter_version(recipe, student),
    }
    return warehouse.read(query, params)
