"""Landed responses by the batch of their question, which another file may have landed first.

A batch is out of date as soon as a response to one of its questions lands, or logprobs of one, in whichever file: the
service compares `landed_versions` with the data version of the asset `landed_responses` of each batch.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dasd_assets.rules.rule import Rule

if TYPE_CHECKING:
    from dasd_resources.recipe import Recipe
    from dasd_resources.storage.lake import Lake, Reading

READING_VERSION = "3"
READING = Rule("landed responses", READING_VERSION)
MAPPING = "landing.columns"
LANDED_ASSET = "landed_responses"
NOTHING_LANDED = "none"
# A landed response l and its prompt p: the one place that says how they are found. A landed line knows its question's
# key; prompts of earlier releases keep an id of their own.
_SAME_QUESTION = "coalesce(p.question_key, p.prompt_id) = l.prompt_id"
ITS_PROMPT = f"JOIN prompts p ON {_SAME_QUESTION}"
WITHOUT_PROMPT = f"ANTI JOIN prompts p ON {_SAME_QUESTION}"  # its question was rejected: held out, or withdrawn, say
# A file whose batch was removed brings nothing any more; what was imported of it stays. Batches exist in the order in
# which they landed, and of several equal responses, or of several logprobs for one, those count that landed first.
_OF_EXISTING = """FROM {} JOIN (SELECT unnest($existing::VARCHAR[]) AS batch,
        generate_subscripts($existing::VARCHAR[], 1) AS place) USING (batch)"""
LANDED, LANDED_LOGPROBS = (f"({_OF_EXISTING.format(table)})" for table in ("landed_responses", "landed_logprobs"))
# Whether logprobs of a landed response l are there: with one of its landings, or in a companion that names one of them.
IS_GIVEN = f"l.sample IN (SELECT sample FROM {LANDED_LOGPROBS})"
# A response that landed twice counts once. The sum does not depend on order.
_VERSIONS = f"""SELECT p.batch, count(*) || '-' || sum(md5_number_lower(
            l.landed_id || CASE WHEN l.given THEN ' given' ELSE '' END)::HUGEINT) AS version
    FROM (SELECT landed_id, prompt_id, bool_or({IS_GIVEN}) AS given FROM {LANDED} l GROUP BY ALL) l {ITS_PROMPT}
    GROUP BY p.batch"""


def reading_version(recipe: "Recipe") -> str:
    """Of the rules by which a file is read: ours, and the recipe's mapping of columns, if it has one."""
    return f"{READING_VERSION} {recipe.version(MAPPING)}" if recipe.landing.columns else READING_VERSION


def landed_versions(lake: "Lake | Reading", existing: Sequence[str]) -> dict[str, str]:
    """Batch -> what identifies the responses to its questions, and which of them have logprobs. existing: batches."""
    return dict(lake.read(_VERSIONS, {"existing": list(existing)}).iter_rows())
