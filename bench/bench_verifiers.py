"""Verdicts per second of `math`, beside math-verify called in this process; and our labelled pairs that each gets.

Wall clock, in one run on one machine, best of several: the ratios are what counts. Every answer is a short text with
one box. Each expression is new to the process, so that no cache of math-verify's or ours answers, but where the table
says so.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

from math_verify import parse
from math_verify import verify as math_verify
from results import against, table

from dasd_resources.machine import num_cores
from dasd_resources.verifiers.catalogue import VERIFIER_VERSION, verify
from dasd_resources.verifiers.in_order import in_order
from dasd_resources.verifiers.judgement import Asked
from dasd_resources.verifiers.math_text import words
from dasd_resources.verifiers.verdict_cache import VERDICTS

PAIRS = Path(__file__).parents[1] / "tests" / "data" / "verifiers" / "math_pairs.json"
NUM_PAIRS = 300
RUNS = 3
Pair = tuple[str, str]  # reference, answer


def ours(pair: Pair) -> bool:
    return verify("math", pair[1], Asked("q", pair[0], "{}")).outcome == "correct"


def theirs(pair: Pair) -> bool:
    return bool(math_verify(parse(delimited(pair[0])), parse(delimited(pair[1]))))


def delimited(text: str) -> str:
    """As math-verify looks for formulas: in dollar signs, where there are no delimiters and no words."""
    return text if "$" in text or "boxed" in text or "\n" in text or words(text) else f"${text}$"


def numbers(run: int) -> list[Pair]:
    """Numbers in several spellings, every other one wrong."""
    first = run * NUM_PAIRS
    return [(str(n), f"So it is $\\boxed{{{n + n % 2:,}}}$.") for n in range(first, first + NUM_PAIRS)]


def roots(run: int) -> list[Pair]:
    """Expressions that only a computer algebra system compares, every other one wrong."""
    first = 2 + run * NUM_PAIRS
    return [
        (f"{n}\\sqrt{{3}}", f"So it is $\\boxed{{\\sqrt{{{3 * n * n + n % 2}}}}}$.")
        for n in range(first, first + NUM_PAIRS)
    ]


def sequentially(judge: Callable[[Pair], bool]) -> Callable[[Sequence[Pair]], list[bool]]:
    return lambda pairs: list(map(judge, pairs))


def in_parallel(pairs: Sequence[Pair]) -> list[bool]:
    return list(in_order(pairs, ours))


def rate(judge: Callable[[Sequence[Pair]], list[bool]], batches: Sequence[list[Pair]]) -> float:
    """Verdicts per second, best of the batches; half of each are to be right."""
    best = 0.0
    for pairs in batches:
        start = time.perf_counter()
        found = judge(pairs)
        best = max(best, len(pairs) / (time.perf_counter() - start))
        assert sum(found) == NUM_PAIRS / 2, sum(found)
    return best


def speed() -> None:
    sequentially(ours)(roots(99)[:1]), sequentially(theirs)(roots(99)[:1])  # loading sympy is no one's verdict
    direct_numbers = rate(sequentially(theirs), [numbers(run) for run in range(RUNS)])
    direct_roots = rate(sequentially(theirs), [roots(run) for run in range(RUNS)])
    rows: list[tuple[str, float, float, float]] = [
        ("numbers", rate(sequentially(ours), [numbers(run) for run in range(RUNS)]), direct_numbers, 10),
        (
            "expressions, one after another",
            rate(sequentially(ours), [roots(r) for r in range(3, 6)]),
            direct_roots,
            1,
        ),
        (f"expressions, {num_cores()} cores", rate(in_parallel, [roots(r) for r in range(6, 9)]), direct_roots, 1.2),
        ("expressions, found before", rate(sequentially(ours), [roots(r) for r in range(6, 9)]), direct_roots, 5),
    ]
    with tempfile.TemporaryDirectory() as home:
        with VERDICTS.kept_in(Path(home)):
            rate(in_parallel, [roots(9)])
        VERDICTS._known.clear()  # as another process never had them
        with VERDICTS.kept_in(Path(home)):
            again = rate(sequentially(ours), [roots(9)])
    rows.append(("expressions, found by another process", again, direct_roots, 2))
    head = ["verdicts per second", f"dasd, verifiers {VERIFIER_VERSION}", "math-verify, in process", "ratio"]
    print(table(head, [(name, own, other, against(own / other, bar)) for name, own, other, bar in rows]))


def agreement() -> None:
    pairs = json.loads(PAIRS.read_text(encoding="utf-8"))
    rows = []
    for name, judge in ((f"dasd, verifiers {VERIFIER_VERSION}", ours), ("math-verify, in process", theirs)):
        taken = {kind: sum(judge((reference, answer)) for reference, answer in pairs[kind]) for kind in pairs}
        rows.append(
            (name, f"{taken['same']} of {len(pairs['same'])}", f"{taken['different']} of {len(pairs['different'])}")
        )
    print(table(["our labelled pairs", "right answers taken", "wrong answers taken"], rows))


def main() -> None:
    print(f"## Verifiers: `math` beside math-verify {version('math-verify')}\n")
    speed()
    agreement()
    print(f"Python {sys.version.split()[0]}; {NUM_PAIRS} pairs a batch, best of {RUNS} batches, none judged twice.")


if __name__ == "__main__":
    main()
