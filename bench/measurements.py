"""What a long bench has measured so far, in a file of JSON lines, so that a stop loses nothing and a rerun goes on."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Measurements:
    """Figures by what they are of. settings: what they were measured with, the first line of the file.

    Raises SystemExit where the file is of other settings: its figures are not comparable.
    """

    path: Path
    settings: Mapping[str, object]
    found: dict[tuple[object, ...], dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        lines = self.path.read_text(encoding="utf-8").splitlines(keepends=True) if self.path.is_file() else []
        whole = [json.loads(line) for line in lines if line.endswith("\n")]  # a kill may leave half a line
        if not whole:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.settings) + "\n", encoding="utf-8")
            return
        if whole[0] != self.settings:
            sys.exit(f"{self.path} was measured with {whole[0]}, not {self.settings}: move it away to measure anew")
        self.found = {tuple(line["of"]): line["figures"] for line in whole[1:]}
        if len(whole) < len(lines):
            self.path.write_text("".join(lines[: len(whole)]), encoding="utf-8")

    def add(self, *of: object, **figures: float) -> None:
        """Keep figures, and say them on stderr."""
        self.found[of] = figures
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"of": of, "figures": figures}) + "\n")
            file.flush()
            os.fsync(file.fileno())
        said = ", ".join(f"{name} {value:,.4g}" for name, value in figures.items())
        print(f"{' '.join(map(str, of))}: {said}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Limit:
    """So many minutes from its making; infinite ones: as long as it takes."""

    minutes: float
    began: float = field(default_factory=time.monotonic)

    def allows(self, seconds: float) -> bool:
        """Whether so many more would still be within it."""
        return time.monotonic() - self.began + seconds <= 60 * self.minutes


def default_folder(bench: str) -> Path:
    """Of a bench and this commit, below the system's folder for temporary files."""
    words = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    commit = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False).stdout.strip() or "unknown"
    return Path(tempfile.gettempdir()) / f"dasd-bench-{bench}-{commit}"
