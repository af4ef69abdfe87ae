"""Student checkpoints (report §3, §6.4.1): stage 1 on the lowest temperature, each later stage from the one before.

`sft_examples` -> `checkpoints`. Every stage starts a fresh optimiser and schedule from its parent's weights; the last
stage trains on the mixed-policy dataset (report §5). A stage whose dataset is empty is skipped, with the reason, and
the next one goes on from the checkpoint before it. A checkpoint's id names its parent, data and settings, so a
checkpoint that exists is never trained again.
"""

from functools import partial

import dagster as dg

from dasd_assets.records.current_checkpoint import current_checkpoint, folder_of
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.loss_curve import loss_curve, throughput, training_curves
from dasd_assets.records.plots import inline, trend
from dasd_assets.records.progress import TrainingLog
from dasd_assets.records.provenance import origin
from dasd_assets.records.table_metadata import audited
from dasd_assets.rules.asset_names import (
    DAS,
    MIXED,
    checkpoint_asset,
    dataset_asset,
    generation_asset,
    selection_asset,
)
from dasd_assets.rules.checkpoints import CHAIN, checkpoint_names, stage, trained_names
from dasd_assets.rules.empty_datasets import empty_datasets
from dasd_assets.stage_training import (
    TRAINING,
    Seen,
    Stage,
    Train,
    register,
    samples_of_a_step,
    seen_examples,
    stage_job,
    tracker_faults,
)
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.sft.checkpoint import RECORD, Trained, epoch_folder
from dasd_resources.sft.trackers import places
from dasd_resources.sft.trainer import SftJob
from dasd_resources.storage.warehouse import Warehouse


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
        loads_model=True,
        description=f"One row: the student after stage {stage(recipe, dataset)}: {parent_name}, trained on {dataset}.",
    )
    def checkpoint(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines, train: dg.ResourceParam[Train]
    ) -> dg.MaterializeResult:
        parent = current_checkpoint(warehouse, recipe, parent_name)
        seen = seen_examples(warehouse, recipe.name, dataset)
        if seen.examples.is_empty():
            return _skipped(warehouse, recipe, dataset, parent, declared)
        number = stage(recipe, dataset)
        assert number is not None, "only the teacher has none"
        folder = folder_of(warehouse, engines, recipe, parent)
        trains = Stage(recipe, dataset, number, dataset, DAS, str(parent["checkpoint_id"]), str(folder))
        job = stage_job(warehouse, trains, seen)
        context.log.info(f"{seen.examples.height:,} examples, {job.epochs} epochs, from {parent['checkpoint_id']}")
        batch = partial(samples_of_a_step, job.training, seen.examples.height * job.epochs)
        trained = train(job, TrainingLog(context.log.info, batch=batch))
        for fault in tracker_faults(trained):
            context.log.warning(fault)
        snapshot = register(warehouse, origin(context), trains, job, trained, seen)
        return _result(warehouse, declared, dataset, job, trained, Seen(seen.examples, snapshot))

    return checkpoint


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


def _kept_epochs(trained: Trained, epochs: int) -> dict[str, dg.JsonMetadataValue]:
    """The folders of the weights after earlier epochs, where the recipe asked for them."""
    folders = [epoch_folder(trained.path, epoch) for epoch in range(1, epochs)]
    kept = [str(folder) for folder in folders if folder.is_dir()]
    return {"kept_epochs": dg.MetadataValue.json(kept)} if kept else {}


def _trackers(job: SftJob, trained: Trained) -> dict[str, dg.MetadataValue]:
    """Where each tracker that was reported to has the training."""
    if job.run is None or not trained.trackers:
        return {}
    found = places(job.training.report_to, job.run)
    return {f"{name}_runs": dg.MetadataValue.path(str(found[name])) for name in job.training.report_to}


def _result(
    warehouse: Warehouse, declared: Declaration, name: str, job: SftJob, trained: Trained, seen: Seen
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
            num_examples=seen.examples.height,
            num_tokens_seen=trained.losses[-1].tokens,
            num_steps=trained.num_steps,
            training_seconds=trained.seconds,
            final_loss=trained.losses[-1].loss,
            loss=inline(loss_curve({name: trained.losses})),
            loss_trend=trend([point.loss for point in trained.losses]),
            curves=inline(training_curves(trained.losses)),
            **throughput(trained.losses),
            **_kept_epochs(trained, job.epochs),
            **_trackers(job, trained),
            **audited(f"checkpoint {job.checkpoint_id}", query, seen.snapshot),
        ),
    )
