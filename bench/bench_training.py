"""Training: our child's trainer against plain TRL on the same rows, and packing against padding on two length mixes.

    python bench/bench_training.py [rows]

All run in this process, one thread, in turns. Seconds are those of the CPU, as others may use the machine, of an epoch
with the save at its end; loading a model is not counted. Tokens are real ones, padding is not counted.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from random import Random
from statistics import median

import numpy as np
import polars as pl
import torch
from results import against, table
from transformers.utils.logging import disable_progress_bar, set_verbosity_error
from trl import SFTTrainer

from dasd_resources.chat.tokenizer_files import load_tokenizer
from dasd_resources.demo.examples import teacher_example
from dasd_resources.demo.tiny_models import encode
from dasd_resources.recipe import Training, load_recipe
from dasd_resources.sft.child import sft_config, stage_trainer
from dasd_resources.sft.packing import load_rows
from dasd_resources.sft.trackers import SETTINGS

NUM_ROWS, NUM_ROUNDS, BAR = 1280, 7, 0.97  # Transformers sorts by length in parts of a 64th of the rows, or 50 batches
BATCH = 16
# Made up, to be as skewed as reasoning traces: most are short, a few take most of the tokens. The report gives a mean,
# 17.6 K tokens of 65,536, and no distribution.
LONG_TAILED = {"mean": 4.3, "sigma": 0.9, "most": 1024}
RECIPE = load_recipe("demo")
STUDENT = Path(RECIPE.student.model)
WAYS: dict[str, dict[str, object]] = {
    "padded, any order": {"group_by_length": False},
    "padded, grouped by length": {"group_by_length": True, "group_order": "random"},
    "packed": {"group_by_length": False, "packing": True, "per_device_batch_size": 1},
}


def training(longest: int, **changes: object) -> Training:
    """The demo's training with bins, or rows, of at most so many tokens."""
    settings = {"max_length": longest, "save_every_steps": None, "per_device_batch_size": BATCH, **changes}
    return Training.model_validate({**RECIPE.training.model_dump(), "group_order": "descending", **settings})


def demo_rows(num_rows: int) -> list[list[int]]:
    """Token ids of worked answers as the demo's teacher was trained on."""
    rng = Random(0)
    rows = encode([teacher_example(rng) for _ in range(num_rows)], load_tokenizer(STUDENT).tokenizer)
    return [list(row[0]) for row in rows]


def long_tailed_rows(num_rows: int) -> list[list[int]]:
    """Random token ids, their lengths log-normal."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(LONG_TAILED["mean"], LONG_TAILED["sigma"], num_rows), 16, LONG_TAILED["most"])
    return [rng.integers(8, 250, int(length)).tolist() for length in lengths]


def write(folder: Path, rows: list[list[int]]) -> Path:
    path = folder / "rows.parquet"
    pl.DataFrame({"input_ids": rows, "labels": rows}).cast(pl.List(pl.Int32)).write_parquet(path)
    return path


def cpu_seconds(trainer: SFTTrainer) -> float:
    """Of all its steps, in this process."""
    start = time.process_time()
    trainer.train()
    return time.process_time() - start


def seconds_of_ours(rows: Path, settings: Training) -> tuple[float, float]:
    """Seconds of one epoch, and the share of positions that were padding."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "progress.jsonl").touch()
        (folder / SETTINGS).write_text('{"report_to": []}')
        job = {"training": settings.model_dump(mode="json"), "model": str(STUDENT), "rows": str(rows)}
        trainer = stage_trainer({**job, "epochs": 1, "seed": 42}, folder)
        seconds = cpu_seconds(trainer)
        points = [json.loads(line) for line in (folder / "progress.jsonl").read_text().splitlines()]
        curve = [point for point in points if "loss" in point]
        tokens = np.diff([0, *(point["tokens"] for point in curve)])
        positions = tokens / (1 - np.array([point["padding_share"] for point in curve]))
        return seconds, float(1 - tokens.sum() / positions.sum())


def seconds_of_trl(rows: Path, settings: Training) -> float:
    """Of one epoch by TRL's trainer with the same settings, its own order, and nothing of ours added."""
    with tempfile.TemporaryDirectory() as name:
        dataset = load_rows(rows, settings, Path(name) / "cache")
        config = sft_config(settings, 1, 42, 1, Path(name) / "state")
        tokenizer = load_tokenizer(STUDENT).tokenizer
        return cpu_seconds(SFTTrainer(str(STUDENT), config, train_dataset=dataset, processing_class=tokenizer))


def in_turns(first: Callable[[], float], second: Callable[[], float], rounds: int) -> tuple[float, float, float]:
    """Median seconds of both, and the median of second over first, who begins changing from round to round."""
    pairs = []
    for number in range(rounds):
        if number % 2:
            after = second()
            pairs.append((first(), after))
        else:
            pairs.append((first(), second()))
    return median(a for a, _ in pairs), median(b for _, b in pairs), median(b / a for a, b in pairs)


def against_trl(rows: Path, num_tokens: int) -> list[object]:
    settings = training(RECIPE.training.max_length, group_by_length=False)
    seconds_of_ours(rows, settings), seconds_of_trl(rows, settings)  # what a first run alone does
    ours, plain, ratio = in_turns(
        lambda: seconds_of_ours(rows, settings)[0], lambda: seconds_of_trl(rows, settings), NUM_ROUNDS
    )
    return ["demo rows, padded", num_tokens / ours, num_tokens / plain, against(ratio, BAR)]


def ways(name: str, rows: Path, num_tokens: int, longest: int) -> list[list[object]]:
    """Real tokens/s of every way, the median of three rounds in which they take turns."""
    found: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(3):
        for way, changes in WAYS.items():
            found[way].append(seconds_of_ours(rows, training(longest, **changes)))
    rates = {way: num_tokens / median(seconds for seconds, _ in runs) for way, runs in found.items()}
    slowest = rates["padded, any order"]
    return [[name, way, rates[way], runs[0][1], f"{rates[way] / slowest:.2f} ×"] for way, runs in found.items()]


def main(num_rows: int) -> None:
    torch.set_num_threads(1)
    set_verbosity_error()
    disable_progress_bar()
    mixes = {"demo": (demo_rows(num_rows), 512), "long-tailed": (long_tailed_rows(num_rows), LONG_TAILED["most"])}
    compared, shown, lengths = [], [], []
    for name, (rows, longest) in mixes.items():
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(sys.stderr):  # where the trainers print
            path, sizes = write(Path(folder), rows), [len(row) for row in rows]
            lengths.append(f"{name}: {len(rows):,} rows, median {median(sizes):.0f} tokens, longest {max(sizes):,}")
            compared += [against_trl(path, sum(sizes))] if name == "demo" else []
            shown += ways(name, path, sum(sizes), int(longest))
    print("## Training: our child against plain TRL, packing against padding\n")
    print(f"The demo's student (0.2 M parameters), float32, one thread, batches of {BATCH} rows; CPU seconds.")
    print(f"{'; '.join(lengths)}.\n")
    print(table(["real tokens/s", "ours", "plain TRL", "ratio"], compared))
    print("Packed rows lie in bins as long as the longest row may be. On a CPU, attention under a mask computes a")
    print("whole bin squared, so that long bins may lose what they save; kernels for packed rows do not.\n")
    print(table(["rows", "way", "real tokens/s", "padding", "of padded"], shown))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else NUM_ROWS)
