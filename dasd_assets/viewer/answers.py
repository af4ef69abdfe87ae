"""An answer to a held-out question: its text, verdict and, where three models scored it, its sentences by type."""

from collections.abc import Mapping, Sequence

from starlette.requests import Request
from starlette.responses import Response

from dasd_assets.audit.prompt import Record
from dasd_assets.rules.answer_types import answer_threshold_version
from dasd_assets.rules.answers import ANSWER_ID
from dasd_assets.rules.typed_ids import AuditError
from dasd_assets.viewer.coloured import runs
from dasd_assets.viewer.links import among, asked, place
from dasd_assets.viewer.viewer import Viewer
from dasd_resources.storage.lake import Reading

_ANSWER = f"SELECT *, {ANSWER_ID} AS answer_id FROM evaluations WHERE evaluation_id = $id"
_QUESTION = "SELECT * FROM benchmark_questions WHERE benchmark = $benchmark AND question_id = $question"
# The samples to the same prompt under the same limits; of one that was judged again, the last, but always this one.
_SAMPLES = """SELECT evaluation_id FROM evaluations WHERE checkpoint_id = $checkpoint AND benchmark = $benchmark
        AND question_id = $question AND (temperature, top_p, max_tokens) = ($temperature, $top_p, $max_tokens)
        AND template_version IS NOT DISTINCT FROM $prompt AND instruction IS NOT DISTINCT FROM $instruction
    QUALIFY row_number() OVER (PARTITION BY sample_index ORDER BY evaluation_id = $id DESC, rowid DESC) = 1
    ORDER BY sample_index"""
_SENTENCES = """SELECT s.*, coalesce(t.sentence_type, 'untyped') AS kind
    FROM answer_sentences s LEFT JOIN (FROM answer_sentence_types WHERE threshold_version = $version) t
        USING (answer_id, checkpoint_id, teacher_fingerprint, student_fingerprint, sentence_index)
    WHERE s.answer_id = $id AND s.checkpoint_id = $checkpoint
    QUALIFY dense_rank() OVER (ORDER BY s.student_fingerprint = $student DESC, s.teacher_fingerprint = $teacher DESC,
        s.segmenter_version DESC, s.teacher_fingerprint, s.student_fingerprint) = 1
    ORDER BY s.sentence_index"""


def answer(viewer: Viewer, request: Request) -> Response:
    """The page of one answer."""
    with viewer.lake.reading() as reading:
        rows = reading.read(_ANSWER, {"id": request.path_params["id"]}).to_dicts()
        if not rows:
            raise AuditError(f"there is no answer {request.path_params['id']}")
        [row] = rows
        key = {name: row[name] for name in ("benchmark", "temperature", "top_p", "max_tokens", "instruction")}
        key |= {"question": row["question_id"], "checkpoint": row["checkpoint_id"], "prompt": row["template_version"]}
        key |= {"id": row["evaluation_id"]}
        questions = reading.read(_QUESTION, key).to_dicts()
        samples = reading.read(_SAMPLES, key)["evaluation_id"].to_list()
        sentences = sentences_of(reading, row, typed_by(viewer))
    return viewer.page(
        request,
        "answer.html",
        answer=row,
        question=questions[0] if questions else None,
        runs=runs(row["response_text"], sentences),
        sentences=sentences,
        **among("answer", samples, row["evaluation_id"]),
        side_by_side=asked(
            place("held_out", row["question_id"]), benchmark=row["benchmark"], temperature=row["temperature"]
        ),
    )


def typed_by(viewer: Viewer) -> Mapping[str, object]:
    """The recipe's rule, student and teacher: parameters of `_SENTENCES`."""
    models = {row["name"]: row["checkpoint_id"] for row in viewer.models()}
    version = answer_threshold_version(viewer.recipe)
    return {"version": version, **{name: models.get(name, "") for name in ("student", "teacher")}}


def sentences_of(reading: Reading, row: Record, rule: Mapping[str, object]) -> Sequence[Record]:
    """Its sentences by `typed_by`, else under other models; none where it was not of the sample that is scored."""
    return reading.read(_SENTENCES, {"id": row["answer_id"], "checkpoint": row["checkpoint_id"], **rule}).to_dicts()
