"""The addresses of the viewer, and what is shown where one cannot be answered."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import duckdb
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from dasd_assets.rules.typed_ids import AuditError
from dasd_assets.viewer.access import Access, Guard
from dasd_assets.viewer.answers import answer
from dasd_assets.viewer.checkpoints import checkpoint, checkpoints, held_out_question
from dasd_assets.viewer.experiments import experiments
from dasd_assets.viewer.explore import explore
from dasd_assets.viewer.finding import example, find
from dasd_assets.viewer.leaderboard import leaderboard
from dasd_assets.viewer.mixed_policy import continuation, mixed_policy, rollout
from dasd_assets.viewer.question import question, reach
from dasd_assets.viewer.response import reach as response_reach
from dasd_assets.viewer.response import response, selection
from dasd_assets.viewer.response_tokens import sentence_tokens
from dasd_assets.viewer.viewer import Viewer
from dasd_resources.errors import UserError

STATIC = Path(__file__).parent / "static"
PAGES: dict[str, Callable[[Viewer, Request], Response]] = {
    "/explore": explore,
    "/find": find,
    "/question/{id}": question,
    "/question/{id}/reach": reach,
    "/response/{id}": response,
    "/response/{id}/reach": response_reach,
    "/response/{id}/selection": selection,
    "/response/{id}/sentence/{index:int}": sentence_tokens,
    "/example/{id}": example,
    "/mixed": mixed_policy,
    "/rollout/{id}": rollout,
    "/continuation/{id}": continuation,
    "/checkpoints": checkpoints,
    "/checkpoints/question/{id}": held_out_question,
    "/checkpoint/{id}": checkpoint,
    "/answer/{id}": answer,
    "/experiments": experiments,
    "/leaderboard": leaderboard,
}


def create_app(viewer: Viewer, access: Access) -> Starlette:
    """The web app; every page runs in a thread of its own, as DuckDB reads."""
    return Starlette(
        routes=[
            Route("/", lambda _: RedirectResponse("/explore")),
            *[Route(path, _in_thread(viewer, page)) for path, page in PAGES.items()],
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, access=access)],
        exception_handlers={
            HTTPException: partial(_refuse, viewer, None),
            AuditError: partial(_refuse, viewer, 404),
            UserError: partial(_refuse, viewer, 503),
            OSError: partial(_refuse, viewer, 503),
            duckdb.Error: partial(_refuse, viewer, 503),
            ValueError: partial(_refuse, viewer, 400),
        },
    )


def _in_thread(viewer: Viewer, page: Callable[[Viewer, Request], Response]) -> Callable[[Request], Response]:
    """The page as Starlette calls it: what is no coroutine runs in a thread."""

    def answer(request: Request) -> Response:
        return page(viewer, request)

    return answer


def _refuse(viewer: Viewer, status: int | None, request: Request, error: Exception) -> Response:
    """The page of an error; its message may hold what somebody typed, which is escaped as all else."""
    code = error.status_code if isinstance(error, HTTPException) else status or 500
    message = error.detail if isinstance(error, HTTPException) else str(error)
    return viewer.page(request, "error.html", code, code=code, message=message)
