"""Any id, or its beginning, to the page of what it names; and ids that have no page of their own."""

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dasd_assets.rules.typed_ids import HEX, KINDS, SHORTEST_PREFIX, AuditError
from dasd_assets.viewer.links import asked, place
from dasd_assets.viewer.viewer import Viewer

# In the order in which they are looked through: ids of the recipe's data first.
PLACES = (
    ("response", "responses", "response_id"),
    ("prompt", "prompts", "prompt_id"),
    ("prompt", "withdrawn_prompts", "prompt_id"),
    ("prompt", "prompt_lines", "retired_id"),
    ("checkpoint", "checkpoints", "checkpoint_id"),
    ("rollout", "student_rollouts", "rollout_id"),
    ("continuation", "teacher_continuations", "continuation_id"),
    ("example", "sft_examples", "example_id"),
    ("example", "checkpoint_examples", "example_id"),
    ("answer", "evaluations", "evaluation_id"),
    ("held_out", "benchmark_questions", "question_id"),
)
SHORTEST_ID = min(kind.length for kind in KINDS.values())


def find(viewer: Viewer, request: Request) -> Response:
    """To the page of the row whose id begins with `id`; what begins none is searched for in the texts.

    Raises AuditError where several begin with it, or none does and it is as long as an id.
    """
    given = request.query_params.get("id", "").strip()
    typed = given.lower()
    if HEX.fullmatch(typed) and len(typed) >= SHORTEST_PREFIX:
        with viewer.lake.reading() as reading:
            for kind, table, column in PLACES:
                query = f"SELECT DISTINCT {column} AS id FROM {table} WHERE starts_with({column}, $typed) LIMIT 2"
                found = reading.read(query, {"typed": typed})["id"].to_list()
                if len(found) == 1:
                    return RedirectResponse(place(kind, found[0]), 303)
                if found:
                    raise AuditError(f"several {table} begin with {typed}: type more, or search for it in Explore")
        if len(typed) >= SHORTEST_ID:
            raise AuditError(f"no row of this home has an id that begins with {typed}")
    return RedirectResponse(asked("/explore", q=given), 303)


def example(viewer: Viewer, request: Request) -> Response:
    """To the response or the continuation that a training example is made of."""
    identity = request.path_params["id"]
    query = """SELECT response_id, continuation_id FROM sft_examples WHERE example_id = $id
        UNION ALL SELECT response_id, continuation_id FROM checkpoint_examples WHERE example_id = $id LIMIT 1"""
    rows = viewer.lake.read(query, {"id": identity}).to_dicts()
    if not rows:
        raise AuditError(f"there is no training example {identity}")
    if rows[0]["response_id"] is not None:
        return RedirectResponse(place("response", rows[0]["response_id"]), 303)
    return RedirectResponse(place("continuation", rows[0]["continuation_id"]), 303)
