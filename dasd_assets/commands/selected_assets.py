"""The assets that `--select` names: plain names with `+`, or any other selection of Dagster's.

Those of experiments are left out: their partitions are arms and seeds, and `dasd experiment` makes them.
"""

import re
import warnings
from collections.abc import Set

import dagster as dg
from dagster import DagsterError

from dasd_assets.records.dagster_internals import BaseAssetGraph
from dasd_assets.records.tags import EXPERIMENTS
from dasd_resources.errors import UserError
from dasd_resources.spelling import meant

PLAIN = re.compile(r"\d*\+?(?P<name>[A-Za-z_]\w*)\+?\d*")  # a name, and how much above and below it


class NoSuchAsset(UserError):
    """A selection names no asset; the message says which one was meant, and which there are."""


def chosen_assets(graph: BaseAssetGraph, selection: str) -> Set[dg.AssetKey]:
    """The keys that a selection names, such as `response_scores+` or `a, b`. Raises NoSuchAsset."""
    known = sorted(key.to_user_string() for key in graph.toposorted_asset_keys)
    parts = [part.strip() for part in selection.split(",")]
    names = [found["name"] for part in parts if (found := PLAIN.fullmatch(part))]
    if unknown := [name for name in names if name not in known]:
        close = "".join(meant(name, known) for name in unknown)
        raise NoSuchAsset(f"--select {selection!r}: no asset {', '.join(unknown)}{close or _all(known)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # of `group:…`, which the UI has had for years
            chosen = set[dg.AssetKey]().union(*[dg.AssetSelection.from_string(part).resolve(graph) for part in parts])
    except DagsterError as error:
        reason = str(error).split("\n")[0].rstrip(". ")
        raise NoSuchAsset(
            f"--select {selection!r}: {reason}; write names, 'a,b', or 'a+' for a and all below it{_all(known)}"
        ) from None
    if not chosen:
        raise NoSuchAsset(f"--select {selection!r} names no asset{_all(known)}")
    chosen = {key for key in chosen if graph.get(key).group_name != EXPERIMENTS}
    if not chosen:
        raise NoSuchAsset(f"--select {selection!r} is of experiments alone: `dasd experiment NAME` makes them")
    return chosen


def _all(known: list[str]) -> str:
    return f"; there are: {', '.join(known)}"
