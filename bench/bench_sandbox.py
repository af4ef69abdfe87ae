"""Programs judged in the sandbox, beside the same verifier without one and a plain subprocess for each test.

python bench/bench_sandbox.py [number of programs]
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from results import against, table

from dasd_resources.sandbox import USUAL, Confinement
from dasd_resources.verifiers.catalogue import verify
from dasd_resources.verifiers.judgement import Asked

NUM_PROGRAMS, NUM_TESTS, NUM_CORES = 60, 10, 2
BAR = 1.0  # the sandbox may not cost more than a Python start for each test does
PROGRAM = "import sys\nn, *values = map(int, sys.stdin.read().split())\nprint(sum(sorted(values)[: n // 2 + 1]))\n"
INPUTS = [f"{n}\n{' '.join(map(str, range(n, 0, -1)))}\n" for n in range(50, 50 + NUM_TESTS)]
OUTPUTS = [f"{sum(range(1, n // 2 + 2))}\n" for n in range(50, 50 + NUM_TESTS)]
REFERENCE = json.dumps({"inputs": INPUTS, "outputs": OUTPUTS})


def main() -> None:
    num_programs = int(sys.argv[1]) if len(sys.argv) > 1 else NUM_PROGRAMS
    ways: dict[str, Callable[[int], bool]] = {
        "subprocess for each test, no sandbox": plain,
        "`code`, `sandbox: unsafe`": lambda number: judged(number, Confinement(unsafe=True)),
        "`code` in the sandbox": lambda number: judged(number, USUAL),
    }
    rates = {name: programs_per_second(way, num_programs) for name, way in ways.items()}
    first, *_, last = rates.values()
    rows = [[name, rate, rate * NUM_TESTS, rate / first] for name, rate in rates.items()]
    print(
        f"## Programs in a sandbox\n\n{num_programs} programs of {NUM_TESTS} tests each, on {NUM_CORES} cores.\n\n"
        + table(["", "programs/s", "tests/s", "× subprocess"], rows)
        + f"\nSandbox beside plain subprocesses: {against(last / first, BAR)}"
    )


def programs_per_second(way: Callable[[int], bool], num_programs: int) -> float:
    start = time.perf_counter()
    with ThreadPoolExecutor(NUM_CORES) as pool:
        assert all(pool.map(way, range(num_programs)))
    return num_programs / (time.perf_counter() - start)


def judged(number: int, confinement: Confinement) -> bool:
    answer = f"```python\n# {number}\n{PROGRAM}```"
    return verify("code", answer, Asked("?", REFERENCE, "{}", confinement=confinement)).outcome == "correct"


def plain(number: int) -> bool:
    """What a harness does without any care: a Python of its own for each test."""
    command = [sys.executable, "-I", "-c", f"# {number}\n{PROGRAM}"]
    return all(
        subprocess.run(command, input=given, capture_output=True, text=True, timeout=10).stdout == expected
        for given, expected in zip(INPUTS, OUTPUTS, strict=True)
    )


if __name__ == "__main__":
    main()
