"""Explore: all responses, filtered and sorted in SQL, a page at a time, and how they are distributed.

What is asked for stands in the address, so a page can be sent to a colleague. Every count and histogram follows the
filter.
"""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response

from dasd_assets.rules.checkpoints import trained_names
from dasd_assets.rules.filters.catalogue import FILTERS
from dasd_assets.viewer.explore_rows import FOUND, TEACHER_SHARE, ExploreRows
from dasd_assets.viewer.links import asked, page_number, paging
from dasd_assets.viewer.viewer import FRAGMENT, Viewer

PAGE = 50
NUM_BINS = 30
MAX_VALUES = 40  # of a column that are listed
SORTS = {
    "score": "score",
    "length": "length",
    "share": "teacher_share",
    "sentences": "num_sentences",
    "temperature": "temperature",
    "domain": "domain",
    "batch": "batch",
}
VERDICTS = {
    "passed": "passed",
    "failed": "NOT passed",
    "unjudged": "passed IS NULL",
    "right": "correct",
    "wrong": "NOT correct",
}
RANGES = {"score": "score", "length": "length", "share": "teacher_share"}
EQUALS = ("domain", "batch", "temperature", "finish")
_COLUMNS = {"finish": "finish_reason"}


@dataclass(frozen=True)
class Condition:
    """What the address asks for, as SQL over `rows` and its parameters; what a search found is one of them."""

    sql: str
    params: dict[str, object]


def condition(request: Request, rows: ExploreRows) -> Condition:
    """Raises ValueError for a value that is none of those there are."""
    given = {name: value for name, value in request.query_params.items() if value != ""}
    parts, params = ["TRUE"], dict[str, object]()
    for name in EQUALS:
        if name in given:
            parts.append(f"{_COLUMNS.get(name, name)} = ${name}")
            params[name] = float(given[name]) if name == "temperature" else given[name]
    for name, column in RANGES.items():
        for end, sign in (("min", ">="), ("max", "<=")):
            if f"{name}_{end}" in given:
                parts.append(f"{column} {sign} ${name}_{end}")
                params[f"{name}_{end}"] = float(given[f"{name}_{end}"])
    if verdict := given.get("verdict"):
        parts.append(_verdict(verdict))
        params["verdict"] = verdict
    if dataset := given.get("chosen"):
        parts.append("chosen IS NULL" if dataset == "none" else "list_contains(string_split(chosen, ' '), $chosen)")
        params["chosen"] = dataset
    if text := given.get("q", "").strip():
        parts.append(f"response_id IN (SELECT response_id FROM {FOUND})")
        params[FOUND] = rows.search(text)
    return Condition(" AND ".join(parts), params)


def _verdict(name: str) -> str:
    if name in VERDICTS:
        return VERDICTS[name]
    if name in FILTERS:
        return "contains(' ' || failed || ' ', ' ' || $verdict || ' ')"
    raise ValueError(f"verdict {name!r} is none of {', '.join([*VERDICTS, *FILTERS])}")


def explore(viewer: Viewer, request: Request) -> Response:
    """The page, or, for htmx, what of it changes with the filter."""
    rows = viewer.rows
    rows.refresh()
    chosen = condition(request, rows)
    query = request.query_params
    number = page_number(query)
    sort = query.get("sort") or "score"
    if sort not in SORTS:
        raise ValueError(f"sort {sort!r} is none of {', '.join(SORTS)}")
    descending = query.get("order", "desc") != "asc"
    total = int(rows.read(f"SELECT count(*) FROM rows WHERE {chosen.sql}", chosen.params).item())
    found = rows.read(
        # First which rows, then what is in them: to sort a million whole rows takes seconds.
        f"""WITH shown AS (
                SELECT rowid AS place, row_number() OVER () AS nth FROM (
                    SELECT rowid FROM rows WHERE {chosen.sql}
                    ORDER BY {SORTS[sort]} {"DESC" if descending else "ASC"} NULLS LAST, rowid
                    LIMIT {PAGE} OFFSET {PAGE * (number - 1)}))
            SELECT rows.* FROM shown JOIN rows ON rows.rowid = shown.place ORDER BY nth""",
        chosen.params,
    ).to_dicts()
    given = {name: value for name, value in query.items() if value != "" and name != "page"}
    ranges = {"score": viewer.recipe.selection.score, "share": "share of teacher sentences", "length": "tokens"}
    if viewer.recipe.selection.score == TEACHER_SHARE:  # both are one column
        del ranges["score"]
    return viewer.page(
        request,
        "explore_results.html" if FRAGMENT in request.headers else "explore.html",
        given=given,
        rows=found,
        total=total,
        **paging(number, total, PAGE, "/explore", **given),
        first=PAGE * (number - 1) + 1,
        sort=sort,
        descending=descending,
        sorts={name: _sorted_by(given, name, sort, descending) for name in SORTS},
        counts={name: _counts(rows, chosen, name, given) for name in ("domain", "batch", "temperature", "finish")},
        verdicts=_verdict_counts(rows, chosen, given),
        ranges=ranges,
        histograms=[_histogram(rows, chosen, name, RANGES[name]) for name in ranges],
        filters=list(FILTERS),
        datasets=dict.fromkeys((*trained_names(viewer.recipe), "none", given.get("chosen", "none"))),
        snapshot=rows.snapshot,
        newest=rows.newest,
    )


