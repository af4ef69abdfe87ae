"""The stages at shares of the report's size: seconds, peak memory and bytes, how they grow, and what all of it takes.

    python bench/bench_scale.py [share ...] [--minutes M] [--disk GB] [--folder FOLDER]
        # shares in percent of 105,000 questions and 1.68 M candidates; also DASD_SCALE="1 3 10", DASD_SCALE_MINUTES,
        # DASD_SCALE_DISK

Responses of log-normal length (mean 15,700 tokens, as the report's are; deviation 0.8, cut at 65,000) go through the
real assets, one landed file, in batches as the report's recipe makes them. Every step runs in a process of its own,
whose peak is VmHWM and of which CPU seconds count: other work on the machine hardly changes them. Growth is the power
law through the shares, and a step's cost at 100 % its largest one's times the ratio to that power; of one share there
is none. What a process costs that does nothing is taken off first. Left out: models, training.

Every figure is appended to FOLDER/scale.jsonl as it comes. No step is begun that would not end within the minutes, by
the share before, and no share that would not fit on the disk; the next run goes on where one was stopped or killed,
by default if it is of the same commit. A share's home is removed when all its steps are done.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from measurements import Limit, Measurements, default_folder
from results import table
from scale_home import (
    MAINTENANCE,
    MEAN,
    NOTHING,
    NUM_CANDIDATES,
    NUM_QUESTIONS,
    QUESTIONS_PER_BATCH,
    STEPS,
    UNITS,
    do,
    sizes,
)

SHARES = (0.01, 0.03, 0.1)  # percent
BYTES_PER_TOKEN = 30.0  # of a whole home, with training sets that are written again while they are replaced
SPARE = 2e9  # bytes of the disk that stay free
MEMORY_BAR, HOURS_BAR = 64e9, 24.0  # of a step at 100 %: beyond, it has to change first
SIZES = "sizes"
CATALOG = "catalog.sqlite*"


def main(wanted: Sequence[float], folder: Path, limit: Limit, disk: float) -> None:
    settings = {"mean": MEAN, "candidates": NUM_CANDIDATES, "batch": QUESTIONS_PER_BATCH}
    kept, left = Measurements(folder / "scale.jsonl", settings), list[str]()
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


def whole(shares: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """Exponent of the power law through the shares, by least squares of the logarithms, and its value at 100 %."""
    power = 0.0
    if len(shares) > 1:
        power = float(np.polyfit(np.log(shares), np.log(np.maximum(values, 1e-3)), 1)[0])
    return power, values[-1] * (100 / shares[-1]) ** max(power, 0.0)


@dataclass(frozen=True)
class Growth:
    """A step at every share that it was measured at, less what an idle process takes, and at 100 %."""

    step: str
    seconds: dict[float, float]
    peak: float
    exponent: float
    all_seconds: float
    memory_exponent: float
    all_memory: float


def growth(kept: Measurements, step: str) -> Growth:
    shares = shares_of(kept, step)
    figures, idle = ([kept.found[share, name] for share in shares] for name in (step, NOTHING))
    pairs = list(zip(figures, idle, strict=True))
    seconds = [max(one["cpu"] - zero["cpu"], 0.01) for one, zero in pairs]
    peaks = [max(one["peak"] - zero["peak"], 1e6) for one, zero in pairs]
    (exponent, all_seconds), (memory_exponent, memory) = whole(shares, seconds), whole(shares, peaks)
    of_shares = dict(zip(shares, seconds, strict=True))
    return Growth(step, of_shares, figures[-1]["peak"], exponent, all_seconds, memory_exponent, memory)


def page(kept: Measurements, left: Sequence[str]) -> str:
    """The section: steps, bytes, and what would have to change first."""
    shares = sorted({float(str(share)) for share, _ in kept.found})
    sized = {share: kept.found[share, SIZES] for share in shares if (share, SIZES) in kept.found}
    grown = [growth(kept, step) for step in STEPS[1:] if any(name == step for _, name in kept.found)]
    idle = kept.found[shares[-1], NOTHING]
    lines = [
        "## At the report's size: shares of it, and what all of it would take",
        "",
        _counts(sized),
        f"Nothing larger was run. Batches of {QUESTIONS_PER_BATCH} questions; CPU seconds. An idle process takes "
        f"{idle['cpu']:.1f} s and {idle['peak'] / 1e6:,.0f} MB, which is off the seconds, and off the memory that is "
        "extrapolated.",
        "",
        table(_head(shares), [_row(one, shares, sized) for one in grown]),
    ]
    if sized:
        lines += [_bytes(sized), _disk(sized), ""]
    lines += [_first(grown)] + ([f"Left out: {'; '.join(left)}."] if left else [])
    return "\n".join(lines)


def _counts(sized: dict[float, dict[str, float]]) -> str:
    counted = (
        f"{share:g} %: {one['responses']:,.0f} responses, {one['tokens']:,.0f} tokens" for share, one in sized.items()
    )
    return f"{'; '.join(counted) or 'No share was finished'}."


def _head(shares: Sequence[float]) -> list[str]:
    columns = ["step", *(f"{share:g} %, s" for share in shares), "responses/s", "M tokens/s", "exponent", "100 %, h"]
    return [*columns, "peak, MB", "its exponent", "100 %, GB"]


def _row(one: Growth, shares: Sequence[float], sized: dict[float, dict[str, float]]) -> list[object]:
    last = max(one.seconds)
    counts, seconds = sized.get(last), one.seconds[last]
    rates = [counts["responses"] / seconds, counts["tokens"] / seconds / 1e6] if counts else ["", ""]
    times: list[object] = [one.seconds.get(share, "") for share in shares]
    peak = one.peak / 1e6
    if len(one.seconds) < 2:  # what a start costs and what grows cannot be told apart
        return [one.step, *times, *rates, "", "", peak, "", ""]
    memory = [peak, one.memory_exponent, one.all_memory / 1e9]
    return [one.step, *times, *rates, one.exponent, one.all_seconds / 3600, *memory]


def _bytes(sized: dict[float, dict[str, float]]) -> str:
    last = sized[max(sized)]
    rows = [[name, *(one[f"bytes.{name}"] for one in sized.values()), last[f"files.{name}"]] for name in UNITS]
    return table(["bytes of a token (a sentence)", *(f"{share:g} %" for share in sized), "files"], rows)


def _disk(sized: dict[float, dict[str, float]]) -> str:
    share = max(sized)
    each = sum(sized[share][f"bytes.{name}"] for name in ("responses", "student_tokens", "student_logprobs"))
    total = each * sized[share]["tokens"] * 100 / share
    return f"At 100 %, responses with the student's tokens and logprobs: {total / 1e9:,.0f} GB."


def _first(grown: Sequence[Growth]) -> str:
    """What would have to change first, and which step takes longest."""
    grown = [one for one in grown if len(one.seconds) > 1]
    if not grown:
        return "One share says nothing of growth: with a second one, what all of it would take is computed."
    first = [f"{one.step} ({one.all_memory / 1e9:,.0f} GB of memory)" for one in grown if one.all_memory > MEMORY_BAR]
    hours = [one for one in grown if one.all_seconds / 3600 > HOURS_BAR]
    first += [f"{one.step} ({one.all_seconds / 3600:,.0f} hours)" for one in hours]
    longest, total = max(grown, key=lambda one: one.all_seconds), sum(one.all_seconds for one in grown)
    return (
        f"Steps that would take more than {MEMORY_BAR / 1e9:.0f} GB or {HOURS_BAR:.0f} hours in one batch, and so "
        f"would have to change, or be given smaller files, first: {'; '.join(first) or 'none'}. All steps together: "
        f"{total / 3600:,.0f} hours of one process, of which {longest.step} {longest.all_seconds / 3600:,.0f}."
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        do(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("share", type=float, nargs="*")
    parser.add_argument("--minutes", type=float, default=float(os.environ.get("DASD_SCALE_MINUTES", "inf")))
    parser.add_argument("--disk", type=float, default=float(os.environ.get("DASD_SCALE_DISK", "inf")))
    parser.add_argument("--folder", type=Path, default=default_folder("scale"))
    given = parser.parse_args()
    asked = given.share or [float(word) for word in os.environ.get("DASD_SCALE", "").split()] or SHARES
    given.folder.mkdir(parents=True, exist_ok=True)
    main(asked, given.folder, Limit(given.minutes), given.disk)
