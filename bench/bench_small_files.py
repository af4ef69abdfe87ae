"""Many small landed files, good and hostile, through `dasd run` on the fake engine: seconds and memory per batch.

python bench/bench_small_files.py [number of files]
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from conftest import Project, prompt_rows
from results import against, table

from dasd_resources.recipe import load_recipe

NUM_FILES = 58
TARGET_S = 120.0
LOOKS = (10, 30, 56)
MIB = 2**20
MARKS = "a\u0315\u0300" + "\u0315\u0300" * 20_000
# A file of one line each, and never the same twice: what a careless or hostile writer lands.
HOSTILE: tuple[Callable[[int], bytes], ...] = (
    lambda i: b"",
    lambda i: b"\xff\xfe" + str(i).encode(),
    lambda i: b'{"question": "cut off %d' % i,
    lambda i: b"[" * 100_000 + b"%d" % i,
    lambda i: b'{"question": "' + b"x" * (2 * MIB) + b'%d"}' % i,
    lambda i: b'{"question": %d}' % i,
    lambda i: b'{"question": "n", "metadata": {"n": ' + b"9" * 5000 + b"%d}}" % i,
    lambda i: b'{"question": "lone \\ud800 %d"}' % i,
    lambda i: b"x\n" * 2000 + b"%d\n" % i,
    lambda i: f'{{"question": "{i} {MARKS}"}}'.encode(),
)


@dataclass
class Watch:
    """What `dasd run` says, with the time and the memory at each step."""

    started: float = field(default_factory=time.perf_counter)
    steps: list[tuple[float, int, str]] = field(default_factory=list)

    def append(self, line: str) -> None:
        """In place of the list in which a project keeps what is said."""
        if line.startswith("materializing"):
            self.steps.append((time.perf_counter() - self.started, resident_bytes(), line))
            print(f"{self.steps[-1][0]:.0f} s, {self.steps[-1][1] / MIB:.0f} MiB: {line[:60]}", file=sys.stderr)

    @property
    def batches(self) -> list[tuple[float, int]]:
        """Seconds and bytes at the start of each batch, and at the end of the last."""
        first = next(index for index, step in enumerate(self.steps) if "of batch" in step[2])
        last = max(index for index, step in enumerate(self.steps) if "of batch" in step[2])
        return [(seconds, size) for seconds, size, _ in self.steps[first : last + 2]]


def main() -> None:
    num_files = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_FILES
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder) / "home", load_recipe("demo"))
        land(project, num_files)
        watch = Watch()
        project.said = watch  # type: ignore[assignment]
        project.run()
        print(page(watch, num_files, time.perf_counter() - watch.started))


def land(project: Project, num_files: int) -> None:
    """Every second file is a good one of two questions."""
    for index in range(num_files):
        if index % 2:
            project.land(f"good{index:03d}.jsonl", prompt_rows(2 * index, 2 * index + 2))
        else:
            make = HOSTILE[index // 2 % len(HOSTILE)]
            path = project.home / "prompts" / f"hostile{index:03d}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(make(index))
            os.utime(path, (time.time() - 60, time.time() - 60))


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def page(watch: Watch, num_files: int, total: float) -> str:
    batches = watch.batches
    seconds, growth = batches[-1][0] - batches[0][0], batches[-1][1] - batches[0][1]
    looks = [number for number in LOOKS if number < len(batches)]
    rows = [(number, batches[number][0] - batches[0][0], batches[number][1] / MIB) for number in looks]
    return f"""## Small files

{num_files} landed files of a line or two, every second one hostile, through a `dasd run` on the fake engine:
{total:.0f} s with the training, {against(TARGET_S / max(total, 1), 1)}; {len(batches) - 1} batches in {seconds:.0f} s.
Memory grew by {growth / MIB:.0f} MiB.

{table(["batches", "seconds", "resident MiB"], rows)}"""


if __name__ == "__main__":
    main()
