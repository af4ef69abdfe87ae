"""A checkpoint: what it descends from and was trained on, and what does not agree with its record."""

from collections.abc import Sequence

import yaml

from dasd_assets.audit.checkpoint import incomplete, several_limits
from dasd_assets.audit.pages.layout import WIDTH, Rows, page, run, section
from dasd_assets.audit.prompt import Record


def checkpoint_page(record: Record) -> str:
    """A checkpoint, what it was trained on, and what does not agree."""
    found: Record | None = record["trained_on"]
    chain: Rows = record["chain"]
    several = several_limits(record["evaluations"])
    lines = [
        ("name", ", ".join(f"{_with_stage(r)} of recipe {r['recipe']}" for r in record["recipes"])),
        ("folder", str(record["path"])),
        ("weights", str(record["content_hash"])),
        ("made", f"{record['materialized_at']:%Y-%m-%d %H:%M} UTC, {run(record)}"),
    ]
    if found is not None:
        lines += [
            ("dataset", f"{record['dataset']}, id {record['dataset_id']}, as of snapshot {record['snapshot_id']}"),
            ("rows", _rows_trained_on(record, found)),
            (
                "training",
                f"settings {record['training_version']}, {record['num_steps']} steps in "
                f"{record['seconds']:.0f} s, final loss {record['final_loss']:.4f}",
            ),
        ]
    faults: Sequence[str] = record["faults"]
    return page(
        f"Checkpoint {record['checkpoint_id']}",
        lines,
        section("Descends from", [f"{r['checkpoint_id']}  {r['name']:<9} {_trained_on(r)}" for r in chain[1:]]),
        section("Environment", [f"{k:<14}{v}" for k, v in (record["environment"] or {}).items()]),
        section("Recipe", _recipe(record["recipe_document"])),
        section(
            "Held-out questions",
            [_accuracy(row, several) for row in record["evaluations"]],
        ),
        section("DISAGREES", faults) if faults else "Everything agrees with its record.",
    )


def _accuracy(row: Record, limits_shown: bool) -> str:
    limits = f"top-p {row['top_p']:g}, at most {row['max_tokens']:,} tokens, " if limits_shown else ""
    accuracy = "not known yet" if row["accuracy"] is None else f"{row['accuracy']:.3f}"
    shown = ", ".join(filter(None, [f"accuracy {accuracy}, {row['num_answers']:,} answers", incomplete(row)]))
    return f"{row['benchmark']}, T={row['temperature']:<4g} {limits}{shown}"


def _with_stage(row: Record) -> str:
    """`t060 (stage 1)`; the name alone of an untrained model."""
    return f"{row['name']} (stage {row['stage']})" if row["stage"] else str(row["name"])


def _trained_on(row: Record) -> str:
    if row["dataset"] is None:
        return "untrained"
    return f"{row['num_examples']:,} examples of {row['dataset']} at snapshot {row['snapshot_id']}"


def _rows_trained_on(record: Record, found: Record) -> str:
    if found["num_examples"] is None:
        return f"{record['num_examples']:,} by the record"
    tokens = "tokens and ids verified" if found["tokens_checked"] else "ids verified (the tokens too with --tokens)"
    return f"{found['num_examples']:,} examples, {found['num_tokens']:,} tokens; {tokens}"


def _recipe(document: object) -> list[str]:
    text = yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=WIDTH - 4, allow_unicode=True)
    return text.splitlines() if document else []
