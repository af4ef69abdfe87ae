"""Binds assets, jobs and resources: what `dagster dev`, `dg dev` and the `dasd` command load.

The environment is read here and in `cli.py` alone: DASD_HOME (default `.dasd`), DASD_RECIPE (default `demo`),
DASD_CATALOG and DASD_DATA (`storage.place`), DASD_STEP_PODS (`service.step_pods`), and the
API keys whose variables a recipe names.
"""

import inspect
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Protocol

import dagster as dg

from dasd_assets import (
    answer_logprobs,
    answer_provenance,
    answer_sentences,
    checks,
    divergence,
    evaluation,
    experiments,
    generations,
    held_out_questions,
    heldout_losses,
    imported_responses,
    landed_responses,
    maintenance,
    mixed_policy,
    models,
    parity,
    prompts,
    published_dataset,
    random_responses,
    report,
    selection,
    selection_source,
    sentence_probabilities,
    sft_datasets,
    student_logprobs,
    student_tokens,
    training,
    verdicts,
)
from dasd_assets.records import data_file_check, landing_check, quarantine
from dasd_assets.records.dagster_internals import mend_storages
from dasd_assets.rules.arms import check_policies
from dasd_assets.rules.gpu_engines import owns_gpu_engine
from dasd_assets.rules.recipe_names import check_names
from dasd_assets.service import automation, jobs
from dasd_assets.service.batches_run import JOB
from dasd_assets.service.freshness import freshness_policy
from dasd_assets.service.rounds import rounds
from dasd_assets.service.step_pods import VARIABLE, Pods, executor_in_pods, job_tags, read_pods
from dasd_assets.stage_training import Train
from dasd_resources.home import home_of, recipe_of
from dasd_resources.inference.engines import Engines
from dasd_resources.inference.kept_loaded import make_room
from dasd_resources.recipe import Recipe, RecipeError, load_recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.recipe.experiment_files import experiments_of
from dasd_resources.sft.checkpoint import Pace, Progress, Trained
from dasd_resources.sft.trainer import SftJob
from dasd_resources.sft.trainer import train as train_in_child
from dasd_resources.storage.place import choose_storage
from dasd_resources.storage.warehouse import Warehouse

log = logging.getLogger(__name__)


class Stage(Protocol):
    """A module of the pipeline."""

    def build(self, recipe: Recipe) -> Sequence[dg.AssetsDefinition]:
        """Its assets, upstream first."""
        ...


STAGES: tuple[Stage, ...] = (
    models,
    held_out_questions,
    prompts,
    landed_responses,
    generations,
    imported_responses,
    student_tokens,
    verdicts,
    student_logprobs,
    sentence_probabilities,
    divergence,
    selection,
    random_responses,
    selection_source,
    sft_datasets,
    training,
    mixed_policy,
    evaluation,
    answer_logprobs,
    answer_sentences,
    answer_provenance,
    heldout_losses,
    published_dataset,
    report,
    maintenance,
)


class EnvironmentEngines(Engines):
    """Engines whose servers' API keys are in the environment variables that the recipe names."""

    def api_key(self, variable: str) -> str | None:
        """Read anew each time and passed on to the engine alone."""
        return os.environ.get(variable)


def build_definitions(
    recipe: Recipe,
    home: Path,
    engines: Engines | None = None,
    train: Train = train_in_child,
    warehouse: Warehouse | None = None,
    stages: Sequence[Stage] = STAGES,
    compared: Sequence[Experiment] | None = None,
    pods: Pods | None = None,
) -> dg.Definitions:
    """The asset graph of a recipe over a home, with jobs and automation.

    Tests pass their own engines, training and warehouse. stages: modules whose `build(recipe)` makes assets; more of
    them than ours, to extend the pipeline. compared: experiments; the shipped ones of the recipe and the home's unless
    given. pods: what each step's pod gets, in a cluster. Raises RecipeError if the recipe names a filter or score that
    there is not.
    """
    check_names(recipe)
    compared = usable_experiments(recipe, home) if compared is None else compared
    engines = engines or EnvironmentEngines(home=str(home), keep_loaded_seconds=recipe.automation.keep_loaded_seconds)
    made = [_owned(asset, recipe) for asset in _assets(recipe, stages, compared)]
    rescored = parity.build(recipe)  # by models: steps that need a GPU, as assets' do
    assets = dg.Definitions(
        assets=_with_code_references(made),
        asset_checks=[
            *checks.build(recipe),
            *rescored,
            *quarantine.build(),
            *landing_check.build(recipe),
            *data_file_check.build(),
        ],
        resources={
            "warehouse": _fixed(warehouse or Warehouse(home=str(home))),
            "engines": _fixed(engines),
            "train": _fixed(_alone(train, home)),
            "io_manager": _io_manager(recipe),
        },
        executor=jobs.executor(recipe, home, None if pods is None else executor_in_pods(pods, [*made, *rescored])),
    )
    graph = assets.resolve_asset_graph()
    # Rounds need one process that keeps its models: where each step is a pod, that is the pod of the job itself.
    in_rounds = rounds(recipe, graph) if pods is None or JOB in pods else []
    service = automation.build(recipe, home, engines, assets, in_rounds, job_tags(pods, JOB))
    others = dg.Definitions(jobs=jobs.build(recipe, graph), schedules=maintenance.build_schedules(recipe))
    return dg.Definitions.merge(assets, service, others)


