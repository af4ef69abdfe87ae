"""What an experiment's arms were trained on: how long the responses are, how many are right, how much is the teacher's.

Policies differ in all of these at once; an arm that wins may win by any of them.
"""

import polars as pl

from dasd_assets.records.current_checkpoint import current_checkpoint
from dasd_assets.rules.asset_names import MIXED
from dasd_assets.rules.competition import NUM_TOKENS
from dasd_assets.rules.filters import CORRECTNESS, filter_version
from dasd_assets.rules.scores import threshold_version
from dasd_resources.recipe import Recipe
from dasd_resources.storage.tables import measured
from dasd_resources.storage.warehouse import Warehouse

TRAITS = ("tokens", "sentences", "right", "teacher_share", "mean_difference", "probability")
_SCORES = {"teacher_share": "teacher_share", "mean_difference": "mean_probability_token"}


def dataset_traits(warehouse: Warehouse, recipe: Recipe, stages: pl.DataFrame) -> pl.DataFrame:
    """(arm, stage, dataset, TRAITS): means over the teacher's responses of a stage's dataset, then over seeds.

    tokens: of the student. right: the share whose answer passed verification. teacher_share, mean_difference: scores
    by which responses are ranked. probability: geometric mean over a response's tokens, under the teacher. A trait
    that no response has is None; the mixed-policy dataset is left out. stages: of `cells.stage_rows`.
    """
    used = stages.filter((pl.col("stage") > 0) & (pl.col("dataset") != MIXED))
    parts = used.select("arm", "seed", "stage", "dataset", "policy", part=pl.col("dataset").str.split("+"))
    traits = _traits(warehouse, recipe, used["policy"].unique().to_list())
    of_parts = parts.explode("part").join(traits, on=["part", "policy"], maintain_order="left")
    key = ["arm", "stage", "dataset"]
    means = of_parts.group_by(*key, maintain_order=True).agg(
        (pl.col(name) * pl.col("number")).sum() / pl.col("number").filter(pl.col(name).is_not_null()).sum()
        for name in TRAITS
    )
    return means.with_columns(pl.col(TRAITS).fill_nan(None))


def _traits(warehouse: Warehouse, recipe: Recipe, policies: list[str]) -> pl.DataFrame:
    """(part, policy, number, TRAITS) of every selection of the recipe by these policies."""
    student = str(current_checkpoint(warehouse, recipe, "student")["checkpoint_id"])
    scores = "".join(
        f"""LEFT JOIN (SELECT response_id, score, num_sentences FROM response_scores WHERE score_name = '{score}'
            AND student_fingerprint = $student AND threshold_version = $threshold_version) {name} USING (response_id)
        """
        for name, score in _SCORES.items()
    )
    query = f"""SELECT s.dataset AS part, s.policy, count(*) AS number, avg(t.num_tokens) AS tokens,
            avg(teacher_share.num_sentences) AS sentences, avg(v.passed::INT) AS right,
            {", ".join(f"avg({name}.score) AS {name}" for name in _SCORES)},
            avg(exp(r.mean_logprob)) AS probability
        FROM selected_responses s JOIN {measured("responses", "mean_logprob", "response_id")} r USING (response_id)
            LEFT JOIN {NUM_TOKENS} t USING (response_id) {scores}
            LEFT JOIN (SELECT response_id, passed FROM response_verdicts
                WHERE filter = '{CORRECTNESS}' AND filter_version = $filter_version) v USING (response_id)
        WHERE s.recipe = $recipe AND list_contains($policies, s.policy) GROUP BY ALL ORDER BY ALL"""
    params = {
        "recipe": recipe.name,
        "policies": policies,
        "student": student,
        "threshold_version": threshold_version(recipe),
        "filter_version": filter_version(recipe, student),
    }
    return warehouse.read(query, params)
