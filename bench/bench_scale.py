"""The stages at shares of the report's size: seconds, peak memory and bytes, how they grow, and what all of it takes.

    python bench/bench_scale.py [share ...] [--minutes M] [--disk GB] [--folder FOLDER]
        # shares in percent of 105,000 questions and 1.68 M candidates; also DASD_SCALE="1 3 10", DASD_SCALE_MINUTES,
        # DASD_SCALE_DISK
    python bench/bench_scale.py --write FOLDER/scale.jsonl
        # measures nothing: these figures become docs/scale.jsonl, and the tables of docs/planning.md those of them

Responses of log-normal length (mean 15,700 tokens, as the report's are; deviation 0.8, cut at 65,000) go through the
real assets, one landed file, in batches as the report's recipe makes them. Every step runs in a process of its own,
whose peak is VmHWM and of which CPU seconds count: other work on the machine hardly changes them. What a process costs
that does nothing is taken off. Of what is left, the two smallest shares say what a step costs at any size, the two
largest how the rest grows (`whole`); of one share nothing is said. Left out: models, training.

Every figure is appended to FOLDER/scale.jsonl as it comes. No step is begun that would not end within the minutes, by
the share before, and no share that would not fit on the disk; the next run goes on where one was stopped or killed,
by default if it is of the same commit. A share's home is removed when all its steps are done.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measurements import Limit, Measurements, default_folder
from results import table
from scale_home import (
    AUDIT,
    MAINTENANCE,
    MEAN,
    NOTHING,
    NUM_CANDIDATES,
    NUM_QUESTIONS,
    QUESTIONS_PER_BATCH,
    STEPS,
    TOKENS_PER_SENTENCE,
    UNITS,
    VERIFY,
    do,
    sizes,
)

SHARES = (0.01, 0.03, 0.1)  # percent
BYTES_PER_TOKEN = 50.0  # of a whole home: some 24, and as much again while files that were merged stay beside the new
SPARE = 2e9  # bytes of the disk that stay free
MEMORY_BAR, HOURS_BAR = 64e9, 24.0  # of a step at 100 %: beyond, it has to change first
NOISE = 0.07  # of a step's time: two runs of it lie so far apart
SHORT = 5.0  # seconds: how less than that grows is not seen
SIZES = "sizes"
SETTINGS = {"mean": MEAN, "candidates": NUM_CANDIDATES, "batch": QUESTIONS_PER_BATCH}
LONGEST = 7  # steps that are named
OF_SENTENCES = ("sentence table", "types and scores")  # steps that write a row for each
OF_NO_RESPONSE = ("inputs", AUDIT, VERIFY, MAINTENANCE)  # nor sentence; the others make something of every response
DOCS, PAGE, STORED = Path(__file__).parents[1] / "docs", "planning.md", "scale.jsonl"
BEGIN, END = "<!-- figures: written by bench/bench_scale.py --write -->\n", "<!-- end of figures -->"
CATALOG = "catalog.sqlite*"


def main(wanted: Sequence[float], folder: Path, limit: Limit, disk: float) -> None:
    kept, left = Measurements(folder / STORED, SETTINGS), list[str]()
    for percent in sorted(wanted):
        if (percent, STEPS[-1]) in kept.found:
            continue
        if needed(percent) > min(1e9 * disk, shutil.disk_usage(folder).free - SPARE):
            left.append(f"{percent:g} %, which needs {needed(percent) / 1e9:,.0f} GB of disk")
        elif not run_share(percent, folder, kept, limit):
            left.append(f"what of {percent:g} % and more would not have ended within {limit.minutes:g} minutes")
            break
    print(page(kept, left))


def run_share(percent: float, folder: Path, kept: Measurements, limit: Limit) -> bool:
    """Measure what is left to measure of a share; False if that would take too long."""
    home, num = folder / f"share-{percent:g}" / "home", max(round(NUM_QUESTIONS * percent / 100), 2)
    home.mkdir(parents=True, exist_ok=True)
    for step in STEPS:
        if (percent, step) in kept.found:
            continue
        if not limit.allows(foretold(kept, percent, step)):
            return False
        with undone_by_a_kill(home, step):
            if step == MAINTENANCE:  # which merges the files that are counted
                kept.add(percent, SIZES, **sizes(home, num))
            kept.add(percent, step, **measured(home, num, step))
    shutil.rmtree(home.parent)
    return True


def measured(home: Path, num_questions: int, step: str) -> dict[str, float]:
    """Seconds by the clock and of the CPU, and peak bytes, of one step in a process of its own."""
    command = [sys.executable, __file__, "--step", str(home), str(num_questions), step]
    started, environment = time.perf_counter(), {**os.environ, "DASD_HOME": str(home)}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return {"seconds": time.perf_counter() - started, **json.loads(done.stdout.splitlines()[-1])}


@contextmanager
def undone_by_a_kill(home: Path, step: str) -> Iterator[None]:
    """What a killed step has committed is taken back before it is begun again: it is measured whole, or not."""
    before, partial = home.parent / "before", home.parent / "before.partial"
    if before.is_dir() and (before / "step").read_text() == step:
        for state in (*home.glob(CATALOG), home / "dagster"):
            shutil.rmtree(state) if state.is_dir() else state.unlink(missing_ok=True)
        for saved in (before / "home").iterdir():
            saved.rename(home / saved.name)
    for stale in (before, partial):
        shutil.rmtree(stale, ignore_errors=True)
    (partial / "home").mkdir(parents=True)
    (partial / "step").write_text(step)
    for state in home.glob(CATALOG):
        shutil.copy2(state, partial / "home")
    if (home / "dagster").is_dir():
        shutil.copytree(home / "dagster", partial / "home" / "dagster")
    partial.rename(before)
    yield
    shutil.rmtree(before)


def foretold(kept: Measurements, percent: float, step: str) -> float:
    """Seconds of a step by its largest share so far, as if it grew as the share does."""
    known = shares_of(kept, step)
    return kept.found[max(known), step]["seconds"] * percent / max(known) if known else 0.0


def shares_of(kept: Measurements, step: str) -> list[float]:
    """The shares at which a step was measured, in percent, the smallest first."""
    return sorted(share for share, name in kept.found if name == step and isinstance(share, float))


def needed(percent: float) -> float:
    """Bytes of a home of that share."""
    return 2 * NUM_QUESTIONS * NUM_CANDIDATES * percent / 100 * MEAN * BYTES_PER_TOKEN


def whole(shares: Sequence[float], values: Sequence[float]) -> tuple[float, float, float, float]:
    """What a step costs at any size, the exponent of the rest, and its cost at 100 %: in proportion, by the exponent.

    The fixed cost is where the line through the two smallest shares begins; the exponent is that of the rest between
    the two largest, and 1 of two shares, or of a few seconds. An exponent below 1 is what is left of a fixed cost, or
    another machine's: at 100 % the rest of the largest share grows at least in proportion.
    """
    slope = (values[1] - values[0]) / (shares[1] - shares[0])
    fixed = min(max(values[0] - shares[0] * slope, 0.0), *values)
    before, last = (max(value - fixed, NOISE * value) for value in values[-2:])
    told = len(shares) > 2 and last > SHORT
    exponent = max(math.log(last / before) / math.log(shares[-1] / shares[-2]), 0.0) if told else 1.0
    ratio = 100 / shares[-1]
    return fixed, exponent, fixed + last * ratio, fixed + last * ratio ** max(exponent, 1.0)


def most(shares: Sequence[float], peaks: Sequence[float]) -> float | None:
    """Bytes at 100 %, if they went on growing as between the two largest shares; None if fewer hold a whole batch.

    Within a batch a peak grows with it; what matters at 100 % is what more batches of the same size add.
    """
    held = [
        pair
        for pair in zip(shares, peaks, strict=True)
        if NUM_QUESTIONS * pair[0] / 100 >= (QUESTIONS_PER_BATCH or NUM_QUESTIONS)
    ]
    if len(held) < 2:
        return None
    (before, low), (last, high) = held[-2:]
    return high + max(high - low, 0.0) / (last - before) * (100 - last)


@dataclass(frozen=True)
class Growth:
    """A step at every share that it was measured at: seconds less an idle process's, peak bytes; and at 100 %."""

    step: str
    seconds: dict[float, float]
    peaks: dict[float, float]
    fixed: float
    exponent: float
    all_seconds: float
    all_by_exponent: float
    all_memory: float | None


