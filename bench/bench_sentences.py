"""Sentence splitting and reduction against the alternatives: F1 on the labelled sets, MB/s, M tokens/s; ratios last.

CPU seconds of one process, best of several: a busy machine blurs them less than the wall clock. The same texts for all,
one document per call. A boundary is the first non-whitespace character of a sentence, so nobody pays for where the
whitespace goes. Chinese text is announced as such to the tools that take a language.
"""

import json
import re
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import accumulate, pairwise
from pathlib import Path
from typing import TypedDict

import numpy as np
import pysbd
import sentencex
from results import against, table
from syntok import segmenter

from dasd_assets.rules.sentences import SEGMENTER_VERSION, Span, edges, sentence_spans, split

LABELLED = Path(__file__).parents[1] / "tests" / "data" / "sentences"
TWO_RULES = re.compile(r"\n+|[.!?]\s+")
PYSBD = {lang: pysbd.Segmenter(language=lang, clean=False, char_span=True) for lang in ("en", "zh")}
Splitter = Callable[[str, str], list[int]]


class Row(TypedDict):
    domain: str
    sentences: list[str]


def by_ours(text: str, lang: str) -> list[int]:
    return [start for start, _ in split(text)]


def by_two_rules(text: str, lang: str) -> list[int]:
    return [0, *(found.end() for found in TWO_RULES.finditer(text))]


def by_pysbd(text: str, lang: str) -> list[int]:
    return [span.start for span in PYSBD[lang].segment(text)]


def by_sentencex(text: str, lang: str) -> list[int]:
    return [0, *accumulate(map(len, sentencex.segment(lang, text)))]


def by_syntok(text: str, lang: str) -> list[int]:
    return [sentence[0].offset for paragraph in segmenter.analyze(text) for sentence in paragraph]


SPLITTERS: dict[str, Splitter] = {
    f"dasd scanner {SEGMENTER_VERSION}": by_ours,
    "two-rule regex": by_two_rules,
    f"pysbd {version('pysbd')}": by_pysbd,
    f"sentencex {version('sentencex')}": by_sentencex,
    f"syntok {version('syntok')}": by_syntok,
}


def rows(name: str) -> list[Row]:
    return [json.loads(line) for line in (LABELLED / f"{name}.jsonl").read_text("utf-8").splitlines()]


def inner(text: str, starts: list[int]) -> set[int]:
    moved = (start + len(text[start:]) - len(text[start:].lstrip()) for start in starts)
    return {start for start in moved if start < len(text)} - {0}


def f1(split_with: Splitter, labelled: list[Row]) -> float:
    hits = wrong = 0
    for row in labelled:
        text = "".join(row["sentences"])
        gold = inner(text, list(accumulate(map(len, row["sentences"]))))
        found = inner(text, split_with(text, "zh" if row["domain"] == "chinese" else "en"))
        hits, wrong = hits + len(gold & found), wrong + len(gold ^ found)
    return 2 * hits / (2 * hits + wrong)


def cpu_seconds(work: Callable[[], object], least: float = 0.3, repeats: int = 5) -> float:
    """Best CPU seconds of one call, each timing long enough for the clock."""
    start = time.process_time()
    work()
    calls = max(1, int(least / max(time.process_time() - start, 1e-6)))
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        for _ in range(calls):
            work()
        best = min(best, (time.process_time() - start) / calls)
    return best


def megabytes_per_second(split_with: Splitter, labelled: list[Row]) -> float:
    texts = [("".join(row["sentences"]), "zh" if row["domain"] == "chinese" else "en") for row in labelled]
    size = sum(len(text.encode()) for text, _ in texts) / 1e6
    return size / cpu_seconds(lambda: [split_with(text, lang) for text, lang in texts])


