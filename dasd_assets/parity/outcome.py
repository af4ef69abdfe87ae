"""What a parity check says of a comparison: whether it passes, the differences, the worst token, and what to do."""

import dagster as dg
import yaml

from dasd_assets.parity.comparison import ParityResult
from dasd_assets.records.markdown import code, table
from dasd_assets.records.table_metadata import Figure, tidy
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.recipe import Rescoring

NUM_WORST = 10  # responses shown in the metadata


def outcome(comparison: ParityResult, limits: Rescoring, role: str, other: PromptedModel) -> dg.AssetCheckResult:
    """role: `teacher` or `student`, as in the recipe's `parity`. other: the model as it scored again."""
    violations = comparison.violations(limits, f"parity.{role}")
    return dg.AssetCheckResult(
        passed=not violations,
        description="; ".join([*violations[:5], f"worst: {comparison.worst}", *_advice(comparison, limits, role)])
        if violations
        else _agreement(comparison),
        metadata=_metadata(comparison, other),
    )


def _advice(comparison: ParityResult, limits: Rescoring, role: str) -> list[str]:
    """What a failed check asks of the user; nothing where no token was compared, as the faults say it then."""
    if comparison.table.is_empty():
        return []
    shown = f"`dasd check` and `dasd audit response {comparison.table.row(0, named=True)['response_id']}` show more"
    if role == "student":
        shown += "; once that is mended, `dasd rescore BATCH` has the student score again"
    wider = comparison.wider(limits)
    if comparison.faults or wider == limits.model_dump(exclude_none=True):
        return [f"no limit mends that: one of the two computations is wrong, and {shown}"]
    line = yaml.safe_dump({role: wider}, default_flow_style=True, sort_keys=False, width=10**6).strip()[1:-1]
    return [
        f"rounding alone has a signed mean near 0 (here {comparison.bias:.2g}): then write "
        f"{code(line)} in the recipe's `parity` and `dasd run`, which makes no row again and "
        f"scores each batch's sample once more; else one of the two computations is wrong, and {shown}"
    ]


def _agreement(comparison: ParityResult) -> str:
    return (
        f"{comparison.num_tokens:,} tokens of {comparison.table.height} responses agree: "
        f"mean difference {comparison.mean_difference:.2g}, p99 {comparison.p99_difference:.2g}, "
        f"max {comparison.max_difference:.2g} nats"
    )


def _metadata(comparison: ParityResult, other: PromptedModel) -> dict[str, Figure]:
    plain = ", one sequence at a time" if ENGINES[other.spec.engine].plain_scoring_options else ""
    correlation = comparison.correlation
    differences: dict[str, Figure] = {
        "mean_difference": tidy(comparison.mean_difference),
        "p99_difference": tidy(comparison.p99_difference),
        "p999_difference": tidy(comparison.p999_difference),
        "max_difference": tidy(comparison.max_difference),
        "mean_signed_difference": tidy(comparison.bias),
        "worst_responses": table(comparison.table.columns, comparison.table.head(NUM_WORST).to_dicts()),
    }
    return {
        "rescored_by": dg.MetadataValue.text(f"{other.spec.engine} in {other.spec.dtype}{plain}"),
        "num_responses": dg.MetadataValue.int(comparison.table.height),
        "num_faults": dg.MetadataValue.int(len(comparison.faults)),
        "num_tokens": dg.MetadataValue.int(comparison.num_tokens),
        **(differences if comparison.num_tokens else {}),  # of no token there is none
        "correlation": dg.MetadataValue.text("undefined" if correlation is None else f"{correlation:.8f}"),
        "worst_token": dg.MetadataValue.text(comparison.worst),
    }
