"""The sentence table from token lists: M tokens/s of the reduction, and of the whole stage against a per-token loop.

    python bench/bench_sentence_table.py [responses]

Responses of 2,000 to 8,000 tokens of reasoning text, with other tokens for the student. The loop does the stage's work,
reading and committing included, token by token on Python lists. As one would write it without us, it splits with pySBD;
with our scanner, it must end with the same table. CPU seconds of one thread: others may use the machine.
"""

import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate, pairwise
from pathlib import Path

os.environ["POLARS_MAX_THREADS"] = "1"

import numpy as np
import polars as pl
import pysbd
from polars.testing import assert_frame_equal
from results import against, table

from dasd_assets.rules.scores import response_scores, sentence_type
from dasd_assets.rules.sentences import SEGMENTER_VERSION, Span, bodies, edges, sentence_spans
from dasd_assets.sentence_probabilities import write_sentences
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.warehouse import Row, Warehouse

Splitter = Callable[[str], list[Span]]

TEXTS = Path(__file__).parents[1] / "tests" / "data" / "sentences"
PYSBD = pysbd.Segmenter(language="en", clean=False)
PYSBD_SHARE = 20  # it splits one response in so many: all of them would take minutes
READ = """SELECT r.response_id, r.text, r.logprobs AS teacher_logprobs, r.offsets AS teacher_offsets,
    s.logprobs AS student_logprobs, t.offsets AS student_offsets
    FROM student_logprobs s JOIN responses r USING (response_id) JOIN student_tokens t USING (response_id)"""


def reasoning_text() -> str:
    """The labelled texts, one after the other."""
    files = [TEXTS / name for name in ("dev.jsonl", "heldout.jsonl")]
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    return "\n\n".join("".join(row["sentences"]) for row in rows)


def fill(warehouse: Warehouse, num_responses: int) -> int:
    """Scored responses of a batch; returns the number of their tokens, both models counted."""
    random, source = np.random.default_rng(0), reasoning_text() * 10
    responses: list[Row] = []
    tokenised: list[Row] = []
    scored: list[Row] = []
    for number in range(num_responses):
        num_tokens = int(random.integers(2000, 8001))
        start = int(random.integers(0, len(source) - 4 * num_tokens))
        text = f"<think>\n{source[start : start + 4 * num_tokens]}\n</think>\nThe answer is 7."
        key = {"response_id": f"r{number:06d}", "batch": "b"}
        by_teacher, by_student = (tokens(text, length, random) for length in (num_tokens, num_tokens - 100))
        responses.append({**key, **MADE_BY, **by_teacher, **RESPONSE, "text": text, "seed": number})
        key["student_fingerprint"] = "s"
        scored.append({**key, **MADE_BY, "logprobs": by_student.pop("logprobs")})
        tokenised.append({**key, **by_student, "num_prompt_tokens": 0})
    with warehouse.commit("bench") as transaction:
        transaction.append_missing("prompts", pl.DataFrame([PROMPT]))
        for name, rows in (("responses", responses), ("student_tokens", tokenised), ("student_logprobs", scored)):
            transaction.append_missing(name, pl.DataFrame(rows))
    return sum(len(row["offsets"]) for row in responses + tokenised)


PROMPT = {"prompt_id": "p", "batch": "b", "domain": "math", "question": "q", "source_file": "f", "source_line": 1}
MADE_BY = {"engine": "e", "dtype": "float32"}
RESPONSE = {
    "prompt_id": "p", "temperature": 1.0, "top_p": 1.0, "max_tokens": 8000, "sample_index": 0, "finish_reason": "stop",
    "teacher_fingerprint": "t", "template_version": "v", "tool_call": False,
}  # fmt: skip


def tokens(text: str, num_tokens: int, random: np.random.Generator) -> dict[str, object]:
    starts = np.sort(random.choice(len(text), num_tokens, replace=False)).astype(np.int32)
    logprobs = -random.exponential(0.5, num_tokens).astype(np.float32)
    return {"token_ids": np.zeros(num_tokens, np.int32), "logprobs": logprobs, "offsets": starts}


def loop_sums(text: str, logprobs: list[float], starts: list[int], spans: list[Span]) -> tuple[list[float], list[int]]:
    """Sum and number of the tokens of each sentence, token by token: a token is its first visible character's."""
    sums, counts, sentence = [0.0] * len(spans), [0] * len(spans), 0
    for logprob, start, stop in zip(logprobs, starts, [*starts[1:], len(text)], strict=True):
        decides = start
        while decides < stop and text[decides].isspace():
            decides += 1
        decides = start if decides == stop else decides
        while sentence < len(spans) and decides >= spans[sentence][1]:
            sentence += 1
        if sentence < len(spans) and decides >= spans[sentence][0]:
            sums[sentence] += logprob
            counts[sentence] += 1
    return sums, counts


def by_pysbd(text: str) -> list[Span]:
    """Spans of what pySBD returns, each with the whitespace after it."""
    return [span for start, stop in bodies(text) for span in _tiles(PYSBD.segment(text[start:stop]), start)]


def _tiles(segments: list[str], start: int) -> list[Span]:
    return list(pairwise(accumulate(map(len, segments), initial=start)))


