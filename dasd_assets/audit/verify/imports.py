"""Imported responses again, from what landed: their texts, and the tokens and logprobs that were given."""

from collections.abc import Iterator

from dasd_assets.audit.files import AGAIN, Fault
from dasd_assets.audit.prompt import Record
from dasd_assets.audit.verify.sampling import CHUNK, drawn
from dasd_assets.rules.imports import GIVEN
from dasd_resources.chat.landed_text import canonical_response
from dasd_resources.storage.lake import Reading

# Of several logprobs for a response, in batches that may be removed by now, any may be those that were imported.
_LANDED = """SELECT r.response_id, any_value(r.text) AS text, any_value(l.text) AS landed_text,
        bool_or(g.token_ids = r.token_ids) AS same_ids,
        bool_or(g.token_ids = r.token_ids AND g.logprobs = r.logprobs) AS same_logprobs
    FROM {responses} r JOIN landed_responses l USING (landed_id)
        LEFT JOIN landed_logprobs g ON g.sample = l.sample AND r.logprob_origin = $given
    GROUP BY r.response_id"""


def imports(reading: Reading, sample: int | None) -> Iterator[Fault]:
    """Rows that are not what landed; those whose file's rows are gone are left out."""
    query = _LANDED.format(responses=drawn("responses", "response_id", sample, "landed_id IS NOT NULL"))
    for chunk in reading.stream(query, {"given": GIVEN}, CHUNK):
        for row in chunk.iter_rows(named=True):
            yield from (Fault("responses", row["response_id"], what, AGAIN) for what in _differences(row))


def _differences(row: Record) -> Iterator[str]:
    if canonical_response(row["landed_text"]).text != row["text"]:
        yield "its text is not the one that landed"
    if row["same_ids"] is False:
        yield "its token_ids are not those that landed"
    elif row["same_logprobs"] is False:
        yield "its logprobs are not those that landed"
