"""Quality filters (report §6.2): `responses` -> `response_verdicts`; `catalogue` has them all."""

from dasd_assets.rules.filters.catalogue import (
    CORRECTNESS,
    FILTER_VERSION,
    FILTERING,
    FILTERS,
    LIMITS,
    WORK,
    Filter,
    Measure,
    Response,
    continuation_filter_version,
    correctness,
    filter_version,
    judge,
    required_filters,
)
from dasd_assets.rules.filters.form import length, structure, truncation
from dasd_assets.rules.filters.repeats import repetition
from dasd_assets.rules.filters.short_texts import may_repeat

__all__ = [
    "CORRECTNESS",
    "FILTERING",
    "FILTERS",
    "FILTER_VERSION",
    "LIMITS",
    "WORK",
    "Filter",
    "Measure",
    "Response",
    "continuation_filter_version",
    "correctness",
    "filter_version",
    "judge",
    "length",
    "may_repeat",
    "repetition",
    "required_filters",
    "structure",
    "truncation",
]
