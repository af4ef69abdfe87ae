"""One stage of a student's training, whatever asks for it: the rows it sees, the job, and the rows it leaves.

`sft_examples` of a dataset and policy -> `checkpoints`, `checkpoint_examples`. The stages of the recipe (`training.py`)
and those of experiments (`experiments/checkpoints.py`) are trained by it, and are one where their ids are.
"""

import json
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dasd_assets.records.current_checkpoint import registration_time
from dasd_assets.records.recipe_document import described
from dasd_assets.rules.asset_names import DAS
from dasd_assets.rules.ids import checkpoint_id
from dasd_assets.rules.rule import Rule
from dasd_resources.content_hash import content_hash
from dasd_resources.home import CHECKPOINT_FOLDER
from dasd_resources.recipe import Recipe, Training
from dasd_resources.recipe.parts import deciding
from dasd_resources.sft.checkpoint import Pace, Progress, Trained, put_in_place
from dasd_resources.sft.trackers import FOLDER, Run
from dasd_resources.sft.trainer import SftJob
from dasd_resources.storage.leftovers import SNAPSHOT, pin_snapshot, unfinished_beside
from dasd_resources.storage.spool import in_order
from dasd_resources.storage.warehouse import Warehouse

TRAINING_VERSION = "1"
TRAINING = Rule("training", TRAINING_VERSION, ("training", "seed", "student.dtype"))
ROWS_PER_GROUP = 128  # of 65,536 tokens: 67 MB, which is what a reader of the file holds, several times over
ROWS = pa.schema({"example_id": pa.string(), "input_ids": pa.list_(pa.int32()), "labels": pa.list_(pa.int32())})
Train = Callable[[SftJob, Callable[[Progress | Pace], None]], Trained]


@dataclass(frozen=True)
class Stage:
    """A stage to train: by which recipe, on which dataset, from which model; and the names of its row.

    name, number: of `checkpoints`. policy: of the dataset's rows. parent_id, parent_path: of the model trained from.
    """

    recipe: Recipe
    name: str
    number: int
    dataset: str
    policy: str
    parent_id: str
    parent_path: str


@dataclass(frozen=True)
class Seen:
    """What a stage trains on: (example_id, dataset_id, response_id, continuation_id, prompt_id), and as of when."""

    examples: pl.DataFrame
    snapshot: int

    @property
    def dataset_id(self) -> str:
        return str(self.examples["dataset_id"][0])

    @property
    def example_ids(self) -> list[str]:
        return self.examples["example_id"].to_list()


def training_version(recipe: Recipe, dataset: str) -> str:
    """Identifies everything but data and parent that a checkpoint's weights depend on."""
    settings = {**recipe.parts(*TRAINING.parts), "training": deciding(recipe.training.of(dataset))}
    return content_hash([TRAINING_VERSION, content_hash(settings)[:12], recipe.epochs(dataset)])[:12]


_TRAINED_ON = "sft_examples WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy"


def seen_examples(warehouse: Warehouse, recipe: str, dataset: str, policy: str = DAS) -> Seen:
    """The examples of a dataset as they are now. recipe: its name."""
    query = """SELECT e.example_id, e.dataset_id, e.response_id, e.continuation_id,
            coalesce(r.prompt_id, c.prompt_id) AS prompt_id
        FROM sft_examples e LEFT JOIN responses r ON r.response_id = e.response_id
            LEFT JOIN teacher_continuations c ON c.continuation_id = e.continuation_id
        WHERE e.recipe = $recipe AND e.dataset = $dataset AND e.policy = $policy ORDER BY e.example_id"""
    return Seen(*warehouse.read_latest(query, {"recipe": recipe, "dataset": dataset, "policy": policy}))


def identity(recipe: Recipe, dataset: str, parent_id: str, example_ids: Sequence[str]) -> str:
    """The id of the checkpoint that a stage makes. example_ids: in any order."""
    return checkpoint_id(parent_id, example_ids, training_version(recipe, dataset))


def stage_job(warehouse: Warehouse, stage: Stage, seen: Seen, num_threads: int | None = None) -> SftJob:
    """The job of a stage, its rows written to a file.

    num_threads: of a training beside others, forked as they are; None for one alone, with a thread per core.
    """
    checkpoint = identity(stage.recipe, stage.dataset, stage.parent_id, seen.example_ids)
    folder = Path(warehouse.home) / CHECKPOINT_FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{checkpoint}.rows.parquet"
    pin_snapshot(file, seen.snapshot)
    _write_rows(warehouse, stage, seen, file)
    return SftJob(
        checkpoint_id=checkpoint,
        model=Path(stage.parent_path),
        rows=file,
        training=stage.recipe.training.of(stage.dataset),
        epochs=stage.recipe.epochs(stage.dataset),
        seed=stage.recipe.seed,
        destination=folder / checkpoint,
        num_threads=num_threads,
        run=Run(Path(warehouse.home) / FOLDER, stage.recipe.name, checkpoint),
        record={
            "recipe": described(stage.recipe),
            "parent_checkpoint_id": stage.parent_id,
            "dataset": stage.dataset,
            "dataset_id": seen.dataset_id,
            "snapshot_id": seen.snapshot,
            "training_version": training_version(stage.recipe, stage.dataset),
            "environment": environment() | ({"num_threads": str(num_threads)} if num_threads else {}),
        },
    )


