"""A question and all its candidates side by side: score, verdicts, length, and why each was chosen or not."""

from starlette.requests import Request
from starlette.responses import Response

from dasd_assets.audit.prompt import Record, downstream, prompt_record
from dasd_assets.rules.filters.catalogue import filter_version
from dasd_assets.rules.scores import threshold_version
from dasd_assets.rules.typed_ids import find_id
from dasd_assets.viewer.coloured import runs
from dasd_assets.viewer.links import page_number, paging, place
from dasd_assets.viewer.viewer import Viewer
from dasd_resources.storage.lake import Reading

PAGE = 24  # candidates


def question(viewer: Viewer, request: Request) -> Response:
    """The page of one question; candidates best first, of each temperature."""
    number = page_number(request.query_params)
    student = viewer.student() or ""
    with viewer.lake.reading() as reading:
        prompt = prompt_record(reading, find_id(reading, "prompt", request.path_params["id"]))
        found = _candidates(viewer, reading, student, prompt)
        shown = found[PAGE * (number - 1) : PAGE * number]
        sentences = _sentences(viewer, reading, student, shown)
        for row in shown:
            row["runs"] = runs(row["text"], [one for one in sentences if one["response_id"] == row["response_id"]])
        return viewer.page(
            request,
            "question.html",
            prompt=prompt,
            candidates=shown,
            total=len(found),
            pages=paging(number, len(found), PAGE, request.url.path),
            score_name=viewer.recipe.selection.score,
            previous=_neighbour(reading, prompt, "<", "DESC"),
            next=_neighbour(reading, prompt, ">", "ASC"),
        )


def reach(viewer: Viewer, request: Request) -> Response:
    """Part of a page: all that the question touched."""
    with viewer.lake.reading() as reading:
        identity = find_id(reading, "prompt", request.path_params["id"])
        return viewer.page(request, "question_reach.html", below=downstream(reading, identity))


def _candidates(viewer: Viewer, reading: Reading, student: str, prompt: Record) -> list[Record]:
    """All responses of the question, whatever recipe asked for them."""
    params = {
        "id": prompt["prompt_id"],
        "batch": _batch(reading, prompt),
        "student": student,
        "score": viewer.recipe.selection.score,
        "threshold_version": threshold_version(viewer.recipe),
        "filter_version": filter_version(viewer.recipe, student),
    }
    rows = reading.read(_RESPONSES, params).to_dicts()
    verdicts = reading.read(_VERDICTS, params).to_dicts()
    scores = {(row["response_id"], row["score_name"]): row for row in reading.read(_SCORES, params).to_dicts()}
    for row in rows:
        key = row["response_id"]
        row["verdicts"] = [verdict for verdict in verdicts if verdict["response_id"] == key]
        row["score"] = scores.get((key, viewer.recipe.selection.score), {}).get("score")
        row["teacher_share"] = scores.get((key, "teacher_share"), {}).get("score")
    ranked = sorted(rows, key=lambda row: (row["temperature"], row["score"] is None, -(row["score"] or 0.0)))
    places: dict[object, int] = {}
    for row in ranked:
        places[row["temperature"]] = places.get(row["temperature"], 0) + 1
        row["rank"] = places[row["temperature"]] if row["score"] is not None else None
    return ranked


def _batch(reading: Reading, prompt: Record) -> str | None:
    """The question's, which its responses have, too; of a withdrawn one, which has none, theirs."""
    if "batch" in prompt:
        return str(prompt["batch"])
    found = reading.read("SELECT batch FROM responses WHERE prompt_id = $id LIMIT 1", {"id": prompt["prompt_id"]})
    return str(found.item()) if found.height else None


def _sentences(viewer: Viewer, reading: Reading, student: str, rows: list[Record]) -> list[Record]:
    """Of all these responses, which are of one batch: as the question's is."""
    params = {
        "ids": [row["response_id"] for row in rows],
        "batch": rows[0]["batch"] if rows else "",
        "student": student,
        "version": threshold_version(viewer.recipe),
    }
    return reading.read(_SENTENCES, params).to_dicts()


def _neighbour(reading: Reading, prompt: Record, sign: str, order: str) -> str | None:
    """The question landed before or after this one."""
    if "batch" not in prompt:  # withdrawn
        return None
    query = f"""SELECT prompt_id FROM prompts WHERE (batch, source_line, prompt_id) {sign} ($batch, $line, $id)
        ORDER BY batch {order}, source_line {order}, prompt_id {order} LIMIT 1"""
    params = {"batch": prompt["batch"], "line": prompt["source_line"], "id": prompt["prompt_id"]}
    found = reading.read(query, params)["prompt_id"].to_list()
    return place("prompt", found[0]) if found else None


_RESPONSES = """SELECT response_id, batch, temperature, sample_index, finish_reason, text, teacher_fingerprint,
    len(token_ids) AS num_tokens, run_id FROM responses WHERE prompt_id = $id AND batch = $batch"""
_OF_QUESTION = """response_id IN (SELECT response_id FROM responses WHERE prompt_id = $id AND batch = $batch)
    AND batch = $batch"""
_VERDICTS = f"""SELECT response_id, filter, passed, kind, reason FROM response_verdicts
    WHERE {_OF_QUESTION} AND filter_version = $filter_version ORDER BY filter"""
_SCORES = f"""SELECT response_id, score_name, score FROM response_scores WHERE {_OF_QUESTION}
    AND student_fingerprint = $student AND threshold_version = $threshold_version
    AND score_name IN ($score, 'teacher_share')"""
_SENTENCES = """SELECT s.response_id, s.sentence_index, s.start, s.stop, s.teacher_prob, s.student_prob,
        s.teacher_num_tokens, s.student_num_tokens, coalesce(t.sentence_type, 'untyped') AS kind
    FROM sentence_probabilities s JOIN sentence_types t USING (response_id, batch, student_fingerprint, sentence_index)
    WHERE s.response_id IN (SELECT unnest($ids::VARCHAR[])) AND s.batch = $batch AND s.student_fingerprint = $student
        AND t.threshold_version = $version
    QUALIFY row_number() OVER (PARTITION BY s.response_id, sentence_index ORDER BY segmenter_version DESC) = 1
    ORDER BY s.response_id, s.sentence_index"""
