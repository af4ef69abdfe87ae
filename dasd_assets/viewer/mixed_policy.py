"""Mixed policy (report §5): a rollout of the student, where it was cut, what the teacher wrote on, and its reference.

The two authors are told apart by colour and line; what was cut off is struck out.
"""

from collections.abc import Mapping

from starlette.requests import Request
from starlette.responses import Response

from dasd_assets.audit.prompt import Record, prompt_record
from dasd_assets.audit.response import audit_continuation, rollout_record
from dasd_assets.rules.filters.catalogue import continuation_filter_version, required_filters
from dasd_assets.rules.typed_ids import AuditError
from dasd_assets.viewer.coloured import runs
from dasd_assets.viewer.links import asked, page_number, paging, place
from dasd_assets.viewer.response import by_version
from dasd_assets.viewer.viewer import Viewer
from dasd_resources.storage.lake import Reading
from dasd_resources.storage.tables import measured

PAGE = 50
SHOWN = {
    "all": "TRUE",
    "passed": "passed",
    "failed": "NOT passed",
    "cut": "cut_off",
    "uncut": "NOT cut_off",
}
# A rollout's continuation as the recipe asks for it; where an earlier version of the cuts has left another beside it,
# the one that is judged. It has passed where `mixed_policy_dataset` would accept it.
_CONTINUED = """SELECT c.rollout_id, c.continuation_id, v.passed, v.failed
    FROM (SELECT rollout_id, continuation_id FROM teacher_continuations
            WHERE teacher_fingerprint = $teacher AND temperature = $temperature AND top_p = $top_p
              AND max_response_tokens = $max_tokens) c
        LEFT JOIN (
            SELECT continuation_id, bool_and(passed) AS passed,
                string_agg(filter, ' ' ORDER BY filter) FILTER (NOT passed) AS failed
            FROM continuation_verdicts WHERE filter_version = $filter_version AND list_contains($filters, filter)
            GROUP BY continuation_id HAVING count(*) = len($filters)) v USING (continuation_id)
    QUALIFY row_number() OVER (PARTITION BY c.rollout_id ORDER BY v.passed IS NULL, c.continuation_id) = 1"""
_OF_ROLLOUT = (
    *("rollout_id", "prompt_id", "reference_response_id", "checkpoint_id", "cut_off", "finish_reason"),
    *("reference_num_tokens", "max_tokens"),
)
_ROWS = f"""SELECT r.*, c.continuation_id, c.passed, c.failed
    FROM {measured("student_rollouts", "num_tokens", *_OF_ROLLOUT)} r
        LEFT JOIN ({_CONTINUED}) c USING (rollout_id)"""
_CONTINUATION_OF = "SELECT continuation_id FROM teacher_continuations WHERE rollout_id = $id ORDER BY ALL"
_REFERENCE = "SELECT text FROM responses WHERE response_id = $id"
_NEXT = {
    "<": "SELECT max(continuation_id) AS id FROM teacher_continuations WHERE continuation_id < $id",
    ">": "SELECT min(continuation_id) AS id FROM teacher_continuations WHERE continuation_id > $id",
}


def mixed_policy(viewer: Viewer, request: Request) -> Response:
    """All rollouts, each once, those first that the teacher continued as the recipe asks."""
    query = request.query_params
    show, number = query.get("show") or "all", page_number(query)
    if show not in SHOWN:
        raise ValueError(f"show {show!r} is none of {', '.join(SHOWN)}")
    params = _params(viewer)
    with viewer.lake.reading() as reading:
        counts_of = ", ".join(f"count(*) FILTER ({sql}) AS {name}" for name, sql in SHOWN.items())
        [counts] = reading.read(f"SELECT {counts_of} FROM ({_ROWS})", params).to_dicts()
        rows = reading.read(
            f"""SELECT * FROM ({_ROWS}) WHERE {SHOWN[show]} ORDER BY continuation_id IS NULL, rollout_id
                LIMIT {PAGE} OFFSET {PAGE * (number - 1)}""",
            params,
        ).to_dicts()
    return viewer.page(
        request,
        "mixed_policy.html",
        rows=rows,
        show=show,
        counts=counts,
        shows={name: asked("/mixed", show=name) for name in SHOWN},
        **paging(number, counts[show], PAGE, "/mixed", show=show),
    )


def _params(viewer: Viewer) -> Mapping[str, object]:
    """The parameters of `_ROWS`."""
    recipe = viewer.recipe
    models = {row["name"]: str(row["checkpoint_id"]) for row in viewer.models()}
    return {
        "teacher": models.get("teacher", ""),
        "temperature": recipe.mixed_policy.continuation_temperature,
        "top_p": recipe.generation.top_p,
        "max_tokens": recipe.generation.max_tokens,
        "filter_version": _filter_version(viewer),
        "filters": list(required_filters(recipe.mixed_policy.require_correct, recipe.filters.required)),
    }


def _filter_version(viewer: Viewer) -> str:
    """By which the recipe's mixture judges."""
    return continuation_filter_version(viewer.recipe, viewer.student() or "")


def continuation(viewer: Viewer, request: Request) -> Response:
    """What both wrote, beside the teacher's own response."""
    identity, version = request.path_params["id"], _filter_version(viewer)
    with viewer.lake.reading() as reading:
        known = "SELECT count(*) FROM teacher_continuations WHERE continuation_id = $id"
        if not reading.read(known, {"id": identity}).item():
            raise AuditError(f"there is no continuation {identity}")
        record = audit_continuation(reading, identity)
        rollout = record["rollout"]
        before, after = (reading.read(_NEXT[sign], {"id": identity}).item() for sign in "<>")
        return viewer.page(
            request,
            "continuation.html",
            record=record,
            verdicts=by_version(record["verdicts"], version),
            made=record["continuation"],
            prompt=record["prompt"],
            rollout=rollout,
            prefix=runs(record["continuation"]["prefix_text"]),
            continued=runs(record["continuation"]["continuation_text"]),
            discarded=_discarded(rollout, record["cut"]),
            reference=_reference(reading, rollout),
            previous=place("continuation", before) if before else None,
            next=place("continuation", after) if after else None,
        )


def rollout(viewer: Viewer, request: Request) -> Response:
    """A rollout that was not cut, or was not continued yet; else where its continuation is."""
    identity = request.path_params["id"]
    with viewer.lake.reading() as reading:
        found = rollout_record(reading, identity)
        if found is None:
            raise AuditError(f"there is no rollout {identity}")
        return viewer.page(
            request,
            "rollout.html",
            rollout=found,
            prompt=prompt_record(reading, found["prompt_id"]),
            text=runs(found["text"]),
            continuations=reading.read(_CONTINUATION_OF, {"id": identity})["continuation_id"].to_list(),
            reference=_reference(reading, found),
        )


def _discarded(rollout: Record | None, cuts: list[Record]) -> str:
    """What the student wrote after the cut."""
    places = [int(row["cut_char"]) for row in cuts if row["cut_char"] is not None]
    return str(rollout["text"])[places[0] :] if rollout and places else ""


def _reference(reading: Reading, rollout: Record | None) -> list[object]:
    """The teacher's own response to the question, against which the rollout's length was measured."""
    if rollout is None:
        return []
    found = reading.read(_REFERENCE, {"id": rollout["reference_response_id"]})["text"].to_list()
    return list(runs(found[0])) if found else []
