"""The pool: the scored candidates of a dataset, from which divergence-aware sampling and its random control choose."""

from collections.abc import Sequence

from dasd_assets.rules.candidates import ACCEPTED, AT_TEMPERATURE, CANDIDATES, OF_BATCHES, OF_RECIPE, candidate_params
from dasd_assets.rules.filters import FILTERING, filter_version, required_filters
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.scores import DIVERGENCE, threshold_version
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Reading

POOL_VERSION = "1"
POOL = Rule(
    "pool",
    POOL_VERSION,
    ("filters.apply", "filters.require_correct", "selection.score"),
    (CANDIDATES, FILTERING, DIVERGENCE),
)


def create_pool_table(reading: Reading, params: dict[str, object]) -> None:
    """Create the temporary table `pool`: response_id, prompt_id, domain, score, accepted of the scored candidates.

    params: of `pool_params`. Only accepted ones where filters come before selection.
    """
    # Where filters come after selection, `accepted` is a column and not a condition: best-per-question first takes the
    # best response of a question, and only then asks whether that one passed.
    # A table, because it is read several times and costs most: 18.7 s of 10 M scored responses, ranking them 2.0 s.
    query = f"""SELECT r.response_id, r.prompt_id, p.domain, s.score, v.response_id IS NOT NULL AS accepted
        FROM responses r JOIN prompts p USING (prompt_id) JOIN response_scores s USING (response_id)
            LEFT JOIN ({ACCEPTED.format(scope="")}) v USING (response_id)
        WHERE {OF_RECIPE} AND {AT_TEMPERATURE} AND {OF_BATCHES}
          AND s.student_fingerprint = $student AND s.score_name = $score_name
          AND s.threshold_version = $threshold_version AND (v.response_id IS NOT NULL OR NOT $only_accepted)"""
    reading.create_temp_table("pool", query, params)


def pool_params(recipe: Recipe, teacher: str, student: str, dataset: str, batches: Sequence[str]) -> dict[str, object]:
    """The parameters of `create_pool_table`. teacher, student: fingerprints; batches: existing, not quarantined."""
    return candidate_params(recipe, teacher) | {
        "temperature": recipe.datasets[dataset],
        "batches": list(batches),
        "student": student,
        "score_name": recipe.selection.score,
        "threshold_version": threshold_version(recipe),
        "filter_version": filter_version(recipe, student),
        "filters": list(required_filters(recipe.filters.require_correct)),
        "only_accepted": recipe.filters.apply == "before_selection",
    }