def samples_of_a_step(training: Training, num_samples: int, num_steps: int) -> str:
    """What the log says of a step's samples, where they are counted but come in bins; num_samples: of all epochs.

    A step takes at least one pass of every process, which may hold more samples than the batch was to.
    """
    if not (training.packing and training.batch_counts == "samples"):
        return ""
    return (
        f", each {num_samples / num_steps:,.0f} samples on average (global_batch_size: {training.global_batch_size:,})"
    )


def tracker_faults(trained: Trained) -> list[str]:
    """A line for each tracker that failed while a checkpoint was trained."""
    failed = {name: said for name, said in trained.trackers.items() if said != "ok"}
    return [
        f"{name} failed ({said}) and lacks a part of the training; the checkpoint has all of it"
        for name, said in failed.items()
    ]


def _write_rows(warehouse: Warehouse, stage: Stage, seen: Seen, file: Path) -> None:
    """The examples' tokens in one file, by their ids, whole or not at all.

    A file left by an attempt that was killed is kept: its name holds what is in it, and the trainer resumes only on
    the very bytes it began with.
    """
    if file.is_file():
        return
    unfinished = unfinished_beside(file)  # for another run may train the same stage
    query = f"SELECT example_id, input_ids, labels FROM {_TRAINED_ON}"
    key = {"recipe": stage.recipe.name, "dataset": stage.dataset, "policy": stage.policy}
    ids = seen.examples["example_id"]
    try:
        with (
            warehouse.reading(at=seen.snapshot) as reading,
            in_order(
                reading.stream(query, key, ROWS_PER_GROUP), "example_id", ids, ROWS_PER_GROUP, warehouse.home
            ) as rows,
            pq.ParquetWriter(unfinished, ROWS, compression="zstd") as writer,
        ):
            num_rows = 0
            for part in rows:
                writer.write_table(part.to_arrow().cast(ROWS))
                num_rows += part.height
        assert num_rows == ids.len(), f"{num_rows} of {ids.len()} examples are in the snapshot"
        put_in_place(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)


def register(warehouse: Warehouse, origin: str, stage: Stage, job: SftJob, trained: Trained, seen: Seen) -> int:
    """Write the checkpoint's rows; returns the snapshot that it saw: an earlier one, if it was trained before."""
    snapshot = seen.snapshot
    key = {"checkpoint_id": job.checkpoint_id, "recipe": stage.recipe.name, "name": stage.name}
    row = pl.DataFrame(
        {
            **{name: [value] for name, value in key.items()},
            "stage": [stage.number],
            "parent_checkpoint_id": [stage.parent_id],
            "dataset": [stage.dataset],
            "policy": [stage.policy],
            "dataset_id": [seen.dataset_id],
            "snapshot_id": [snapshot],
            "path": [warehouse.stored_path(trained.path)],
            "content_hash": [trained.content_hash],
            "training_version": [training_version(stage.recipe, stage.dataset)],
            "num_examples": [seen.examples.height],
            "num_steps": [trained.num_steps],
            "seconds": [trained.seconds],
            "final_loss": [trained.losses[-1].loss],
            "recipe_document": [json.dumps(described(stage.recipe), ensure_ascii=False)],
            "environment": [json.dumps(job.record["environment"])],
        }
    )
    trained_on = seen.examples.select(
        "example_id", "prompt_id", "response_id", "continuation_id", checkpoint_id=pl.lit(job.checkpoint_id)
    )
    with warehouse.commit(origin) as transaction:
        known = transaction.read(
            "SELECT snapshot_id FROM checkpoints WHERE checkpoint_id = $id AND dataset_id = $dataset_id",
            {"id": job.checkpoint_id, "dataset_id": seen.dataset_id},
        )
        if not known.is_empty():  # trained before: it saw the rows of that snapshot
            snapshot = int(known["snapshot_id"][0])
            row = row.with_columns(snapshot_id=pl.lit(snapshot))
        at = registration_time(transaction, stage.recipe.name, stage.name)
        transaction.replace("checkpoints", key, row.with_columns(materialized_at=pl.lit(at)))
        transaction.append_missing("checkpoint_examples", trained_on)
    job.rows.unlink(missing_ok=True)
    job.rows.with_suffix(SNAPSHOT).unlink(missing_ok=True)
    return snapshot


def environment() -> dict[str, str]:
    """The versions a checkpoint was trained with, and this code's commit where it runs from a git checkout."""
    packages = ("dasd", "torch", "transformers", "trl", "accelerate", "datasets")
    versions = {"python": platform.python_version(), **{name: version(name) for name in packages}}
    return versions | git_commit(Path(__file__).parents[1])


def git_commit(checkout: Path) -> dict[str, str]:
    """`git_commit` of a checkout, with `+changes` if files differ from it; nothing where there is none, or no git."""
    if not (checkout / ".git").exists():
        return {}
    try:
        described_commit = subprocess.run(
            ["git", "-C", str(checkout), "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+changes"],
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    return {"git_commit": described_commit.stdout.strip()}
