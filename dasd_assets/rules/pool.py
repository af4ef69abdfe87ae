"""The pool: which of the responses in the warehouse this recipe may score and select from.

The warehouse may hold responses of other recipes, teachers and candidate counts, and of batches that were removed; the
queries here are the only place that tells them apart.
"""

import polars as pl

from dasd_assets.divergence import threshold_version
from dasd_assets.rules.filters import FILTERS, required_filters
from dasd_assets.verdicts import filter_version
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Reading, Warehouse

QUALITY_FILTERS = tuple(name for name in FILTERS if name != "correctness")

OF_RECIPE = """r.teacher_fingerprint = $teacher AND r.top_p = $top_p AND r.max_tokens = $max_tokens
    AND r.sample_index < $num_candidates AND list_contains($temperatures, r.temperature)"""
OF_BATCHES = "r.batch IN (SELECT unnest($batches::VARCHAR[]))"  # list_contains would compare with each of thousands
_VERDICTS = """SELECT response_id, count(*) = len($filters) AS accepted FROM response_verdicts
    WHERE filter_version = $filter_version AND passed AND list_contains($filters, filter)"""
_TO_SCORE = f"""FROM responses r JOIN prompts p USING (prompt_id)
        LEFT JOIN ({_VERDICTS} AND batch = $batch GROUP BY response_id) v USING (response_id)
    WHERE r.batch = $batch AND p.batch = $batch AND {OF_RECIPE} AND (len($filters) = 0 OR v.accepted)"""


def recipe_params(recipe: Recipe, teacher: PromptedModel, student: PromptedModel) -> dict[str, object]:
    """The query parameters that pick out a recipe's responses."""
    return {
        "teacher": teacher.fingerprint,
        "top_p": recipe.generation.top_p,
        "max_tokens": recipe.generation.max_tokens,
        "num_candidates": recipe.generation.num_candidates,
        "temperatures": list(recipe.generation.temperatures),
        "filter_version": filter_version(recipe, student.fingerprint),
    }


def responses_to_score(
    warehouse: Warehouse, recipe: Recipe, teacher: PromptedModel, student: PromptedModel, batch: str
) -> pl.DataFrame:
    """(response_id, question, text, system_prompt) of a batch's responses that the student must score.

    Those of good quality where filters come before selection, else all. Correctness never matters here: without wrong
    answers nothing could be said of the right ones.
    """
    query = f"SELECT r.response_id, p.question, r.text, p.system_prompt {_TO_SCORE} ORDER BY r.response_id"
    return warehouse.read(query, _to_score(recipe, teacher, student, batch))


def num_scored(
    warehouse: Warehouse, recipe: Recipe, teacher: PromptedModel, student: PromptedModel, batch: str
) -> tuple[int, int]:
    """How many of a batch's `responses_to_score` the student has scored, and how many there are."""
    query = f"""SELECT count(*) FILTER (r.response_id IN (
            SELECT response_id FROM student_logprobs WHERE batch = $batch AND student_fingerprint = $student)), count(*)
        {_TO_SCORE}"""
    scored, wanted = warehouse.read(query, _to_score(recipe, teacher, student, batch)).row(0)
    return scored, wanted


def _to_score(recipe: Recipe, teacher: PromptedModel, student: PromptedModel, batch: str) -> dict[str, object]:
    """The parameters of _TO_SCORE."""
    filters: list[str] = list(QUALITY_FILTERS) if recipe.filters.apply == "before_selection" else []
    params = recipe_params(recipe, teacher, student)
    return {**params, "student": student.fingerprint, "batch": batch, "filters": filters}


def keep_pool(reading: Reading, engines: Engines, recipe: Recipe, dataset: str, batches: list[str]) -> None:
    """Table `pool` of the reading: response_id, prompt_id, domain, score, accepted of a dataset's scored responses.

    Those in `batches` (the ones that exist), and only accepted ones where filters come before selection.
    """
    query = f"""SELECT r.response_id, r.prompt_id, p.domain, s.score, coalesce(v.accepted, FALSE) AS accepted
        FROM responses r JOIN prompts p USING (prompt_id) JOIN response_scores s USING (response_id)
            LEFT JOIN ({_VERDICTS} GROUP BY response_id) v USING (response_id)
        WHERE {OF_RECIPE} AND r.temperature = $temperature AND {OF_BATCHES}
          AND s.student_fingerprint = $student AND s.score_name = $score_name
          AND s.threshold_version = $threshold_version AND (v.accepted OR NOT $only_accepted)"""
    reading.keep("pool", query, pool_params(engines, recipe, dataset, batches))


def pool_params(engines: Engines, recipe: Recipe, dataset: str, batches: list[str]) -> dict[str, object]:
    """The query parameters that pick out a dataset's scored responses in the batches that exist."""
    teacher = engines.find(recipe.teacher, "teacher.model")
    student = engines.find(recipe.student, "student.model")
    return recipe_params(recipe, teacher, student) | {
        "temperature": recipe.datasets[dataset],
        "batches": batches,
        "student": student.fingerprint,
        "score_name": recipe.selection.score,
        "threshold_version": threshold_version(recipe),
        "filters": list(required_filters(recipe.filters)),
        "only_accepted": recipe.filters.apply == "before_selection",
    }


def drop_counts(warehouse: Warehouse, engines: Engines, recipe: Recipe, batches: list[str]) -> pl.DataFrame:
    """(temperature, filter, num_dropped, num_judged) over this recipe's responses in `batches`, for every filter."""
    query = f"""SELECT r.temperature, v.filter, count(*) FILTER (NOT v.passed) AS num_dropped, count(*) AS num_judged
        FROM responses r JOIN response_verdicts v USING (response_id)
        WHERE {OF_RECIPE} AND {OF_BATCHES} AND v.filter_version = $filter_version GROUP BY ALL ORDER BY ALL"""
    teacher = engines.find(recipe.teacher, "teacher.model")
    student = engines.find(recipe.student, "student.model")
    return warehouse.read(query, {**recipe_params(recipe, teacher, student), "batches": batches})
