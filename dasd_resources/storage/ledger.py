"""The ledger: finished rows of expensive work, committed in small transactions, each id at most once.

An asset computes the ids it wants, subtracts those present, and adds each row as it finishes. A crash loses at most
the rows of the last seconds, even if the next row takes hours; a repeated run does only what is missing; if two runs
work on one table at once, each id is committed by one of them.
"""

import logging
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import RLock, Timer
from types import TracebackType
from typing import Self, TypeVar

import polars as pl

from dasd_resources.inference.engine import PERMANENT, Failure
from dasd_resources.interruption import at_interruption
from dasd_resources.storage.tables import declared
from dasd_resources.storage.warehouse import Row, Transaction, Warehouse

Finished = TypeVar("Finished")
MAX_ATTEMPTS = 3  # at one request over all runs; after that it is only tried again by a materialization by hand
OVERFLOW = "context_overflow"  # the permanent failure that depends on more than the request's id: on the engine

log = logging.getLogger(__name__)


@dataclass
class Ledger:
    """Rows of `table`, unique in its key; flushed after `max_rows` rows or `max_seconds` seconds, and on leaving.

    And after `max_values` values in their lists, which wait as arrays: as Python objects they take four times as much.
    """

    warehouse: Warehouse
    table: str
    origin: str
    batch: str | None = None
    max_rows: int = 512  # what a kill can lose: at most 502 in each of 20 kills
    max_seconds: float = 20.0
    max_values: int = 2_000_000  # 16 MB; of 4 M, 2,560 rollouts of 3,000 tokens peaked at 882 MB, of 2 M at 759
    num_added: int = 0
    num_failed: int = 0
    num_retryable: int = 0  # failed, not for good, and tried fewer than MAX_ATTEMPTS times over all runs
    num_overflowed: int = 0  # failed because the engine's context is too short
    _rows: list[Row] = field(default_factory=list)
    _num_values: int = 0
    _failures: list[Failure] = field(default_factory=list)
    _flushed_at: float = field(default_factory=time.monotonic)
    _lock: RLock = field(default_factory=RLock)
    _timer: Timer | None = None  # flushes the waiting rows if no further one comes for max_seconds
    _open: ExitStack = field(default_factory=ExitStack)

    def add(self, row: Row) -> None:
        """Take a finished row; it is durable after the next flush."""
        with self._lock:
            # Not strict: a logprob of exactly 0 may be an integer among floats, all of which are floats then.
            lists = {name: pl.Series(value, strict=False) for name, value in row.items() if isinstance(value, list)}
            self._rows.append({**row, **lists})
            self._num_values += sum(map(len, lists.values()))
            self._flush_if_due()

    def fail(self, failure: Failure) -> None:
        """Store why a request ended without a row, so that nothing is dropped silently."""
        with self._lock:
            self._failures.append(failure)
            self._flush_if_due()

    def collect(self, results: Iterable[Finished | Failure], to_row: Callable[[Finished], Row]) -> None:
        """Add a row for every result as it arrives, or store its failure."""
        for result in results:
            if isinstance(result, Failure):
                self.fail(result)
            else:
                self.add(to_row(result))

    def flush(self) -> None:
        """Commit the rows whose ids are new. A failure stays stored until its id fails or succeeds again."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._rows or self._failures:
                self._commit()
            self._rows, self._failures, self._num_values = [], [], 0
            self._flushed_at = time.monotonic()

    def _commit(self) -> None:
        key = declared(self.table).key[0]  # equals the request's id
        with self.warehouse.commit(self.origin) as transaction:
            rows = pl.DataFrame(self._rows, infer_schema_length=None)
            added = transaction.append_missing(self.table, rows, self.batch)
            failed = self._failed_rows(transaction)
            # A request that has succeeded or failed again loses its old row of `failed_requests`.
            settled = [f.request_id for f in self._failures] + [str(row[key]) for row in self._rows]
            transaction.delete_keys("failed_requests", {"asset": self.table}, "request_id", settled)
            transaction.append_missing("failed_requests", failed)
        self.num_added += added
        self.num_failed += len(self._failures)
        self.num_overflowed += sum(failure.kind == OVERFLOW for failure in self._failures)
        if len(failed):
            again = pl.col("kind").is_in(PERMANENT).not_() & (pl.col("num_attempts") < MAX_ATTEMPTS)
            self.num_retryable += failed.filter(again).height

    def _failed_rows(self, transaction: Transaction) -> pl.DataFrame:
        """Rows of `failed_requests`, each with the number of attempts at it: one, where that one settled it."""
        now, ids = datetime.now(UTC), [f.request_id for f in self._failures]
        query = """SELECT request_id, coalesce(num_attempts, 1) FROM failed_requests
            WHERE asset = $asset AND list_contains($ids, request_id)"""
        before = dict(transaction.read(query, {"asset": self.table, "ids": ids}).iter_rows()) if ids else {}
        return pl.DataFrame(
            [
                {
                    "request_id": f.request_id,
                    "asset": self.table,
                    "batch": self.batch,
                    "kind": f.kind,
                    "reason": f.reason.encode("utf-8", "replace").decode(),  # a server may send lone surrogates
                    "failed_at": now,
                    "num_attempts": 1 if f.kind in PERMANENT else before.get(f.request_id, 0) + f.counts,
                }
                for f in self._failures
            ]
        )

    def _flush_if_due(self) -> None:
        is_full = len(self._rows) + len(self._failures) >= self.max_rows or self._num_values >= self.max_values
        if is_full or time.monotonic() - self._flushed_at >= self.max_seconds:
            self.flush()
        elif self._timer is None:
            self._timer = Timer(self.max_seconds, self._flush_late)
            self._timer.daemon = True
            self._timer.start()

    def _flush_late(self) -> None:
        """Flush on the timer's thread. If that fails the rows stay waiting, and the next flush raises the error."""
        try:
            self.flush()
        except Exception:
            log.warning("rows of %s are not committed yet; they are tried again", self.table, exc_info=True)

    def __enter__(self) -> Self:
        self._open.enter_context(at_interruption(self.flush))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._open:
            self.flush()


def missing(wanted: Iterable[str], present: Iterable[str]) -> list[str]:
    """The wanted ids that are not present, in their own order."""
    have = set(present)
    return [key for key in wanted if key not in have]
