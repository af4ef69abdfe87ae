"""`dasd compare A B`: how two models differ on the questions that both answered, and how sure that is. Reads only."""

import argparse
import os
from pathlib import Path

from dasd_assets.commands.compared_answers import A, B, Record, compared
from dasd_assets.commands.compared_models import Compared, NoSuchModel, find_model
from dasd_assets.records.wording import with_interval
from dasd_assets.rules.statistics.comparison import OF_ONE_SEED, STATISTICS_VERSION, corrected_p_text, p_text
from dasd_resources.json_text import json_text
from dasd_resources.storage.lake import Lake
from dasd_resources.visible_text import excerpt, show

WIDTH = 15
UNFINISHED = (
    "Those that take long come last and are less often right, so nothing follows from this: finish the evaluation"
)


def command(args: argparse.Namespace) -> int:
    """Print the comparison as a page, or as JSON."""
    lake = Lake(home=str(args.home))
    lake.require()
    with lake.reading() as reading:
        folders = {name: lake.stored_path(Path(os.path.expanduser(name)).resolve()) for name in (args.a, args.b)}
        a, b = (find_model(reading, name, folders[name]) for name in (args.a, args.b))
        if set(a.checkpoints.values()) == set(b.checkpoints.values()):
            raise NoSuchModel(
                f"{args.a} and {args.b} are the same: {', '.join(a.checkpoints.values())}; name two models"
            )
        rows = compared(reading, a, b)
    record = {"a": _named(a), "b": _named(b), "statistics_version": STATISTICS_VERSION, "rows": rows}
    show(json_text(record) if args.json else page(a, b, rows))
    return 0


def _named(of: Compared) -> Record:
    checkpoints = [{"seed": seed, "checkpoint_id": checkpoint} for seed, checkpoint in of.checkpoints.items()]
    return {"name": of.name, "checkpoints": checkpoints}


def page(a: Compared, b: Compared, rows: list[Record]) -> str:
    """One screen: who is compared, then a block per setting and domain."""
    left_out = [
        f"{arm.upper()}  left out is seed {', '.join(map(str, seeds))}, which has no answer: evaluate it"
        for arm, seeds in rows[0]["seeds_left_out"].items()
        if seeds
    ]
    lines = [f"A  {_who(a)}", f"B  {_who(b)}", *left_out, "", *_EXPLAINED]
    for row in rows:
        lines += ["", *_block(row)]
    return "\n".join(lines)


_EXPLAINED = (
    "A less B, paired by question and by seed, with its 95 % interval; detectable: the true difference that such a",
    "comparison finds in 80 of 100 cases (docs/statistics.md).",
)


def _who(of: Compared) -> str:
    if of.is_single:
        return f"{of.name}  checkpoint {of.checkpoints[None]}"
    return f"{of.name}  " + ", ".join(f"seed {seed}: {checkpoint}" for seed, checkpoint in of.checkpoints.items())


def _block(row: Record) -> list[str]:
    where = f", {row['domain']}" if row["domain"] is not None else ""
    asked = f", instruction {excerpt(row['instruction'], 40)}" if row["instruction"] is not None else ""
    seeds = f", {row['num_seeds']} seeds" if row["num_seeds"] > 1 else ""
    title = (
        f"{row['benchmark']}{where}, T={row['temperature']:g} (top-p {row['top_p']:g}, at most {row['max_tokens']:,} "
        f"tokens{asked}): {row['num_questions']:,} questions, {_both(row['num_answers'], ',')} answers{seeds}"
    )
    lines = [
        ("accuracy", _both(row["accuracy"], ".1%")),
        ("difference", _difference(row)),
        ("detectable", _detectable(row)),
        ("better at", f"{_both(row['num_better'], ',')} questions"),
        ("only one right", f"{_both(row['num_only_right'], ',')} questions (at least one answer, the other none)"),
        ("mean tokens", _trait(row, "mean_tokens", ",.0f")),
        ("cut off", _trait(row, "cut_off_rate", ".1%")),
    ]
    if row["num_missing"] and any(row["num_missing"].values()):
        lines.insert(0, ("incomplete", f"{_both(row['num_missing'], ',')} answers are missing. {UNFINISHED}"))
    if any(row["num_failed"].values()):
        lines.append(("failed", f"{_both(row['num_failed'], ',')} requests, which count as wrong answers"))
    left_out = row["num_questions_left_out"]
    if left_out and any(left_out.values()):
        lines.append(("left out", f"{_both(left_out, ',')} questions that the other lacks, or whose judges differ"))
    return [title, *[f"  {label:<{WIDTH}}{text}" for label, text in lines]]


def _both(values: Record, form: str) -> str:
    each = (("A", values[A]), ("B", values[B]))
    return " · ".join(f"{name} {'–' if value is None else format(value, form)}" for name, value in each)


def _trait(row: Record, name: str, form: str) -> str:
    """`A 84 · B 90; -6 [-8, -4]`; no interval where none is known."""
    found = row["trait_differences"][name]
    if found is None:
        return _both(row[name], form)
    return f"{_both(row[name], form)}; {with_interval(found['difference'], found['low'], found['high'], f'+{form}')}"


def _difference(row: Record) -> str:
    if row["low"] is None:
        why = "of a single question" if row["num_questions"] == 1 else "where every question differs alike"
        return f"{row['difference']:+.1%} (no interval: {why} it is not known how much another one would)"
    rows = f"{row['num_corrected']} {'benchmark' if row['domain'] is None else 'domain'} rows"
    p_holm = corrected_p_text(row["p_holm"], row["num_corrected"])
    corrected = f", {p_holm} corrected for the {rows}" if row["num_corrected"] > 1 else ""
    seeds = f"; one seed: {OF_ONE_SEED}" if row["num_seeds"] == 1 else ""
    found = with_interval(row["difference"], row["low"], row["high"], "+.1%")
    return f"{found}, {_p(row['p'])}{corrected}{seeds}"


def _p(p: float) -> str:
    """`p = 0.012`, `p <0.001`."""
    text = p_text(p)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def _detectable(row: Record) -> str:
    if row["minimum_detectable_effect"] is None:
        return "–"
    more = [f"{name} {value:.1%}" for name, value in row["detectable_with"].items() if value is not None]
    return f"{row['minimum_detectable_effect']:.1%}" + (f"; with {', '.join(more)}" if more else "")
