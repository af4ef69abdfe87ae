"""Student checkpoints (report §3, §6.4.1): stage 1 on the lowest temperature, each later stage from the one before.

`sft_examples` -> `checkpoints`. Every stage starts a fresh optimiser and schedule from its parent's weights; the last
stage trains on the mixed-policy dataset (report §5). A stage whose dataset is empty is skipped, with the reason, and
the next one goes on from the checkpoint before it. A checkpoint's id names its parent, data and settings, so a
checkpoint that exists is never trained again.
"""

import json
import platform
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import dagster as dg
import polars as pl

from dasd_assets.records.current_checkpoint import current_checkpoint
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.loss_curve import loss_curve, throughput, training_curves
from dasd_assets.records.plots import inline, trend
from dasd_assets.records.progress import TrainingLog
from dasd_assets.records.provenance import origin
from dasd_assets.records.recipe_document import described
from dasd_assets.records.table_metadata import audited
from dasd_assets.rules.asset_names import MIXED, checkpoint_asset, dataset_asset, generation_asset, selection_asset
from dasd_assets.rules.checkpoints import CHAIN, checkpoint_names, stage, trained_names
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_assets.rules.ids import checkpoint_id
from dasd_assets.rules.rule import Rule
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.parts import deciding
from dasd_resources.sft.checkpoint import RECORD, Pace, Progress, Trained, epoch_folder
from dasd_resources.sft.trainer import SftJob
from dasd_resources.storage.leftovers import SNAPSHOT, pin_snapshot
from dasd_resources.storage.warehouse import Warehouse

TRAINING_VERSION = "1"
TRAINING = Rule("training", TRAINING_VERSION, ("training", "seed", "student.dtype"))
ROWS_PER_GROUP = 2048  # of 65,536 tokens: 1 GB; DuckDB's default of 122,880 would be 64 GB
Train = Callable[[SftJob, Callable[[Progress | Pace], None]], Trained]


def epochs(recipe: Recipe, dataset: str) -> int:
    """Of the stage that trains on a dataset; the mixed-policy stage's are not those of `training`."""
    return recipe.mixed_policy.epochs if dataset == MIXED else recipe.training.of(dataset).epochs


