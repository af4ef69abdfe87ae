"""Every filter's verdict on a stored text, as rows of a table of verdicts."""

from collections.abc import Collection, Mapping
from dataclasses import asdict

import polars as pl

from dasd_assets.rules.filters.catalogue import FILTERS, Response, judge
from dasd_assets.rules.verdict import Verdict, not_decided
from dasd_resources.recipe import Filters, Thinking
from dasd_resources.sandbox import USUAL, Confinement
from dasd_resources.storage.lake import Row

VERDICTS_PER_COMMIT = 10_000  # as Python objects 7 MB


def judge_row(
    row: Row,
    filters: Filters,
    known: Collection[str] = (),
    thinking: Thinking = "required",
    confinement: Confinement = USUAL,
) -> dict[str, Verdict]:
    """Every filter's verdict on a row with the fields of `Response`; all fail where the student cannot be asked.

    The row also has what the student's tokens say of that: token_kind and token_reason, or None.
    known: filters whose verdicts there are already. thinking: the recipe's `teacher.thinking`. confinement:
    its `verification.confinement`.
    """
    if row["token_kind"] is not None:
        refused = Verdict(False, row["token_kind"], f"the student cannot be asked: {row['token_reason']}")
        return {name: refused for name in FILTERS if name not in known}
    told = {"asked": None, **row, "thinking": thinking, "confinement": confinement}
    return judge(Response(**{name: told[name] for name in Response.__annotations__}), filters, known)


def verdict_figures(counts: pl.DataFrame) -> dict[str, int]:
    """How many texts each filter fails, and how many answers nobody could judge; as metadata.

    counts: filter, passed, kind, number.
    """
    failed = counts.filter(~pl.col("passed"))
    of_filters = {f"failed_{name}": int(failed.filter(pl.col("filter") == name)["number"].sum()) for name in FILTERS}
    return {**of_filters, **not_decided(dict(counts.group_by("kind").agg(pl.sum("number")).iter_rows()))}


def verdict_rows(key: Row, verdicts: Mapping[str, Verdict], version: str) -> list[Row]:
    """One row per filter, each with the columns of `key`."""
    return [{**key, "filter": name, **asdict(verdict), "filter_version": version} for name, verdict in verdicts.items()]
