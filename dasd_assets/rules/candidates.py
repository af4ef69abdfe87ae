"""Candidates: the responses in the warehouse that belong to a recipe, and those of them that the student must score.

The warehouse may hold responses of other recipes, teachers and candidate counts, and of batches that were removed. The
conditions here are the only ones that distinguish them, for stages and audits alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import polars as pl

from dasd_assets.rules.instructions import ASKED_AS_NOW, instruction_params
from dasd_assets.rules.rule import Rule

if TYPE_CHECKING:  # audits need only the conditions, and answer in less time than pydantic takes to load
    from dasd_resources.recipe import Recipe
    from dasd_resources.storage.lake import Lake, Reading

Params = Mapping[str, object]

CANDIDATES_VERSION = "1"
CANDIDATES = Rule(
    "candidates",
    CANDIDATES_VERSION,
    ("generation.num_candidates", "generation.top_p", "generation.max_tokens", "generation.instructions"),
)

# Each expects the alias r of `responses`, or v of `response_verdicts`, and the parameters that it names.
OF_RECIPE = f"""r.teacher_fingerprint = $teacher AND r.top_p = $top_p AND r.max_tokens = $max_tokens
    AND r.sample_index < $num_candidates AND {ASKED_AS_NOW}"""
AT_TEMPERATURE = "r.temperature = $temperature"
AT_ANY_TEMPERATURE = "list_contains($temperatures, r.temperature)"
OF_BATCHES = (
    "r.batch IN (SELECT unnest($batches::VARCHAR[]))"  # a hash join; list_contains compares each row with thousands
)
JUDGED = "v.kind IS DISTINCT FROM 'no_verifier'"  # a question without a verifier passes unseen
ACCEPTED = """SELECT response_id FROM response_verdicts
    WHERE filter_version = $filter_version AND passed AND list_contains($filters, filter){scope}
    GROUP BY response_id HAVING count(*) = len($filters)"""
# Whether the recipe holds a question out of training: asked and scored like any other, and in no pool. A hash of its id
# decides: whatever else lands, it stays where it is, alike under every recipe; a larger share adds to those held out.
HELD_OUT = "($held_out_share > 0 AND md5_number_lower('held out ' || r.prompt_id) / 2.0 ** 64 < $held_out_share)"
_TO_SCORE = f"""FROM responses r JOIN prompts p USING (prompt_id)
    WHERE $selects AND r.batch = $batch AND p.batch = $batch AND {OF_RECIPE} AND {AT_ANY_TEMPERATURE}
      AND (len($filters) = 0 OR r.response_id IN ({ACCEPTED.format(scope=" AND batch = $batch")}))"""


def candidate_params(recipe: "Recipe", teacher: str) -> dict[str, object]:
    """The parameters of OF_RECIPE. teacher: its fingerprint."""
    return {
        "teacher": teacher,
        "top_p": recipe.generation.top_p,
        "max_tokens": recipe.generation.max_tokens,
        "num_candidates": recipe.generation.num_candidates,
        **instruction_params(recipe.generation.instructions),
    }


def held_out_share(recipe: "Recipe") -> float:
    """The parameter of HELD_OUT."""
    return 0.0 if recipe.heldout is None else recipe.heldout.questions


def is_held_out(reading: "Reading", share: float, prompt_id: str) -> bool:
    """Whether a recipe with this share holds a question out of training."""
    query = f"SELECT {HELD_OUT} FROM (SELECT $prompt_id AS prompt_id) r"
    return share > 0 and bool(reading.read(query, {"held_out_share": share, "prompt_id": prompt_id}).item())


def to_score_params(recipe: "Recipe", teacher: str, batch: str, filter_version: str, filters: Sequence[str]) -> Params:
    """The parameters of `responses_to_score` and `num_scored`.

    filters: those that a response must pass to be scored. Correctness is never one of them: right answers can only be
    compared with wrong ones if both are scored. None is scored for a recipe that takes another's selection.
    """
    return {
        **candidate_params(recipe, teacher),
        "temperatures": list(recipe.generation.temperatures),
        "selects": recipe.selection_from is None,
        "batch": batch,
        "filter_version": filter_version,
        "filters": list(filters) if recipe.filters.apply == "before_selection" else [],
    }


def responses_to_score(lake: "Lake", params: Params) -> list[str]:
    """Ids of the responses of a batch that the student must score, in order.

    Those that pass the filters where filters come before selection, else all.
    """
    query = f"SELECT r.response_id {_TO_SCORE} ORDER BY r.response_id"
    return lake.read(query, params)["response_id"].to_list()


def num_scored(lake: "Lake", params: Params, student: str) -> tuple[int, int]:
    """How many of a batch's `responses_to_score` the student has scored, and how many there are."""
    query = f"""SELECT count(*) FILTER (r.response_id IN (
            SELECT response_id FROM student_logprobs WHERE batch = $batch AND student_fingerprint = $student)), count(*)
        {_TO_SCORE}"""
    scored, wanted = lake.read(query, {**params, "student": student}).row(0)
    return scored, wanted


def drop_counts(lake: "Lake | Reading", params: Params, filters: Iterable[str]) -> pl.DataFrame:
    """(temperature, filter, num_dropped, num_judged) over a recipe's responses in some batches.

    params: `candidate_params`, temperatures, batches and filter_version. filters: those that there are; the table keeps
    verdicts of removed ones.
    """
    query = f"""SELECT r.temperature, v.filter, count(*) FILTER (NOT v.passed) AS num_dropped, count(*) AS num_judged
        FROM responses r JOIN response_verdicts v USING (response_id)
        WHERE {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND {OF_BATCHES} AND v.filter_version = $filter_version
          AND {JUDGED} AND list_contains($filters, v.filter)
        GROUP BY ALL ORDER BY ALL"""
    return lake.read(query, {**params, "filters": list(filters)})


def num_answered(lake: "Lake | Reading", params: Params) -> int:
    """How many questions a recipe has responses to in some batches. params: as of `drop_counts`, but the version."""
    query = f"""SELECT count(DISTINCT r.prompt_id) FROM responses r
        WHERE {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND {OF_BATCHES}"""
    return int(lake.read(query, params).item())
