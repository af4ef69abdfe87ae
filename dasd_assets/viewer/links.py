"""Where each kind of row has its page: in the viewer, and in Dagster's web UI."""

import re
from collections.abc import Mapping, Sequence
from typing import TypedDict
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


class Pages(TypedDict):
    """Where a reader is in a list: page `number` of `num_pages`; previous, next: addresses, None at the ends."""

    number: int
    num_pages: int
    previous: str | None
    next: str | None


class Series(TypedDict):
    """Where a row is among others: the row `number`, from 1, of `total`; previous, next: as of `Pages`."""

    number: int
    total: int
    previous: str | None
    next: str | None


def place(kind: str, identity: object) -> str:
    """The page of a row by its id."""
    return PLACES[kind].format(quote(str(identity), safe=""))


def asked(path: str, /, **params: object) -> str:
    """A path with a query, of whatever names; parameters that are None or empty are left out."""
    given = {name: value for name, value in params.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def page_number(query: Mapping[str, str]) -> int:
    """Which page of a list is asked for, from 1."""
    return max(1, int(query.get("page") or 1))


def paging(number: int, total: int, size: int, path: str, /, **params: object) -> Pages:
    """A page of a list of `total` rows, `size` a page, at this path with these parameters."""
    num_pages = max(1, -(-total // size))
    return {
        "number": number,
        "num_pages": num_pages,
        "previous": asked(path, **params, page=number - 1) if number > 1 else None,
        "next": asked(path, **params, page=number + 1) if number < num_pages else None,
    }


def among(kind: str, ids: Sequence[str], identity: str) -> Series:
    """The place of a row among others of its kind."""
    here = ids.index(identity)
    return {
        "number": here + 1,
        "total": len(ids),
        "previous": place(kind, ids[here - 1]) if here > 0 else None,
        "next": place(kind, ids[here + 1]) if here + 1 < len(ids) else None,
    }


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