def training_version(recipe: Recipe, dataset: str) -> str:
    """Identifies everything but data and parent that a checkpoint's weights depend on."""
    settings = {**recipe.parts(*TRAINING.parts), "training": deciding(recipe.training.of(dataset))}
    return content_hash([TRAINING_VERSION, content_hash(settings)[:12], epochs(recipe, dataset)])[:12]


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`checkpoint_t060`, … of the temperatures, and `checkpoint_mixed`."""
    return [_checkpoint(recipe, dataset) for dataset in trained_names(recipe)]


def _generations(recipe: Recipe, dataset: str) -> list[str]:
    """The assets whose responses a dataset may hold."""
    return [generation_asset(recipe.last_dataset if dataset == MIXED else dataset)]


def _continuations(dataset: str) -> list[str]:
    return ["teacher_continuations"] if dataset == MIXED else []


def _checkpoint(recipe: Recipe, dataset: str) -> dg.AssetsDefinition:
    names = checkpoint_names(recipe)
    parent_name = names[names.index(dataset) - 1]
    declared = declare(
        recipe,
        checkpoint_asset(dataset),
        ["checkpoints", "checkpoint_examples"],
        reads={
            "sft_examples": dataset_asset(dataset),
            "checkpoints": checkpoint_asset(parent_name),
            "empty_datasets": (),
        },
        looks_up={"responses": _generations(recipe, dataset), "teacher_continuations": _continuations(dataset)},
        rules=[TRAINING, CHAIN],
        parts=["mixed_policy.epochs"] if dataset == MIXED else [],
        rows=f"name = '{dataset}'",
    )

    @declared.asset(
        group="training_mixed_policy" if dataset == MIXED else "training",
        kinds={"pytorch", "huggingface"},
        pool="engine",
        description=f"One row: the student after stage {stage(recipe, dataset)}: {parent_name}, trained on {dataset}.",
    )
    def checkpoint(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines, train: dg.ResourceParam[Train]
    ) -> dg.MaterializeResult:
        parent = current_checkpoint(warehouse, recipe, parent_name)
        examples, snapshot = _examples(warehouse, recipe, dataset)
        if examples.is_empty():
            return _skipped(warehouse, recipe, dataset, parent, declared)
        job = _job(warehouse, recipe, dataset, parent, examples, snapshot)
        context.log.info(f"{examples.height:,} examples, {job.epochs} epochs, from {parent['checkpoint_id']}")
        trained = train(job, TrainingLog(context.log.info))
        snapshot = _register(context, warehouse, recipe, dataset, parent, job, trained, examples, snapshot)
        return _result(warehouse, declared, dataset, job, trained, examples, snapshot)

    return checkpoint


_TRAINED_ON = "sft_examples WHERE recipe = $recipe AND dataset = $dataset AND policy = 'das'"


def _examples(warehouse: Warehouse, recipe: Recipe, dataset: str) -> tuple[pl.DataFrame, int]:
    """(example_id, dataset_id, response_id, continuation_id, prompt_id) of a dataset, and the snapshot read from."""
    query = """SELECT e.example_id, e.dataset_id, e.response_id, e.continuation_id,
            coalesce(r.prompt_id, c.prompt_id) AS prompt_id
        FROM sft_examples e LEFT JOIN responses r ON r.response_id = e.response_id
            LEFT JOIN teacher_continuations c ON c.continuation_id = e.continuation_id
        WHERE e.recipe = $recipe AND e.dataset = $dataset AND e.policy = 'das' ORDER BY e.example_id"""
    return warehouse.read_latest(query, {"recipe": recipe.name, "dataset": dataset})


def _skipped(
    warehouse: Warehouse, recipe: Recipe, dataset: str, parent: dict[str, object], declared: Declaration
) -> dg.MaterializeResult:
    """The result of a stage without examples; its version names the checkpoint that the next stage goes on from."""
    found = empty_datasets(warehouse, recipe.name).get(dataset)
    if found is None:
        raise dg.Failure(f"the {dataset} dataset has no examples: materialize {selection_asset(dataset)} first")
    counts = {name: value for name, value in found.items() if name.startswith("num_") and value is not None}
    return dg.MaterializeResult(
        data_version=dg.DataVersion(f"skipped after {parent['checkpoint_id']}"),
        metadata={
            "skipped": f"the {dataset} dataset is empty: {found['reason']}",
            "skipped_kind": found["kind"],
            **counts,
            **declared.code_version.metadata,
        },
    )


def _job(
    warehouse: Warehouse, recipe: Recipe, dataset: str, parent: dict[str, object], examples: pl.DataFrame, snapshot: int
) -> SftJob:
    settings = training_version(recipe, dataset)
    identity = checkpoint_id(str(parent["checkpoint_id"]), examples["example_id"].to_list(), settings)
    folder = Path(warehouse.home) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{identity}.rows.parquet"
    pin_snapshot(file, snapshot)
    _write_rows(warehouse, recipe, dataset, snapshot, file)
    return SftJob(
        checkpoint_id=identity,
        model=Path(str(parent["path"])),
        rows=file,
        training=recipe.training.of(dataset),
        epochs=epochs(recipe, dataset),
        seed=recipe.seed,
        destination=folder / identity,
        record={
            "recipe": described(recipe),
            "parent_checkpoint_id": parent["checkpoint_id"],
            "dataset": dataset,
            "dataset_id": examples["dataset_id"][0],
            "snapshot_id": snapshot,
            "training_version": settings,
            "environment": environment(),
        },
    )


def _write_rows(warehouse: Warehouse, recipe: Recipe, dataset: str, snapshot: int, file: Path) -> None:
    """The examples' tokens in one file, whole or not at all, without passing through Python's memory.

    A file left by an attempt that was killed is kept: its name holds what is in it, and the trainer resumes only on
    the very bytes it began with.
    """
    if file.is_file():
        return
    unfinished = file.with_name(file.name.replace(".", ".unfinished.", 1))
    target = str(unfinished).replace("'", "''")
    query = f"""COPY (SELECT example_id, input_ids, labels FROM {_TRAINED_ON} ORDER BY example_id)
        TO '{target}' (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROWS_PER_GROUP})"""
    warehouse.read(query, {"recipe": recipe.name, "dataset": dataset}, at=snapshot)
    unfinished.rename(file)


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


def _register(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    recipe: Recipe,
    dataset: str,
    parent: dict[str, object],
    job: SftJob,
    trained: Trained,
    examples: pl.DataFrame,
    snapshot: int,
) -> int:
    """Returns the snapshot that the checkpoint saw: an earlier one, if it was trained before."""
    key = {"checkpoint_id": job.checkpoint_id, "recipe": recipe.name, "name": dataset}
    row = pl.DataFrame(
        {
            **{name: [value] for name, value in key.items()},
            "stage": [stage(recipe, dataset)],
            "parent_checkpoint_id": [parent["checkpoint_id"]],
            "dataset": [dataset],
            "dataset_id": [examples["dataset_id"][0]],
            "snapshot_id": [snapshot],
            "path": [str(trained.path)],
            "content_hash": [trained.content_hash],
            "training_version": [training_version(recipe, dataset)],
            "num_examples": [examples.height],
            "num_steps": [trained.num_steps],
            "seconds": [trained.seconds],
            "final_loss": [trained.losses[-1].loss],
            "recipe_document": [json.dumps(described(recipe), ensure_ascii=False)],
            "environment": [json.dumps(job.record["environment"])],
            "materialized_at": [datetime.now(UTC)],
        }
    )
    trained_on = examples.select(
        "example_id", "prompt_id", "response_id", "continuation_id", checkpoint_id=pl.lit(job.checkpoint_id)
    )
    with warehouse.commit(origin(context)) as transaction:
        known = transaction.read(
            "SELECT snapshot_id FROM checkpoints WHERE checkpoint_id = $id", {"id": job.checkpoint_id}
        )
        if not known.is_empty():  # trained before: it saw the rows of that snapshot
            snapshot = int(known["snapshot_id"][0])
            row = row.with_columns(snapshot_id=pl.lit(snapshot))
        transaction.replace("checkpoints", key, row)
        transaction.append_missing("checkpoint_examples", trained_on)
    job.rows.unlink(missing_ok=True)
    job.rows.with_suffix(SNAPSHOT).unlink(missing_ok=True)
    return snapshot


def _kept_epochs(trained: Trained, epochs: int) -> dict[str, dg.JsonMetadataValue]:
    """The folders of the weights after earlier epochs, where the recipe asked for them."""
    folders = [epoch_folder(trained.path, epoch) for epoch in range(1, epochs)]
    kept = [str(folder) for folder in folders if folder.is_dir()]
    return {"kept_epochs": dg.MetadataValue.json(kept)} if kept else {}


def _result(
    warehouse: Warehouse,
    declared: Declaration,
    name: str,
    job: SftJob,
    trained: Trained,
    examples: pl.DataFrame,
    snapshot: int,
) -> dg.MaterializeResult:
    query = f"SELECT * FROM lineage_checkpoints WHERE checkpoint_id = '{job.checkpoint_id}' ORDER BY distance"
    return dg.MaterializeResult(
        data_version=dg.DataVersion(job.checkpoint_id),
        metadata=declared.result(
            warehouse,
            1,
            {"checkpoint_id": job.checkpoint_id},
            checkpoint_id=job.checkpoint_id,
            checkpoint=dg.MetadataValue.path(str(trained.path)),
            record=dg.MetadataValue.path(str(trained.path / RECORD)),
            num_examples=examples.height,
            num_tokens_seen=trained.losses[-1].tokens,
            num_steps=trained.num_steps,
            training_seconds=trained.seconds,
            final_loss=trained.losses[-1].loss,
            loss=inline(loss_curve({name: trained.losses})),
            loss_trend=trend([point.loss for point in trained.losses]),
            curves=inline(training_curves(trained.losses)),
            **throughput(trained.losses),
            **_kept_epochs(trained, job.epochs),
            **audited(f"checkpoint {job.checkpoint_id}", query, snapshot),
        ),
    )