def growth(kept: Measurements, step: str) -> Growth:
    """Of one share, what is said of the growth is not a number."""
    shares = shares_of(kept, step)
    figures, idle = ([kept.found[share, name] for share in shares] for name in (step, NOTHING))
    seconds = [max(one["cpu"] - zero["cpu"], 0.01) for one, zero in zip(figures, idle, strict=True)]
    peaks = [one["peak"] for one in figures]
    at_all = whole(shares, seconds) if len(shares) > 1 else (math.nan,) * 4
    of_shares, at_shares = (dict(zip(shares, values, strict=True)) for values in (seconds, peaks))
    return Growth(step, of_shares, at_shares, *at_all, most(shares, peaks))


def page(kept: Measurements, left: Sequence[str]) -> str:
    """The section: steps, peaks, bytes, and what would have to change first."""
    lines = ["## At the report's size: shares of it, and what all of it would take", "", tables(kept)]
    return "\n".join(lines + ([f"Left out: {'; '.join(left)}."] if left else []))


def tables(kept: Measurements) -> str:
    """All figures, as they stand in docs/planning.md, too."""
    shares = sorted({float(str(share)) for share, _ in kept.found})
    sized = {share: kept.found[share, SIZES] for share in shares if (share, SIZES) in kept.found}
    grown = [growth(kept, step) for step in STEPS[1:] if any(name == step for _, name in kept.found)]
    idle = kept.found[shares[-1], NOTHING]
    lines = [
        f"{_counts(sized)} Batches of {QUESTIONS_PER_BATCH} questions, one process, CPU seconds, less those of an idle "
        f"process ({idle['cpu']:.1f}). Tokens and rows a second are those of the largest share: all its responses, or "
        f"for the sentence table, types and scores all its sentences (of {TOKENS_PER_SENTENCE:.1f} tokens). *Fixed* is "
        "what a step costs at any size, by the two smallest shares; the exponent is that of the rest, between the two "
        "largest. At 100 % the rest of the largest share is taken in proportion and, where its exponent is above 1, by "
        "that, too.",
        "",
        table(_head(shares), [_row(one, shares, sized) for one in grown]),
        f"Peaks, with the {idle['peak'] / 1e6:,.0f} MB of an idle process. Within one batch they grow with it: what "
        "more batches add is between the two largest shares that hold one. At 100 % they would be at most as shown, "
        "if it were added again and again (what an allocator keeps is not); empty where fewer than two hold one.",
        "",
        table(
            ["peak, MB", *(f"{share:g} %" for share in shares), "100 %, GB"],
            [_peaks(one, shares) for one in grown],
        ),
    ]
    if sized:
        lines += [_bytes(sized)]
    return "\n".join([*lines, _first(grown), *([_disk(sized)] if sized else [])])


