"""What is out of date, and why."""

from collections.abc import Sequence

from dasd_assets.audit.pages.layout import Rows, section
from dasd_assets.audit.prompt import Record

MAX_LINES = 5  # of one asset that is out of date


def staleness_page(record: Record) -> str:
    """What is out of date: a line per asset and its causes, with the batches they are the same for."""
    assets: dict[str, list[Record]] = {}
    for row in record["stale"]:
        assets.setdefault(row["asset"], []).append(row)
    lines = [f"{asset:<28}{line}" for asset, rows in assets.items() for line in _causes(rows)]
    quarantined = [f"{row['batch']}: {row['reason']}" for row in record["quarantined"]]
    parts = [section(f"Out of date for recipe {record['recipe']}: {len(record['stale'])}", lines)]
    return "\n\n".join([*parts, *([section("Quarantined batches", quarantined)] if quarantined else [])])


def _causes(rows: Rows) -> list[str]:
    """In full where few batches differ in their causes, else by their reasons alone."""
    full = _by_batch(rows, [("; ".join(cause["message"] for cause in row["causes"])) for row in rows])
    if len(full) <= MAX_LINES:
        return full
    return [f"{line} (each in --json)" for line in _by_batch(rows, [row["reason"] for row in rows])]


def _by_batch(rows: Rows, messages: Sequence[str]) -> list[str]:
    groups: dict[str, list[str | None]] = {}
    for row, line in zip(rows, messages, strict=True):
        groups.setdefault(line, []).append(row["batch"])
    return [f"{line}{_batches(named)}" for line, named in groups.items()]


def _batches(named: list[str | None]) -> str:
    known = [batch for batch in named if batch is not None]
    if not known:
        return ""
    return f" [{', '.join(known[:3])}{f', … {len(known)} batches' if len(known) > 3 else ''}]"
