"""Answers to held-out questions that are stored with the verdict of another judge: judged again, not asked again."""

from collections.abc import Iterator, Mapping

from dasd_assets.rules.ids import EVALUATION_ID_FIELDS
from dasd_resources.storage.lake import Lake, Row

ROWS_AT_ONCE = 512
ANSWERED = ("response_text", "num_tokens", "finish_reason")  # what the model decided
_ASKED = (*(name for name in EVALUATION_ID_FIELDS if name != "verifier_version"), "template_version", "instruction")


def stored_answers(lake: Lake, checkpoint: str, wanted: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
    """The id of each wanted answer that is stored under another verifier version or `judged_by`, and its `ANSWERED`.

    wanted: evaluation_id -> columns of EVALUATION_ID_FIELDS, template_version, instruction. Each id comes at most once.
    """
    ids = {tuple(row[name] for name in _ASKED): key for key, row in wanted.items()}
    query = f"""SELECT {", ".join([*_ASKED, *ANSWERED])} FROM evaluations
        WHERE checkpoint_id = $checkpoint ORDER BY evaluation_id"""
    with lake.reading() as reading:
        for part in reading.stream(query, {"checkpoint": checkpoint}, ROWS_AT_ONCE):
            for row in part.iter_rows(named=True):
                key = ids.pop(tuple(row[name] for name in _ASKED), None)
                if key is not None:
                    yield key, {name: row[name] for name in ANSWERED}