def _assets(recipe: Recipe, stages: Sequence[Stage], compared: Sequence[Experiment]) -> Iterator[dg.AssetsDefinition]:
    for stage in stages:
        yield from stage.build(recipe)
    yield from experiments.assets(recipe, compared)


def usable_experiments(recipe: Recipe, home: Path) -> list[Experiment]:
    """The known experiments of a recipe; a faulty one is reported in the log and left out: the pipeline needs none."""
    found = list[Experiment]()
    for experiment in experiments_of(recipe, home):
        try:
            if isinstance(experiment, RecipeError):
                raise experiment
            check_policies(experiment, recipe)
            found.append(experiment)
        except RecipeError as error:
            log.warning("an experiment is left out: %s", error)
    return found


def _owned(asset: dg.AssetsDefinition, recipe: Recipe) -> dg.AssetsDefinition:
    """With the recipe's owners, and when the web UI is to call it overdue."""
    return asset.map_asset_specs(
        lambda spec: spec.replace_attributes(owners=recipe.owners, freshness_policy=freshness_policy(recipe, spec.key))
    )


def _with_code_references(assets: list[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets with the file and line of their function, which Dagster itself seeks in the file of a decorator."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        return [asset.map_asset_specs(partial(_with_source, _source(asset))) for asset in assets]


def _source(asset: dg.AssetsDefinition) -> dg.LocalFileCodeReference:
    function = inspect.unwrap(asset.op.compute_fn.decorated_fn)  # type: ignore[union-attr]
    code = function.__code__
    return dg.LocalFileCodeReference(file_path=code.co_filename, line_number=code.co_firstlineno)


def _with_source(source: dg.LocalFileCodeReference, spec: dg.AssetSpec) -> dg.AssetSpec:
    return spec.merge_attributes(
        metadata={"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[source])}
    )


class NoValues(dg.IOManager):
    """Assets hand nothing to each other but tables, so no value is ever pickled to a file or read from one."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        raise TypeError(
            f"{context.step_key} returned a {type(obj).__name__}: write a table, return dg.MaterializeResult"
        )

    def load_input(self, context: dg.InputContext) -> None:
        raise TypeError(f"{context.name}: read the table; depend on assets by deps=[...]")


def _io_manager(recipe: Recipe) -> dg.IOManagerDefinition:
    """The one resource that every step has: made where the step will run, before it begins."""
    has_own_process = owns_gpu_engine(recipe)

    def create(_: dg.InitResourceContext) -> NoValues:
        jobs.begin_step(has_own_process)
        return NoValues()

    return dg.IOManagerDefinition(create, config_schema={})


def _alone(train: Train, home: Path) -> Train:
    """The training, with no model kept loaded beside it: it needs the GPUs."""

    def train_alone(job: SftJob, on_progress: Callable[[Progress | Pace], None]) -> Trained:
        make_room(home)
        return train(job, on_progress)

    return train_alone


def _fixed(value: object) -> dg.ResourceDefinition:
    """A resource without configuration, so that no run's configuration can point it at another file or folder."""
    return dg.ResourceDefinition(lambda _: value, config_schema={})


@dg.definitions
def defs() -> dg.Definitions:
    """The code location, from the environment."""
    mend_storages()
    home = home_of(os.environ)
    choose_storage(home, os.environ)
    pods = os.environ.get(VARIABLE)
    recipe = load_recipe(recipe_of(os.environ), home)
    return build_definitions(recipe, home, pods=read_pods(Path(pods)) if pods else None)
