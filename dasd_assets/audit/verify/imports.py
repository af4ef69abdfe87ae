"""Imported responses again, from what landed: their texts, and the tokens and logprobs that were given."""

from collections.abc import Iterator

from dasd_assets.audit.files import AGAIN, Fault
from dasd_assets.audit.prompt import Record
from dasd_assets.audit.verify.sampling import CHUNK, drawn
from dasd_assets.rules.imports import GIVEN
from dasd_resources.chat.landed_text import canonical_response
from dasd_resources.storage.lake import Reading

# Of equal responses, and of logprobs for one sample, those count that landed first.
_LANDED = """SELECT r.response_id, r.text, r.token_ids, r.logprobs, r.logprob_origin,
        l.text AS landed_text, g.token_ids AS given_ids, g.logprobs AS given_logprobs
    FROM {responses} r
        JOIN landed_responses l USING (landed_id) LEFT JOIN landed_logprobs g USING (sample)
    QUALIFY row_number() OVER (PARTITION BY r.response_id
        ORDER BY l.batch, l.source_line, l.item, g.batch, g.source_line, g.item) = 1"""


def imports(reading: Reading, sample: int | None) -> Iterator[Fault]:
    """Rows that are not what landed; those whose file's rows are gone are left out."""
    query = _LANDED.format(responses=drawn("responses", "response_id", sample, "landed_id IS NOT NULL"))
    for chunk in reading.stream(query, {}, CHUNK):
        for row in chunk.iter_rows(named=True):
            yield from (Fault("responses", row["response_id"], what, AGAIN) for what in _differences(row))


def _differences(row: Record) -> Iterator[str]:
    if canonical_response(row["landed_text"]).text != row["text"]:
        yield "its text is not the one that landed"
    if row["logprob_origin"] == GIVEN:
        for column, given in (("token_ids", "given_ids"), ("logprobs", "given_logprobs")):
            if row[given] is not None and row[column] != row[given]:
                yield f"its {column} are not those that landed"