def _counts(sized: dict[float, dict[str, float]]) -> str:
    counted = (
        f"{share:g} %: {one['responses']:,.0f} responses, {one['tokens']:,.0f} tokens" for share, one in sized.items()
    )
    return f"{'; '.join(counted) or 'No share was finished'}. Nothing larger was run to its end."


def _head(shares: Sequence[float]) -> list[str]:
    return [
        "step",
        *(f"{share:g} %, s" for share in shares),
        "M tokens/s",
        "rows/s",
        "fixed, s",
        "exponent",
        "100 %, h",
        "by exponent, h",
    ]


def _row(one: Growth, shares: Sequence[float], sized: dict[float, dict[str, float]]) -> list[object]:
    last = max((share for share in one.seconds if share in sized), default=None)
    pace = ["", ""] if last is None else paces(one.step, sized[last], one.seconds[last])
    measured: list[object] = [one.step, *(one.seconds.get(share, "") for share in shares), *pace]
    if len(one.seconds) < 2:  # what a start costs and what grows cannot be told apart
        return [*measured, "", "", "", ""]
    exponent = one.exponent if len(one.seconds) > 2 else ""
    return [*measured, one.fixed, exponent, one.all_seconds / 3600, one.all_by_exponent / 3600]


def paces(step: str, size: dict[str, float], seconds: float) -> list[object]:
    """Millions of tokens, and responses or sentences, of a share in one of so many seconds."""
    rows = size["tokens"] / TOKENS_PER_SENTENCE if step in OF_SENTENCES else size["responses"]
    return [size["tokens"] / seconds / 1e6, "" if step in OF_NO_RESPONSE else rows / seconds]


