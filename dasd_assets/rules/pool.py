"""The pool: the scored candidates of a dataset, from which divergence-aware sampling and its random control choose.

All that is trained on comes from it, a mixed-policy dataset's questions included: what a recipe holds out is not in it.
"""

from collections.abc import Collection, Sequence

from dasd_assets.rules.candidates import (
    ACCEPTED,
    AT_TEMPERATURE,
    CANDIDATES,
    HELD_OUT,
    OF_BATCHES,
    OF_RECIPE,
    candidate_params,
    held_out_share,
)
from dasd_assets.rules.competition import NUM_TOKENS, SHRUNK
from dasd_assets.rules.filters.catalogue import CORRECTNESS, FILTERING, filter_version, required_filters
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.scores import DIVERGENCE, threshold_version
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Reading
from dasd_resources.storage.tables import measured

POOL_VERSION = "2"
POOL = Rule(
    "pool",
    POOL_VERSION,
    (
        "filters.apply",
        "filters.require_correct",
        "filters.required",
        "heldout.questions",
        "selection.score",
        "selection.min_sentences",
        "selection.pseudo_count",
        "selection.budget_unit",
    ),
    (CANDIDATES, FILTERING, DIVERGENCE),
)
# Columns that only some policies need (`rules/policies.py`), in SQL. A question without a verifier passes unseen.
ON_REQUEST = {
    "num_tokens": "t.num_tokens",
    "mean_logprob": "m.mean_logprob",
    "correct": f"""r.response_id IN (SELECT response_id FROM response_verdicts
        WHERE filter = '{CORRECTNESS}' AND filter_version = $filter_version AND passed) AS correct""",
}


def create_pool_table(
    reading: Reading, params: dict[str, object], columns: Collection[str] = (), matching: str | None = None
) -> dict[str, float]:
    """Create the temporary table `pool` of the scored candidates, with the columns that a `Competition` needs.

    params: of `pool_params`. columns: more of them, of ON_REQUEST. matching: a regular expression that is found in the
    text of each. Only accepted ones where filters come before selection. The key is the score, drawn towards the mean
    of its domain where there is a pseudo-count. Returns these means; without a pseudo-count, none.
    """
    # Where filters come after selection, `accepted` is a column and not a condition: best-per-question first takes the
    # best response of a question, and only then asks whether that one passed.
    # A table, because it is read several times and costs most: 18.7 s of 10 M scored responses, ranking them 2.0 s.
    in_tokens = params["budget_unit"] == "tokens"
    counted = in_tokens or "num_tokens" in columns
    averaged = measured("responses", "mean_logprob", "response_id") if "mean_logprob" in columns else None
    query = f"""SELECT r.response_id, r.prompt_id, p.domain, s.score, s.score AS key,
            v.response_id IS NOT NULL AS accepted, {"t.num_tokens" if in_tokens else "1"} AS cost,
            {", ".join(["s.num_sentences", *(ON_REQUEST[name] for name in columns)])}
        FROM responses r JOIN prompts p USING (prompt_id) JOIN response_scores s USING (response_id)
            {f"JOIN {NUM_TOKENS} t USING (response_id)" if counted else ""}
            {f"JOIN {averaged} m USING (response_id)" if averaged else ""}
            LEFT JOIN ({ACCEPTED.format(scope="")}) v USING (response_id)
        WHERE {OF_RECIPE} AND {AT_TEMPERATURE} AND {OF_BATCHES} AND NOT {HELD_OUT}
          AND s.student_fingerprint = $student AND s.score_name = $score_name
          AND s.threshold_version = $threshold_version AND s.num_sentences >= $min_sentences
          AND (v.response_id IS NOT NULL OR NOT $only_accepted)
          {"" if matching is None else "AND regexp_matches(r.text, $matching)"}"""
    reading.create_temp_table("pool", query, params if matching is None else {**params, "matching": matching})
    return shrink(reading, float(str(params["pseudo_count"]))) if params["pseudo_count"] else {}


def shrink(reading: Reading, pseudo_count: float) -> dict[str, float]:
    """Draw the keys of table `pool` towards the mean score of their domain's rows; returns the means."""
    # Rounded, as a mean's last digits depend on the order in which threads add up; the rank of no row may.
    means = dict(reading.read("SELECT domain, round(favg(score), 9) FROM pool GROUP BY ALL").iter_rows())
    params = {"pseudo_count": pseudo_count, "domains": list(means), "means": list(means.values())}
    query = f"""SELECT pool.* REPLACE ({SHRUNK.replace("$mean", "mean")} AS key) FROM pool
        JOIN (SELECT unnest($domains::VARCHAR[]) AS domain, unnest($means::DOUBLE[]) AS mean) USING (domain)"""
    reading.create_temp_table("shrunk", query, params)
    reading.create_temp_table("pool", "FROM shrunk")
    return means


def pool_params(recipe: Recipe, teacher: str, student: str, dataset: str, batches: Sequence[str]) -> dict[str, object]:
    """The parameters of `create_pool_table`. teacher, student: fingerprints; batches: existing, not quarantined."""
    return candidate_params(recipe, teacher) | {
        "temperature": recipe.datasets[dataset],
        "batches": list(batches),
        "held_out_share": held_out_share(recipe),
        "student": student,
        "score_name": recipe.selection.score,
        "min_sentences": recipe.selection.min_sentences,
        "pseudo_count": recipe.selection.pseudo_count,
        "budget_unit": recipe.selection.budget_unit,
        "threshold_version": threshold_version(recipe),
        "filter_version": filter_version(recipe, student),
        "filters": list(required_filters(recipe.filters.require_correct, recipe.filters.required)),
        "only_accepted": recipe.filters.apply == "before_selection",
    }
