"""Where each kind of row has its page: in the viewer, and in Dagster's web UI."""

import re
from urllib.parse import quote, urlencode

from markupsafe import Markup, escape

DEFAULT_DAGSTER = "http://127.0.0.1:3000"
ID = re.compile(r"\b([0-9a-f]{32}|[0-9a-f]{16})\b")
PLACES = {
    "prompt": "/question/{}",
    "response": "/response/{}",
    "example": "/example/{}",
    "rollout": "/rollout/{}",
    "continuation": "/continuation/{}",
    "checkpoint": "/checkpoint/{}",
    "answer": "/answer/{}",
    "held_out": "/checkpoints/question/{}",
}


def place(kind: str, identity: object) -> str:
    """The page of a row by its id."""
    return PLACES[kind].format(quote(str(identity), safe=""))


def asked(path: str, **params: object) -> str:
    """A path with a query; parameters that are None or empty are left out."""
    given = {name: value for name, value in params.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def linked(message: str) -> Markup:
    """A message of our own, escaped, with each whole id in it as a link."""
    parts = ID.split(message)  # every second one is an id
    link = '<a class="id" href="{}" title="{}">{}</a>'
    return Markup("").join(
        Markup(link).format(asked("/find", id=part), part, part[:8]) if index % 2 else escape(part)
        for index, part in enumerate(parts)
    )


def dagster_run(dagster: str, run_id: object) -> str:
    """The page of a run."""
    return f"{dagster}/runs/{quote(str(run_id), safe='')}"


def dagster_asset(dagster: str, asset: object) -> str:
    """The page of an asset."""
    return f"{dagster}/assets/{quote(str(asset), safe='')}"