def _peaks(one: Growth, shares: Sequence[float]) -> list[object]:
    peaks: list[object] = [one.peaks[share] / 1e6 if share in one.peaks else "" for share in shares]
    return [one.step, *peaks, "" if one.all_memory is None else one.all_memory / 1e9]


def _bytes(sized: dict[float, dict[str, float]]) -> str:
    last = sized[max(sized)]
    rows = [[name, *(one[f"bytes.{name}"] for one in sized.values()), last[f"files.{name}"]] for name in UNITS]
    return table(["bytes of a token (a sentence)", *(f"{share:g} %" for share in sized), "files"], rows)


def _disk(sized: dict[float, dict[str, float]]) -> str:
    share = max(sized)
    each = sum(sized[share][f"bytes.{name}"] for name in ("responses", "student_tokens", "student_logprobs"))
    total = each * sized[share]["tokens"] * 100 / share
    return f"Responses with the student's tokens and logprobs would take {total / 1e9:,.0f} GB."


def _first(grown: Sequence[Growth]) -> str:
    """What would have to change first, and which step takes longest."""
    grown = [one for one in grown if len(one.seconds) > 1]
    if not grown:
        return "One share says nothing of growth: with a second one, what all of it would take is computed."
    first = [
        f"{one.step} ({one.all_memory / 1e9:,.0f} GB of memory)"
        for one in grown
        if one.all_memory is not None and one.all_memory > MEMORY_BAR
    ]
    hours = [one for one in grown if one.all_by_exponent / 3600 > HOURS_BAR]
    first += [f"{one.step} ({one.all_by_exponent / 3600:,.0f} hours)" for one in hours]
    longest = sorted(grown, key=lambda one: -one.all_seconds)[:LONGEST]
    total = sum(one.all_seconds for one in grown) / 3600
    steeper = sum(one.all_by_exponent for one in grown) / 3600
    return (
        f"All of it would take one process {total:,.0f} hours in proportion "
        f"({', '.join(f'{one.step} {one.all_seconds / 3600:.1f}' for one in longest)}), and {steeper:,.0f} by the "
        f"exponents. Steps that would take more than "
        f"{MEMORY_BAR / 1e9:.0f} GB or {HOURS_BAR:.0f} hours, and so would have to change first: "
        f"{'; '.join(first) or 'none'}."
    )


def write(figures: Path, docs: Path) -> None:
    """Makes these figures those of the docs, and the tables of its page anew."""
    (docs / STORED).write_text(figures.read_text(encoding="utf-8"), encoding="utf-8")
    (docs / PAGE).write_text(with_tables((docs / PAGE).read_text(encoding="utf-8"), stored(docs)), encoding="utf-8")


def stored(docs: Path) -> Measurements:
    """The figures that the page of the docs is of."""
    return Measurements(docs / STORED, SETTINGS)


def with_tables(text: str, kept: Measurements) -> str:
    """The page with what is between its marks replaced."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{PAGE} has lost its marks {BEGIN!r} and {END!r}"
    return f"{before}{begin}\n{tables(kept)}\n{end}{after}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        do(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("share", type=float, nargs="*")
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("DASD_SCALE_MINUTES", "inf")))
    parser.add_argument("--disk", type=float, default=float(os.environ.get("DASD_SCALE_DISK", "inf")))
    parser.add_argument("--folder", type=Path, default=default_folder("scale"))
    parser.add_argument("--write", type=Path, metavar="FIGURES")
    given = parser.parse_args()
    if given.write:
        write(given.write, DOCS)
        sys.exit()
    asked = given.share or [float(word) for word in os.environ.get("DASD_SCALE", "").split()] or SHARES
    given.folder.mkdir(parents=True, exist_ok=True)
    main(asked, given.folder, Limit(given.minutes), given.disk)
