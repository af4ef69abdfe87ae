"""What a check is: what it looks at, and what it finds; and the limits that several checks share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import dagster as dg
import polars as pl

from dasd_assets.records.markdown import codes
from dasd_assets.rules.candidates import candidate_params
from dasd_assets.rules.filters.catalogue import filter_version
from dasd_resources.inference.engine import PERMANENT
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import MAX_ATTEMPTS
from dasd_resources.storage.warehouse import Warehouse


@dataclass(frozen=True)
class AssetCheckFinding:
    """What a check found: a sentence, and the figures behind it."""

    passed: bool
    message: str  # Markdown, as every description: text of others only as `code`
    figures: Mapping[str, int | float | str]


@dataclass(frozen=True)
class Scope:
    """What a check looks at; `batch` is empty for what is of no batch."""

    warehouse: Warehouse
    engines: Engines
    recipe: Recipe
    batch: str = ""

    def read(self, query: str, **params: object) -> pl.DataFrame:
        known = {
            **candidate_params(self.recipe, self.teacher),
            "temperatures": list(self.recipe.generation.temperatures),
            "filter_version": filter_version(self.recipe, self.student),
        }
        return self.warehouse.read(query, {**known, "student": self.student, "batch": self.batch, **params})

    @property
    def teacher(self) -> str:
        """Its fingerprint."""
        return self.engines.fingerprint(self.recipe.teacher, "teacher.model")

    @property
    def student(self) -> str:
        """The undistilled one's fingerprint."""
        return self.engines.fingerprint(self.recipe.student, "student.model")


@dataclass(frozen=True)
class Check:
    """A check of an asset, by name, and what evaluates it."""

    asset: str
    name: str
    description: str
    evaluate: Callable[[Scope], AssetCheckFinding]

    @property
    def key(self) -> dg.AssetCheckKey:
        return dg.AssetCheckKey(dg.AssetKey(self.asset), self.name)


def share(count: int, total: int, limit: float, what: str, key: str, look: str) -> AssetCheckFinding:
    """Whether `count` of `total` is at most the limit that the recipe sets at `key`; `look` follows where not.

    Of nothing there is no share: the figures lack it, and the check passes.
    """
    found = count / total if total else None
    passed = found is None or found <= limit
    shown = "no share" if found is None else f"{found:.1%}"
    message = f"{count:,} of {total:,} {what} ({shown}; limit {limit:.1%}, recipe key {key})"
    figures = {**({} if found is None else {"share": found}), "limit": limit, "count": count, "total": total}
    return AssetCheckFinding(passed, message if passed else f"{message}. {look}", figures)


ASKED_AGAIN = f"Another run asks again, up to {MAX_ATTEMPTS} times in all, for those that can succeed"


def failed_requests(scope: Scope, table: str, num_failed: int, num_wanted: int) -> AssetCheckFinding:
    """Whether few requests of a table ended without a row, and if not, why they did."""
    query = """SELECT reason, bool_and(list_contains($permanent, kind)) FROM failed_requests
        WHERE asset = $asset AND (batch = $batch OR $batch = '') GROUP BY ALL ORDER BY ALL"""
    stored = dict(scope.read(query, asset=table, permanent=list(PERMANENT)).iter_rows()) if num_failed else {}
    again = "None can succeed until what it asks is another" if stored and all(stored.values()) else ASKED_AGAIN
    look = f"{again}. Reasons, in failed_requests: {codes([*stored][:3]) or 'none stored'}"
    key, limit = "checks.max_failed_request_share", scope.recipe.checks.max_failed_request_share
    return share(num_failed, num_wanted, limit, "requests ended without a row", key, look)
