"""A job per way of working, and how their steps are executed.

| job | makes |
| --- | --- |
| `data_only` | a batch's data, then selection and datasets over all batches; the service's rebuilds run as this |
| `train_only` | checkpoints, mixed policy, evaluations and the report from the datasets; the schedule runs as this |
| `everything` | both |
| `ablation` | selection and control, datasets, off-policy stages, evaluations: what a changed selection is worth |
| `batches_in_rounds` | all batches, in the service, where models take long to load (batches_run.py) |

A run is a process of its own. Within it, the steps share that process where every engine can be closed again:
transformers and remote servers. A step in a process of its own costs seconds of imports, and a batch has eight. Where
an engine holds its GPU until its process ends (`holds_gpu_until_exit`: vLLM), each step is a process: it gives its
memory back by ending, and dies alone. It ends with its run's process, too, or it would go on beside the run that takes
over.
"""

from pathlib import Path

import dagster as dg

from dasd_assets.records.dagster_internals import BaseAssetGraph, UnresolvedAssetJobDefinition
from dasd_assets.records.data_file_check import DATA_FILE_CHECK
from dasd_assets.records.landing_check import LANDING_CHECK
from dasd_assets.records.quarantine import QUARANTINE_CHECK
from dasd_assets.records.tags import EXPERIMENTS, UPKEEP
from dasd_assets.rules.asset_names import CONTROL_ASSET, checkpoint_asset, dataset_asset, selection_asset
from dasd_assets.rules.gpu_engines import owns_gpu_engine
from dasd_assets.service.recovery import OwnedExecutor
from dasd_assets.service.steps import data_assets
from dasd_resources.orphans import end_with_starter
from dasd_resources.recipe import Recipe

DATA_ONLY = "data_only"
TRAIN_ONLY = "train_only"


def executor(recipe: Recipe, home: Path, in_pods: dg.ExecutorDefinition | None = None) -> dg.ExecutorDefinition:
    """In process, or a process per step where an engine of the recipe holds a GPU until its process ends.

    in_pods: instead of both, of a cluster.
    """
    return owned(in_pods or (dg.multiprocess_executor if owns_gpu_engine(recipe) else dg.in_process_executor), home)


def owned(inner: dg.ExecutorDefinition, home: Path) -> dg.ExecutorDefinition:
    """One of Dagster's executors, whose runs of the service are known as dead once their process is."""

    def create(init_context: dg.InitExecutorContext) -> OwnedExecutor:
        assert inner.executor_creation_fn is not None
        return OwnedExecutor(inner.executor_creation_fn(init_context), home)

    return dg.ExecutorDefinition(
        name=inner.name,
        config_schema=inner.config_schema,  # type: ignore[arg-type]  # as Dagster's own copies of executors do
        requirements=inner.get_requirements,
        executor_creation_fn=create,
        description=inner.description,
    )


def begin_step(has_own_process: bool) -> None:
    """Called where a step will run: if that is a process of its own, it is to end with the run's process."""
    if has_own_process:
        end_with_starter()


def build(recipe: Recipe, graph: BaseAssetGraph) -> list[UnresolvedAssetJobDefinition]:
    """The jobs of a recipe over its assets."""
    # Evaluated by the service, whenever their outcome changes.
    reported = dg.AssetSelection.checks(QUARANTINE_CHECK, LANDING_CHECK, DATA_FILE_CHECK)
    data, every = (
        dg.AssetSelection.assets(*sorted(data_assets(recipe, graph))) - reported,
        dg.AssetSelection.all() - dg.AssetSelection.groups(UPKEEP, EXPERIMENTS) - reported,
    )
    return [
        dg.define_asset_job(
            DATA_ONLY,
            data,
            description="A batch's data, and with it the selection and the datasets over all batches; no training.",
        ),
        dg.define_asset_job(
            TRAIN_ONLY,
            every - data,
            description="Every stage of training, mixed policy, evaluations and report, from the current datasets.",
        ),
        dg.define_asset_job(
            "everything",
            every,
            description="A batch's data, then selection, training and evaluation over all batches.",
        ),
        dg.define_asset_job(
            "ablation",
            _ablation(recipe) - reported,
            description="Selection, control, off-policy stages, evaluation: what a changed selection does to accuracy.",
        ),
    ]


def _ablation(recipe: Recipe) -> dg.AssetSelection:
    made = [name(dataset) for name in (selection_asset, dataset_asset, checkpoint_asset) for dataset in recipe.datasets]
    return dg.AssetSelection.assets(
        *made, CONTROL_ASSET, "benchmark_questions", "evaluations", "evaluation_metrics", "leaderboard"
    )