def _sorted_by(given: dict[str, str], name: str, sort: str, descending: bool) -> str:
    """The address that sorts by a column; by the other way round where it is sorted by that."""
    order = "asc" if name == sort and descending else "desc"
    return asked("/explore", **{**given, "sort": name, "order": order})


def _counts(rows: ExploreRows, chosen: Condition, name: str, given: dict[str, str]) -> list[dict[str, object]]:
    """How many responses have each value of a column, most first, with the address that asks for it alone."""
    column = _COLUMNS.get(name, name)
    found = rows.read(
        f"""SELECT {column} AS value, count(*) AS num FROM rows WHERE {chosen.sql}
            GROUP BY ALL ORDER BY num DESC, value LIMIT {MAX_VALUES}""",
        chosen.params,
    ).to_dicts()
    for row in found:
        wanted = None if str(row["value"]) == given.get(name) else row["value"]  # asked for already: no more
        row["url"] = asked("/explore", **{**given, name: wanted})
    return found


def _verdict_counts(rows: ExploreRows, chosen: Condition, given: dict[str, str]) -> list[dict[str, object]]:
    """How many passed what the recipe requires, are right, and failed each filter."""
    parts = [f"count(*) FILTER ({sql}) AS {name}" for name, sql in VERDICTS.items()]
    [found] = rows.read(f"SELECT {', '.join(parts)} FROM rows WHERE {chosen.sql}", chosen.params).to_dicts()
    query = f"SELECT failed, count(*) AS num FROM rows WHERE {chosen.sql} AND failed IS NOT NULL GROUP BY failed"
    together = list(rows.read(query, chosen.params).iter_rows())  # few: what is failed together
    found |= {name: sum(num for failed, num in together if name in failed.split(" ")) for name in FILTERS}
    return [
        {
            "value": name,
            "num": num,
            "url": asked("/explore", **{**given, "verdict": None if given.get("verdict") == name else name}),
        }
        for name, num in found.items()
        if num or name in ("passed", "failed")
    ]


def _histogram(rows: ExploreRows, chosen: Condition, name: str, column: str) -> dict[str, object]:
    """Bins of equal width between least and greatest value: how many right, wrong and unknown answers are in each.

    A single value is a bin of no width.
    """
    where = f"{chosen.sql} AND {column} IS NOT NULL AND isfinite({column}::DOUBLE)"
    found = rows.read(
        f"""WITH these AS (SELECT {column}::DOUBLE AS value, correct FROM rows WHERE {where}),
            ends AS (SELECT min(value) AS low, max(value) AS high FROM these)
        SELECT low, high, least(floor({NUM_BINS} * (value - low) / nullif(high - low, 0)), {NUM_BINS - 1}) AS bin,
            CASE WHEN correct THEN 'right' WHEN NOT correct THEN 'wrong' ELSE 'not judged' END AS verdict,
            count(*) AS num
        FROM these, ends GROUP BY ALL ORDER BY bin, verdict""",
        chosen.params,
    ).to_dicts()
    bars = []
    for row in found:
        width = (row["high"] - row["low"]) / NUM_BINS
        low = row["low"] + width * (row["bin"] or 0)
        bars.append({"low": low, "high": low + width, "verdict": row["verdict"], "num": row["num"]})
    return {"name": name, "bars": bars}
