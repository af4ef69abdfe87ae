"""How many questions of a domain are asked, and which: `prompts` -> `asked_prompts`.

A recipe may name domains with the number of their questions that the teacher is asked (the report's 105K maths
questions, say); the others stay in `prompts`, and are asked once the number rises. What was chosen stays chosen, for it
may be answered: a lower number leaves out what was chosen last, and raising it again brings just that back. Free places
go to what has landed by then, in the recipe's order.
"""

from collections.abc import Sequence

from dasd_assets.rules.rule import Rule
from dasd_resources.recipe import Recipe
from dasd_resources.storage.lake import Lake, Reading, Row, Transaction

QUOTA_VERSION = "1"
QUOTAS = Rule("quotas", QUOTA_VERSION, ("name", "seed", "generation.questions_per_domain", "generation.question_order"))

# In SQL, of a question p: whether it is asked now; `asked_prompts` keeps what was chosen of withdrawn ones.
IS_ASKED = """p.prompt_id NOT IN (SELECT prompt_id FROM withdrawn_prompts)
    AND p.prompt_id NOT IN (SELECT prompt_id FROM asked_prompts WHERE recipe = $quota_scope AND NOT asked)"""
# Every question of a domain with a quota, and every one that was ever chosen: its place among those of its domain, and
# whether that is within the quota.
_PLACES = """quotas AS (SELECT unnest($domains::VARCHAR[]) AS domain, unnest($limits::BIGINT[]) AS quota),
    known AS (FROM asked_prompts WHERE recipe = $recipe),
    places AS (
        SELECT p.prompt_id, p.batch, q.quota, k.position, k.asked,
            row_number() OVER (PARTITION BY p.domain ORDER BY k.position NULLS LAST,
                CASE WHEN list_contains($by_length::VARCHAR[], p.domain)
                    THEN -coalesce(length(p.reference_answer), 0) END,
                md5($seed::VARCHAR || ' ' || p.prompt_id)) AS place
        FROM prompts p LEFT JOIN known k USING (prompt_id) LEFT JOIN quotas q USING (domain)
        WHERE (q.quota IS NOT NULL OR k.position IS NOT NULL) AND p.batch IN (SELECT unnest($existing::VARCHAR[]))
          AND p.prompt_id NOT IN (SELECT prompt_id FROM withdrawn_prompts)),
    wanted AS (SELECT *, coalesce(place <= quota, true) AS wanted FROM places)"""


def quota_params(recipe: Recipe, existing: Sequence[str]) -> dict[str, object]:
    """The parameters of the queries here. existing: all batches."""
    limits, order = recipe.generation.questions_per_domain, recipe.generation.question_order
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "domains": list(limits),
        "limits": list(limits.values()),
        "by_length": [domain for domain, rule in order.items() if rule == "longest_reference_first"],
        "existing": list(existing),
    }


def choose_asked(transaction: Transaction, recipe: Recipe, batch: str, existing: Sequence[str]) -> Sequence[Row]:
    """Replace a batch's rows of `asked_prompts` by what its prompts come to now; returns those of prompts there are."""
    params = {**quota_params(recipe, existing), "batch": batch}
    # What is asked for the first time takes its position after all others, for good.
    rows = transaction.read(
        f"""WITH {_PLACES}, last AS (SELECT coalesce(max(position), 0) AS position FROM known)
        SELECT $recipe AS recipe, prompt_id, batch, wanted AS asked, place, quota, coalesce(position,
            CASE WHEN wanted THEN (FROM last) + row_number() OVER (ORDER BY place, prompt_id) END) AS position
        FROM wanted WHERE batch = $batch ORDER BY prompt_id""",
        params,
    )
    withdrawn = "SELECT * FROM asked_prompts WHERE recipe = $recipe AND batch = $batch AND prompt_id NOT IN (FROM here)"
    transaction.create_temp_table("here", "SELECT prompt_id FROM prompts WHERE batch = $batch", params)
    kept = transaction.read(withdrawn, params)
    transaction.replace("asked_prompts", {"recipe": recipe.name, "batch": batch}, [kept, rows])
    return rows.to_dicts()


def outdated_quotas(lake: Lake | Reading, recipe: Recipe, existing: Sequence[str]) -> dict[str, str]:
    """Batch -> reason, for those whose questions are asked, or left out, otherwise than the quotas have it now."""
    if not recipe.generation.questions_per_domain:
        return {}
    query = f"""WITH {_PLACES} SELECT batch, count(*), md5(string_agg(prompt_id || place, ' ' ORDER BY prompt_id))
        FROM wanted WHERE asked IS DISTINCT FROM wanted GROUP BY batch ORDER BY batch"""
    rows = lake.read(query, quota_params(recipe, existing)).iter_rows()
    return {batch: f"{num} questions to be asked or left out by quota ({version[:8]})" for batch, num, version in rows}
