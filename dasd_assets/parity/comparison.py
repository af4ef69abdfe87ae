"""Stored logprobs beside those of another computation: how far they lie apart, and what of it is beyond a limit.

The gate is on the mean and on quantiles. The largest difference is that of one token, and grows with their number: it
is reported with its token, and a limit only where the recipe sets one (float32 recipes do).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from dasd_assets.records.markdown import code, codes
from dasd_resources.inference.engine import Failure, Score, ScoringRequest
from dasd_resources.recipe import Rescoring
from dasd_resources.storage.warehouse import Row


@dataclass(frozen=True)
class StoredLogprobs:
    """Token ids and stored logprobs of a response that are compared, (T,); pieces: the text of each token."""

    response_id: str
    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    pieces: list[str]

    @property
    def request(self) -> ScoringRequest:
        return ScoringRequest(self.response_id, (*self.prompt_ids, *self.token_ids), len(self.prompt_ids))


@dataclass(frozen=True)
class ParityResult:
    """Differences between stored and re-scored logprobs of a sample, in nats.

    table: a row per response with its worst token; the worst response first. p99_difference, p999_difference: of all
    tokens but one in a hundred and in a thousand. bias: the mean signed difference. faults: one message (Markdown, as
    a check's description) for each response that could not be compared.
    """

    table: pl.DataFrame
    num_tokens: int
    mean_difference: float
    p99_difference: float
    p999_difference: float
    max_difference: float
    bias: float
    correlation: float | None
    faults: list[str]

    def violations(self, limits: Rescoring, key: str) -> list[str]:
        """Why the check fails, one message per reason; empty if it passes. key: in the recipe, `parity.teacher` say."""
        return [
            *self.faults,
            *(
                f"{name} difference {value:.4g} nats is above {key}.{setting} {limit:g}"
                for name, value, setting, limit in self._limited(limits)
                if not value <= limit  # unlike value > limit, this is true for NaN
            ),
        ]

    def wider(self, limits: Rescoring) -> dict[str, str | float]:
        """The limits as a recipe has them, with twice what was seen in the place of those that it is above."""
        raised = {
            setting: float(f"{2 * value:.2g}") for _, value, setting, limit in self._limited(limits) if value > limit
        }
        return limits.model_dump(exclude_none=True) | raised

    def _limited(self, limits: Rescoring) -> Iterator[tuple[str, float, str, float]]:
        """Name, value, setting and limit of each difference that has a limit."""
        for name, value, setting, limit in (
            ("mean", self.mean_difference, "max_mean_difference", limits.max_mean_difference),
            ("p99", self.p99_difference, "max_p99_difference", limits.max_p99_difference),
            ("p99.9", self.p999_difference, "max_p999_difference", limits.max_p999_difference),
            ("max", self.max_difference, "max_difference", limits.max_difference),
        ):
            if limit is not None:
                yield name, value, setting, limit

    @property
    def worst(self) -> str:
        """The token with the largest difference, for a message."""
        if self.table.is_empty():
            return "nothing compared"
        row = self.table.row(0, named=True)
        return (
            f"response {row['response_id']}, token {row['token_index']} {code(repr(row['token']))}: "
            f"stored {row['stored']:.4f}, re-scored {row['again']:.4f}"
        )


def compare(stored: Sequence[StoredLogprobs], results: Iterable[Score | Failure]) -> ParityResult:
    """Compare stored with re-scored logprobs; a response without exactly one result of its length is a fault."""
    # 1. Pair each stored response with its result.
    found = {result.request_id: result for result in results}
    faults, rows, before, after = [], [], [], []
    for one in stored:
        result = found.get(one.response_id)
        if isinstance(result, Score) and len(result.logprobs) == len(one.token_ids):
            old, new = np.asarray(one.logprobs, np.float64), np.asarray(result.logprobs, np.float64)
            rows.append(_compared(one, old, new))
            before.append(old)
            after.append(new)
        else:
            faults.append(f"response {one.response_id} was not re-scored: {_reason(result, one)}")
    # 2. Statistics over all tokens of the sample together. Correlation is undefined where one side is constant.
    old, new = (np.concatenate([np.empty(0), *parts]) for parts in (before, after))
    difference = np.abs(new - old)
    return ParityResult(
        table=pl.DataFrame(rows).sort("max_difference", descending=True) if rows else pl.DataFrame(),
        num_tokens=len(old),
        mean_difference=float(difference.mean()) if len(old) else 0.0,
        p99_difference=_quantile(difference, 0.99),
        p999_difference=_quantile(difference, 0.999),
        max_difference=float(difference.max()) if len(old) else 0.0,
        bias=float((new - old).mean()) if len(old) else 0.0,
        correlation=float(np.corrcoef(old, new)[0, 1]) if len(old) > 1 and old.std() > 0 and new.std() > 0 else None,
        faults=faults,
    )


def _quantile(difference: np.ndarray, share: float) -> float:
    """The value that this share of the differences does not exceed; a value that there is, so of few not their largest.

    NaN if any is NaN.
    """
    return float(np.quantile(difference, share, method="lower")) if len(difference) else 0.0


def _compared(one: StoredLogprobs, old: np.ndarray, new: np.ndarray) -> Row:
    difference = np.abs(new - old)
    index = int(difference.argmax())
    return {
        "response_id": one.response_id,
        "num_tokens": len(old),
        "mean_difference": float(difference.mean()),
        "max_difference": float(difference[index]),
        "token_index": index,
        "token": one.pieces[index],
        "stored": float(old[index]),
        "again": float(new[index]),
    }


def _reason(result: Score | Failure | None, one: StoredLogprobs) -> str:
    if result is None:
        return "the engine gave no result"
    if isinstance(result, Failure):
        return codes([result.reason])
    return f"{len(result.logprobs)} logprobs came back for {len(one.token_ids)} tokens"
