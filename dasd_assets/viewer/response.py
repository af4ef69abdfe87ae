"""A response: its text with each sentence coloured by type, the curve of both models' probabilities, and its whole way.

Its way (why it was chosen or not, what learned from it) is a part that the page asks for when it is shown: ranks are
counted over all responses of its temperature.

The types shown first are the recipe's; the thresholds on the page type the sentences anew from the same sums, in the
browser, and write nothing.
"""

from collections.abc import Sequence

from starlette.requests import Request
from starlette.responses import Response

from dasd_assets.audit.prompt import Record
from dasd_assets.audit.response import audit_selections, learned_from, located, response_record, typed_sentences
from dasd_assets.rules.filters.catalogue import filter_version
from dasd_assets.rules.scores import SCORES, threshold_version
from dasd_assets.viewer.coloured import runs
from dasd_assets.viewer.links import among
from dasd_assets.viewer.viewer import Viewer

SUMS = ("teacher_sum_logprob", "teacher_num_tokens", "student_sum_logprob", "student_num_tokens")
_CANDIDATES = """SELECT response_id FROM responses WHERE prompt_id = $id AND batch = $batch
    ORDER BY temperature, sample_index, response_id"""


def response(viewer: Viewer, request: Request) -> Response:
    """The page of one response."""
    student = viewer.student()
    version = threshold_version(viewer.recipe)
    with viewer.lake.reading() as reading:
        record = response_record(reading, request.path_params["id"])
        siblings = {"id": record["prompt"]["prompt_id"], "batch": record["generation"]["batch"]}
        candidates = reading.read(_CANDIDATES, siblings)["response_id"].to_list()
    sentences = typed_sentences(record["sentences"], student, version)
    verdicts = by_version(record["verdicts"], filter_version(viewer.recipe, student or ""))
    return viewer.page(
        request,
        "response.html",
        response=record,
        made=record["generation"],
        prompt=record["prompt"],
        runs=runs(record["text"], sentences),
        sentences=sentences,
        student=student,
        sums=[[*(row[name] for name in SUMS), row["stop"] - row["start"]] for row in sentences],
        divergence=viewer.recipe.selection.divergence,
        verdicts=verdicts,
        scores=_scores(record["scores"], student, version),
        meanings={name: score.meaning for name, score in SCORES.items()},
        **among("response", candidates, record["response_id"]),
    )


def reach(viewer: Viewer, request: Request) -> Response:
    """Part of a page: why it was chosen or not, and what learned from it."""
    with viewer.lake.reading() as reading:
        key = located(reading, request.path_params["id"])
        selections, learned = audit_selections(reading, key), learned_from(reading, key["id"])
    return viewer.page(request, "response_reach.html", selections=selections, learned=learned)


def selection(viewer: Viewer, request: Request) -> Response:
    """Part of a page: in which datasets a response is, or why not."""
    with viewer.lake.reading() as reading:
        found = audit_selections(reading, located(reading, request.path_params["id"]))
    return viewer.page(request, "selection.html", selections=found)


def by_version(rows: Sequence[Record], version: str) -> dict[str, list[Record]]:
    """Verdicts by this version of the filters, and by earlier ones: `now`, `earlier`."""
    now = [row for row in rows if row["filter_version"] == version]
    return {"now": now, "earlier": [row for row in rows if row["filter_version"] != version]}


def _scores(rows: Sequence[Record], student: str | None, version: str) -> list[Record]:
    """Those by the recipe's rule, else all that there are; `own`: whether it is by that rule."""
    rule = (student, version)
    marked = [{**row, "own": (row["student_fingerprint"], row["threshold_version"]) == rule} for row in rows]
    return [row for row in marked if row["own"]] or marked
