"""Logprobs stored as float32, float16 and 8 bits: bytes of a token, and what the smaller ones change of the selection.

    python bench/bench_logprob_storage.py [questions]

The demo's real models sample and score; then sentence probabilities, types, scores and the selection are computed anew
from logprobs that were stored each way. 8 bits: the logarithm of 1 + 64 · surprise in 256 steps up to 32 nats, finest
near a probability of 1, where most tokens are.
"""

import os
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from results import table

from dasd_assets.commands.console import console
from dasd_assets.commands.run import materialize_selected
from dasd_assets.definitions import build_definitions
from dasd_assets.rules.scores import response_scores, sentence_type
from dasd_assets.rules.sentence_table import sentence_table
from dasd_assets.service.instance import open_instance
from dasd_resources.demo.questions import questions, write_rows
from dasd_resources.home import prepare_home
from dasd_resources.recipe import load_recipe
from dasd_resources.storage.warehouse import Warehouse

NUM_QUESTIONS = 200
NEEDED = (
    "held_out_questions",
    "teacher_model",
    "student_model",
    "prompts",
    "teacher_generations_t060",
    "teacher_generations_t100",
    "student_tokens",
    "response_verdicts",
    "student_logprobs",
)
STEEP, FARTHEST = 64.0, 32.0  # of the 8-bit code; FARTHEST in nats
READ = """SELECT r.response_id, r.prompt_id, r.temperature, r.text, r.logprobs AS teacher_logprobs,
        r.offsets AS teacher_offsets, s.logprobs AS student_logprobs, t.offsets AS student_offsets
    FROM student_logprobs s JOIN responses r USING (response_id) JOIN student_tokens t USING (response_id)
    ORDER BY r.response_id"""
MODELS = ("teacher", "student")


def coded(values: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Way -> what is stored, and what is read again as float32."""
    half = values.astype(np.float16)
    scale = np.log1p(STEEP * FARTHEST)
    byte = np.rint(255 * np.log1p(STEEP * np.clip(-values, 0, FARTHEST)) / scale).astype(np.uint8)
    again = -np.expm1(byte / 255 * scale) / STEEP
    return {
        "float32": (values, values),
        "float16": (half, half.astype(np.float32)),
        "8 bits": (byte, again.astype(np.float32)),
    }


def file_bytes(values: np.ndarray, lengths: np.ndarray, folder: Path) -> int:
    """Of one Parquet column of lists, compressed as the warehouse's are."""
    stops = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    lists = pa.ListArray.from_arrays(pa.array(stops), pa.array(values))
    path = folder / "values.parquet"
    pq.write_table(pa.table({"values": lists}), path, compression="zstd", use_dictionary=values.dtype == np.uint8)
    return path.stat().st_size


def fill(home: Path, num_questions: int) -> pl.DataFrame:
    """Responses of the demo with both models' logprobs."""
    made = load_recipe("demo")
    landed = home / "prompts" / "a.jsonl"
    write_rows(landed, list(islice(questions("prompts"), num_questions)))
    os.utime(landed, (time.time() - 60, time.time() - 60))
    definitions = dg.Definitions.merge(build_definitions(made, home), dg.Definitions(loggers={"console": console}))
    with open_instance(prepare_home(home, None)) as instance:
        materialize_selected(instance, definitions, made, ",".join(NEEDED), home, lambda line: None)
    return Warehouse(home=str(home)).read(READ)


def judged(responses: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame, set[str]]:
    """Typed sentences, the recipe's score of every response, and the best response to each question."""
    made = load_recipe("demo").selection
    sentences = sentence_table(responses).with_columns(sentence_type(made.divergence).alias("sentence_type"))
    scores = response_scores(sentences).filter(pl.col("score_name") == made.score).select("response_id", "score")
    ranked = scores.join(responses.select("response_id", "prompt_id", "temperature"), on="response_id")
    ranked = ranked.sort(["score", "response_id"], descending=[True, False], nulls_last=True)
    best = ranked.unique(["prompt_id", "temperature"], keep="first", maintain_order=True)
    return sentences, scores, set(best["response_id"])


def main(num_questions: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        responses = fill(Path(folder) / "home", num_questions)
        flat = {m: responses[f"{m}_logprobs"].explode().to_numpy().astype(np.float32) for m in MODELS}
        lengths = {m: responses[f"{m}_logprobs"].list.len().to_numpy() for m in MODELS}
        ways = {m: coded(flat[m]) for m in MODELS}
        exact, exact_scores, exact_best = judged(responses)
        rows = []
        for way in ways["teacher"]:
            size = sum(file_bytes(ways[m][way][0], lengths[m], Path(folder)) for m in MODELS)
            read = responses.with_columns(
                pl.Series(f"{m}_logprobs", np.split(ways[m][way][1], np.cumsum(lengths[m])[:-1])) for m in MODELS
            )
            sentences, scores, best = judged(read)
            wrong = np.concatenate([(sentences[f"{m}_prob"] - exact[f"{m}_prob"]).abs().drop_nulls() for m in MODELS])
            types = sentences["sentence_type"].ne_missing(exact["sentence_type"]).to_numpy().mean()
            moved = (scores["score"] - exact_scores["score"]).abs().max()
            num = sum(len(flat[m]) for m in MODELS)
            others = len(exact_best - best) / len(exact_best)
            rows.append([way, size / num, wrong.mean(), wrong.max(), 100 * types, moved, 100 * others])
    head = ["", "bytes a token", "sentence probability off by, mean", "most", "types changed, %", "score off by, most"]
    print("## Logprobs stored smaller\n")
    print(f"{responses.height:,} responses of the demo's models, {num:,} logprobs, {exact.height:,} sentences.\n")
    print(table([*head, "selected otherwise, %"], rows))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_QUESTIONS)