def bench_split() -> dict[str, float]:
    dev, heldout = rows("dev"), rows("heldout")
    domains = list(dict.fromkeys(row["domain"] for row in dev))
    seen, unseen = (sum(len(row["sentences"]) - 1 for row in data) for data in (dev, heldout))
    print(f"F1 over {seen} boundaries seen while tuning (dev) and {unseen} unseen (held-out, also by domain):\n")
    speeds, scores = {}, []
    for name, split_with in SPLITTERS.items():
        speeds[name] = megabytes_per_second(split_with, dev + heldout)
        sets = [dev, heldout, *([row for row in heldout if row["domain"] == domain] for domain in domains)]
        scores.append([name, *(f"{f1(split_with, labelled):.3f}" for labelled in sets), speeds[name]])
    print(table(["splitter", "dev", "held-out", *domains, "MB/s"], scores))
    return speeds


def loop_sums(text: str, logprobs: list[float], starts: list[int], spans: list[Span]) -> list[float]:
    """The same sums, token by token, without checks; for offsets that are all different and texts that are all body."""
    sums, sentence = [0.0] * len(spans), 0
    for logprob, start, stop in zip(logprobs, starts, [*starts[1:], len(text)], strict=True):
        decides = start
        while decides < stop and text[decides].isspace():
            decides += 1
        decides = start if decides == stop else decides
        while decides >= spans[sentence][1]:
            sentence += 1
        sums[sentence] += logprob
    return sums


def bench_reduce() -> tuple[float, float]:
    """One response of 20,000 tokens, 27 to a sentence: M tokens/s of its sums, edges at hand; ratio to the loop."""
    random = np.random.default_rng(0)
    starts = np.append(0, np.cumsum(random.integers(1, 8, 19_999)))
    text = ("word " * int(starts[-1] // 5 + 1))[: int(starts[-1]) + 4]
    spans = list(pairwise([0, *starts[27::27].tolist(), len(text)]))
    logprobs = -random.exponential(1.0, len(starts)).astype(np.float32)
    where, plain = edges(text, spans), (text, logprobs.tolist(), starts.tolist(), spans)
    assert np.allclose(where.sums(logprobs, starts)[0], loop_sums(*plain))

    def two_models() -> None:
        shared = edges(text, spans)
        for _ in range(2):
            shared.sums(logprobs, starts)

    speeds = {
        "sums, edges at hand": len(starts) / 1e6 / cpu_seconds(lambda: where.sums(logprobs, starts)),
        "edges and sums": len(starts) / 1e6 / cpu_seconds(lambda: edges(text, spans).sums(logprobs, starts)),
        "edges once, two sums": 2 * len(starts) / 1e6 / cpu_seconds(two_models),
        "attribution": len(starts) / 1e6 / cpu_seconds(lambda: where.attribute(starts)),
        "Python loop": len(starts) / 1e6 / cpu_seconds(lambda: loop_sums(*plain)),
    }
    print(table(["reduction, one response of 20,000 tokens", "M tokens/s"], list(speeds.items())))
    return speeds["sums, edges at hand"], speeds["sums, edges at hand"] / speeds["Python loop"]


def bench_long() -> float:
    """MB/s of the canonical split over one long response."""
    text = "<think>\n" + "\n\n".join("".join(row["sentences"]) for row in rows("dev") + rows("heldout")) * 20
    return len(text.encode()) / 1e6 / cpu_seconds(lambda: sentence_spans(text))


def main() -> None:
    print("## Sentences: splitting text, and reducing token logprobs\n")
    speeds = bench_split()
    ours, pysbd_speed = next(iter(speeds.values())), speeds[f"pysbd {version('pysbd')}"]
    tokens, ratio = bench_reduce()
    goals = [
        ["split, MB/s", ours, pysbd_speed, "pysbd", against(ours / pysbd_speed, 50)],
        ["split of one long response, MB/s", bench_long(), 8.0, "the goal", against(bench_long() / 8, 1)],
        ["reduction, M tokens/s", tokens, tokens / ratio, "Python loop", f"{ratio:.0f} ×"],
        ["reduction, M tokens/s", tokens, 80.0, "the goal", against(tokens / 80, 1)],
    ]
    print(table(["", "ours", "other", "which", "ratio"], goals))


if __name__ == "__main__":
    main()
