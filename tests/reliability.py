"""The figures of docs/reliability.md: a drill reports here how many faults it tried, and what became of them.

They are stored in `reliability.json` beside the page, and the table of the page is rewritten from it, where
DASD_RELIABILITY names the folder (`make drill`: docs). Without it a drill only checks and prints its figures.
"""

import json
import os
import subprocess
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE, STORED = "reliability.md", "reliability.json"
BEGIN, END = "<!-- figures: written by make drill -->\n", "<!-- end of figures -->"
HEADER = """\
| drill | faults | seed | tried | survived | detected | silent | seconds | when, commit | run it |
| :-- | :-- | --: | --: | --: | --: | --: | --: | :-- | :-- |
"""
begun = time.monotonic()  # of the running test: set by conftest.py


@dataclass(frozen=True)
class Figures:
    """Of one drill's last run. survived: as if nothing had been. detected: reported, not survived. silent: neither."""

    drill: str
    faults: str
    seed: int | None  # None: every case is tried, none is drawn
    tried: int
    survived: int
    detected: int
    silent: int
    command: str
    note: str
    seconds: int
    date: str
    commit: str


def record(
    drill: str,
    *,
    faults: str,
    seed: int | None,
    tried: int,
    survived: int,
    detected: int,
    silent: int,
    command: str,
    note: str = "",
) -> None:
    """Check and print the figures of a drill that has ended; store them where DASD_RELIABILITY names the folder.

    faults: a phrase. command: runs the drill again. note: what else was measured, a sentence.
    """
    assert tried == survived + detected + silent, (drill, tried, survived, detected, silent)
    seconds, date = round(time.monotonic() - begun), f"{datetime.now(UTC):%Y-%m-%d}"
    figures = Figures(
        drill, faults, seed, tried, survived, detected, silent, command, note, seconds, date, current_commit()
    )
    print(f"\n{drill}: {row(figures)}", flush=True)
    if folder := os.environ.get("DASD_RELIABILITY"):
        store(Path(folder), figures)


def store(folder: Path, figures: Figures) -> None:
    """Replace the former figures of this drill, and rewrite the table of the page."""
    others = [former for former in stored(folder) if former.drill != figures.drill]
    every = sorted([*others, figures], key=lambda one: one.drill)
    (folder / STORED).write_text(json.dumps([asdict(one) for one in every], indent=1) + "\n")
    page = folder / PAGE
    page.write_text(with_table(page.read_text(), every))


def stored(folder: Path) -> list[Figures]:
    """The figures of every drill that has run."""
    file = folder / STORED
    return [Figures(**one) for one in json.loads(file.read_text())] if file.is_file() else []


def with_table(page: str, every: Iterable[Figures]) -> str:
    """The page with the table between its marks replaced, and what was noted below it."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin and end, f"{PAGE} has lost its marks {BEGIN!r} and {END!r}"
    rows = "".join(row(figures) + "\n" for figures in every)
    notes = "".join(f"- *{figures.drill}*: {figures.note}\n" for figures in every if figures.note)
    return f"{before}{begin}\n{HEADER}{rows}\n{notes}{end}{after}"


def row(figures: Figures) -> str:
    """One line of the table."""
    seed = "–" if figures.seed is None else figures.seed
    counts = (figures.tried, figures.survived, figures.detected, figures.silent, figures.seconds)
    cells = (figures.drill, figures.faults, seed, *counts, f"{figures.date}, {figures.commit}", f"`{figures.command}`")
    return f"| {' | '.join(map(str, cells))} |"


def current_commit() -> str:
    """The commit that is tried, with `+` if the code was changed since; empty outside a repository."""
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if head.returncode:
        return ""
    code = ["dasd_assets", "dasd_resources", "tests"]
    changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", *code], cwd=ROOT, check=False).returncode
    return head.stdout.strip() + ("+" if changed else "")