def loop_rows(response: Row, splitter: Splitter) -> list[Row]:
    text, spans = response["text"], splitter(response["text"])
    rows: list[dict[str, object]] = [
        {"sentence_index": i, "start": span[0], "stop": span[1]} for i, span in enumerate(spans)
    ]
    for model in ("teacher", "student"):
        sums, counts = loop_sums(text, response[f"{model}_logprobs"], response[f"{model}_offsets"], spans)
        for row, total, count in zip(rows, sums, counts, strict=True):
            row |= {f"{model}_sum_logprob": total, f"{model}_num_tokens": count}
            row[f"{model}_prob"] = math.exp(total / count) if count else None
    fixed = {"response_id": response["response_id"], "batch": "b", "student_fingerprint": "s"}
    return [{**row, **fixed, "segmenter_version": SEGMENTER_VERSION} for row in rows]


def by_loop(warehouse: Warehouse, splitter: Splitter) -> None:
    rows = [row for response in warehouse.read(READ).iter_rows(named=True) for row in loop_rows(response, splitter)]
    with warehouse.commit("loop") as transaction:
        transaction.append_missing("sentence_probabilities", pl.DataFrame(rows, infer_schema_length=None), "b")


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def reduction() -> tuple[float, float]:
    """M tokens/s of one response of 20,000 tokens, 27 to a sentence, under both models: ours, and the loop's."""
    random = np.random.default_rng(0)
    starts = np.append(0, np.cumsum(random.integers(1, 8, 19_999)))
    text = ("word " * int(starts[-1] // 5 + 1))[: int(starts[-1]) + 4]
    spans = list(pairwise([0, *starts[27::27].tolist(), len(text)]))
    logprobs = -random.exponential(1.0, len(starts)).astype(np.float32)
    where, lists = edges(text, spans), (logprobs.tolist(), starts.tolist())
    assert np.allclose(where.sums(logprobs, starts)[0], loop_sums(text, *lists, spans)[0])
    ours = min(cpu_seconds(lambda: [where.sums(logprobs, starts) for _ in range(200)]) for _ in range(5)) / 200
    loop = min(cpu_seconds(lambda: loop_sums(text, *lists, spans)) for _ in range(5))
    return len(starts) / ours / 1e6, len(starts) / loop / 1e6


def divergence_rate(warehouse: Warehouse) -> float:
    """M sentences/s of types and nine scores."""
    sentences, divergence = warehouse.read("FROM sentence_probabilities"), load_recipe("demo").selection.divergence
    seconds = cpu_seconds(
        lambda: response_scores(sentences.with_columns(sentence_type(divergence).alias("sentence_type")))
    )
    return sentences.height / seconds / 1e6


def stage(work: Callable[[Warehouse], None], num_responses: int) -> tuple[pl.DataFrame, int, float, float]:
    """The table a way of working leaves, tokens, its CPU seconds, and the rate of `divergence` over that table."""
    with tempfile.TemporaryDirectory() as home:
        warehouse = Warehouse(home=home)
        num_tokens = fill(warehouse, num_responses)
        seconds = cpu_seconds(lambda: work(warehouse))
        made = warehouse.read("SELECT * EXCLUDE (run_id) FROM sentence_probabilities ORDER BY ALL")
        return made, num_tokens, seconds, divergence_rate(warehouse)


def main(num_responses: int) -> None:
    ours_reduced, loop_reduced = reduction()
    ours, num_tokens, seconds, rate = stage(lambda w: write_sentences(w, "b", "s", "bench"), num_responses)
    loop, _, loop_seconds, _ = stage(lambda w: by_loop(w, sentence_spans), num_responses)
    assert_frame_equal(ours, loop, rel_tol=0, abs_tol=1e-9)
    few = max(1, num_responses // PYSBD_SHARE)
    _, few_tokens, few_seconds, _ = stage(lambda w: by_loop(w, by_pysbd), few)
    every = texts(num_responses)
    splitting = cpu_seconds(lambda: [sentence_spans(text) for text in every])
    whole, looped, with_pysbd = (
        num_tokens / seconds / 1e6,
        num_tokens / loop_seconds / 1e6,
        few_tokens / few_seconds / 1e6,
    )
    print("## Sentence table\n")
    print(f"{num_responses:,} responses, {num_tokens:,} tokens of both models, {ours.height:,} sentences; one thread,")
    print(
        "CPU seconds. The loop with our scanner makes identical rows, sums to 1e-9; pySBD gets this many responses:",
        few,
    )
    print()
    rows = [
        ["reduction", ours_reduced, "per-token loop", loop_reduced, f"{ours_reduced / loop_reduced:.0f} ×"],
        ["reduction", ours_reduced, "the goal", 80.0, against(ours_reduced / 80, 1)],
        ["read, split, reduce, commit", whole, "per-token loop, our scanner", looped, f"{whole / looped:.1f} ×"],
        ["read, split, reduce, commit", whole, "per-token loop, pySBD", with_pysbd, against(whole / with_pysbd, 10)],
    ]
    print(table(["", "ours, M tokens/s", "other", "M tokens/s", "ratio"], rows))
    print(f"Of the stage's {seconds:.1f} s the scanner takes {splitting:.1f} s. ", end="")
    print(f"Types and nine scores: {rate:.1f} M sentences/s.")


def texts(num_responses: int) -> list[str]:
    with tempfile.TemporaryDirectory() as home:
        warehouse = Warehouse(home=home)
        fill(warehouse, num_responses)
        return warehouse.read("SELECT text FROM responses")["text"].to_list()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
