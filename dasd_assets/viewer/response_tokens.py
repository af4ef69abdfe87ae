"""The tokens of one sentence of a response under both models, with their log-probabilities; a part of its page."""

import math
from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from dasd_assets.audit.prompt import Record
from dasd_assets.audit.response import located
from dasd_assets.rules.sentences import SEGMENTER_VERSION, attribute
from dasd_assets.rules.typed_ids import AuditError
from dasd_assets.viewer.coloured import shown_text
from dasd_assets.viewer.viewer import Viewer
from dasd_resources.visible_text import visible

_SENTENCE = """SELECT s.*, r.text, r.offsets AS teacher_offsets, r.logprobs AS teacher_logprobs,
        t.offsets AS student_offsets, l.logprobs AS student_logprobs
    FROM sentence_probabilities s JOIN responses r USING (response_id, batch)
        LEFT JOIN student_tokens t USING (response_id, batch, student_fingerprint)
        LEFT JOIN student_logprobs l USING (response_id, batch, student_fingerprint)
    WHERE s.response_id = $id AND s.batch = $batch AND s.sentence_index = $index
    ORDER BY s.student_fingerprint = $student DESC, s.segmenter_version = $segmenter DESC, s.student_fingerprint,
        s.segmenter_version LIMIT 1"""  # as `typed_sentences` chooses


def sentence_tokens(viewer: Viewer, request: Request) -> Response:
    """The tokens of sentence `index`, counted from 0."""
    index = request.path_params["index"]
    with viewer.lake.reading() as reading:
        key = located(reading, request.path_params["id"])
        params = {**key, "index": index, "student": viewer.student() or "", "segmenter": SEGMENTER_VERSION}
        rows = reading.read(_SENTENCE, params).to_dicts()
    if not rows:
        raise AuditError(f"response {key['id']} has no sentence {index + 1}, or the student has not scored it")
    [row] = rows
    return viewer.page(
        request,
        "sentence_tokens.html",
        row=row,
        text=shown_text(row["text"][row["start"] : row["stop"]]),
        models={model: tokens_within(row, model) for model in ("teacher", "student")},
    )


def tokens_within(row: Record, model: str) -> list[Record]:
    """Text and logprob of each token that the sentence owns, which add up to its stored sum; none without tokens."""
    offsets, logprobs = row[f"{model}_offsets"], row[f"{model}_logprobs"]
    if offsets is None or logprobs is None:
        return []
    owners = attribute(row["text"], offsets, [(row["start"], row["stop"])])
    following = _following(offsets, len(row["text"]))
    return [
        {"text": visible(row["text"][start:stop]), "logprob": logprob, "prob": math.exp(logprob)}
        for start, stop, logprob, owner in zip(offsets, following, logprobs, owners.tolist(), strict=True)
        if owner == 0
    ]


def _following(offsets: Sequence[int], num_chars: int) -> list[int]:
    """Where each token ends: at the next one that starts later, or with the text."""
    ends: list[int] = []
    end, last = num_chars, num_chars
    for offset in reversed(offsets):
        if 0 <= offset < last:
            end, last = last, offset
        ends.append(end)
    return ends[::-1]
