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

READING_VERSION = "1"
READING = Rule("landed responses", READING_VERSION)
MAPPING = "landing.columns"
LANDED_ASSET = "landed_responses"
NOTHING_LANDED = "none"
# A landed response l and its prompt p: the one place that says how they are found. A landed line knows its question's
# key; prompts of earlier releases keep an id of their own.
_SAME_QUESTION = "coalesce(p.question_key, p.prompt_id) = l.prompt_id"
ITS_PROMPT = f"JOIN prompts p ON {_SAME_QUESTION}"
WITHOUT_PROMPT = f"ANTI JOIN prompts p ON {_SAME_QUESTION}"  # its question was rejected: held out, or withdrawn, say
# A file whose batch was removed brings nothing any more; what was imported of it stays.
IN_EXISTING = "l.batch IN (SELECT unnest($existing::VARCHAR[]))"
# A response that landed twice counts once. The sum does not depend on order.
_VERSIONS = f"""WITH given AS (SELECT DISTINCT sample FROM landed_logprobs),
        landed AS (SELECT DISTINCT l.landed_id, l.prompt_id, l.sample FROM landed_responses l WHERE {IN_EXISTING})
    SELECT p.batch, count(*) || '-' || sum(md5_number_lower(
            l.landed_id || CASE WHEN g.sample IS NULL THEN '' ELSE ' given' END)::HUGEINT) AS version
    FROM landed l {ITS_PROMPT} LEFT JOIN given g ON g.sample = l.sample GROUP BY p.batch"""


def reading_version(recipe: "Recipe") -> str:
    """Of the rules by which a file is read: ours, and the recipe's mapping of columns, if it has one."""
    return f"{READING_VERSION} {recipe.version(MAPPING)}" if recipe.landing.columns else READING_VERSION


def landed_versions(lake: "Lake | Reading", existing: Sequence[str]) -> dict[str, str]:
    """Batch -> what identifies the responses to its questions, and which of them have logprobs. existing: batches."""
    return dict(lake.read(_VERSIONS, {"existing": list(existing)}).iter_rows())
