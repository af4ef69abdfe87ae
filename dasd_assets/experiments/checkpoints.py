"""The checkpoints of an experiment: every stage of every arm under every seed, each trained once, side by side.

`sft_examples` of the pipeline and of `datasets` -> `checkpoints`, `experiment_cells`, a partition per arm and seed.
Where two arms begin alike they are trained alike, so that part is trained once; and what the pipeline has trained
itself is not trained again. Killed at any moment and run again, it goes on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import dagster as dg

from dasd_assets.experiments.cells import (
    CHECKPOINTS,
    Cell,
    cells_of,
    in_order,
    partition_key,
    partitions,
    stage_rows,
    write_cell,
)
from dasd_assets.experiments.datasets import make_datasets
from dasd_assets.experiments.side_by_side import places, side_by_side
from dasd_assets.experiments.wording import arm_text, described_as
from dasd_assets.mixed_policy.continuations import CONTINUATIONS
from dasd_assets.mixed_policy.mixture import MIXTURE
from dasd_assets.records.current_checkpoint import current_checkpoint, folder_of
from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.markdown import table, viewer_link
from dasd_assets.records.progress import Tally, TrainingLog
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.quarantine import usable_batches
from dasd_assets.records.tags import EXPERIMENTS
from dasd_assets.rules.arms import ARMS, arm_dataset, datasets_of, declared_rule
from dasd_assets.rules.asset_names import (
    CONTROL_ASSET,
    MIXED,
    checkpoint_asset,
    dataset_asset,
    generation_asset,
    selection_asset,
)
from dasd_assets.rules.checkpoints import CHAIN
from dasd_assets.sft_datasets import EXAMPLES
from dasd_assets.stage_training import (
    TRAINING,
    Seen,
    Stage,
    Train,
    identity,
    register,
    samples_of_a_step,
    seen_examples,
    stage_job,
    tracker_faults,
)
from dasd_resources.home import CHECKPOINT_FOLDER
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.sft.checkpoint import Trained, published
from dasd_resources.storage.warehouse import Row, Warehouse


def build(recipe: Recipe, experiment: Experiment) -> dg.AssetsDefinition:
    """`experiment_checkpoints_…`."""
    declared = _declared(recipe, experiment)

    @declared.asset(
        group=EXPERIMENTS,
        kinds={"pytorch", "huggingface"},
        loads_model=True,
        description=f"One row per stage of an arm under a seed, with its checkpoint. {described_as(experiment)}",
        partitions_def=partitions(experiment),
    )
    def experiment_checkpoints(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines, train: dg.ResourceParam[Train]
    ) -> dg.MaterializeResult:
        cells = in_order(cells_of(context), experiment)
        batches = usable_batches(context.instance, warehouse)
        seen = dict[tuple[str, str], Trainable]()
        datasets = datasets_of(recipe, experiment, cells)
        to_make = [data for data in datasets if not data.is_own]
        make_datasets(context, warehouse, engines, recipe, to_make, batches)
        for data in datasets:
            seen[data.name, data.policy] = _trainable(warehouse, recipe, data.name, data.policy)
        student = current_checkpoint(warehouse, recipe, "student")
        work = Work(context, warehouse, engines, recipe, experiment, train, student)
        for cell in cells:
            work.add(cell, seen)
        work.do()
        _tell_cells(context, warehouse, recipe, experiment, cells)
        return _result(warehouse, declared, recipe, experiment, cells, work)

    return experiment_checkpoints


def _declared(recipe: Recipe, experiment: Experiment) -> Declaration:
    temperatures = [name for name in recipe.datasets if name in experiment.datasets]
    mixed = MIXED in experiment.datasets
    return declare(
        recipe,
        CHECKPOINTS + experiment.name,
        [
            "experiment_cells",
            "checkpoints",
            "checkpoint_examples",
            "experiment_datasets",
            "selected_responses",
            "sft_examples",
            "published_datasets",
        ],
        reads={
            "selected_responses": [*map(selection_asset, temperatures), CONTROL_ASSET],
            "sft_examples": [*map(dataset_asset, [*temperatures, *([MIXED] if mixed else [])])],
            "checkpoints": checkpoint_asset("student"),
            "empty_datasets": (),
            "response_scores": "response_scores",
            "response_verdicts": "response_verdicts",
            "prompts": "prompts",
            "quarantined_batches": (),
        },
        looks_up={
            "responses": list(map(generation_asset, recipe.datasets)),
            "student_tokens": "student_tokens",
            "teacher_continuations": ["teacher_continuations"] if mixed else [],
            "continuation_tokens": ["continuation_tokens"] if mixed else [],
        },
        models=["teacher_model", "student_model"],
        rules=[declared_rule(experiment), ARMS, EXAMPLES, MIXTURE, CONTINUATIONS, TRAINING, CHAIN],
        parts=["mixed_policy.epochs"],
        rows=f"experiment = '{experiment.name}'",
    )


@dataclass(frozen=True)
class Trainable:
    """A dataset as a stage sees it. num_tokens: in its examples."""

    seen: Seen
    num_tokens: int


def _trainable(warehouse: Warehouse, recipe: Recipe, dataset: str, policy: str) -> Trainable:
    seen = seen_examples(warehouse, recipe.name, dataset, policy)
    if seen.examples.is_empty():
        raise dg.Failure(
            f"the {dataset} dataset ({policy}) has no examples: materialize {dataset_asset(dataset)} first"
        )
    query = """SELECT sum(len(input_ids))::BIGINT FROM sft_examples
        WHERE recipe = $recipe AND dataset = $dataset AND policy = $policy"""
    key = {"recipe": recipe.name, "dataset": dataset, "policy": policy}
    return Trainable(seen, int(warehouse.read(query, key, at=seen.snapshot).item()))


@dataclass
class Work:
    """The trainings that cells need, each once, by the id of the checkpoint that it makes."""

    context: dg.AssetExecutionContext
    warehouse: Warehouse
    engines: Engines
    recipe: Recipe
    experiment: Experiment
    train: Train
    student: dict[str, object]  # its `checkpoints` row, with which every arm begins
    stages: dict[str, tuple[Stage, Trainable]] = field(default_factory=dict)
    cells: dict[Cell, list[tuple[str, Stage, Trainable]]] = field(default_factory=dict)
    trained: dict[str, Trained] = field(default_factory=dict)

    def add(self, cell: Cell, seen: dict[tuple[str, str], Trainable]) -> None:
        """Add what a cell needs. seen: dataset and policy -> what there is of it."""
        arm, seed = cell
        parent = str(self.student["checkpoint_id"])
        path = str(folder_of(self.warehouse, self.engines, self.recipe, self.student))
        chain = self.cells.setdefault(cell, [])
        for number, declared in enumerate(self.experiment.arms[arm], start=1):
            data = arm_dataset(self.recipe, declared, seed)
            of = seen[data.name, data.policy]
            stage = Stage(data.recipe, f"{data.name}/{data.policy}", number, data.name, data.policy, parent, path)
            parent = identity(data.recipe, data.name, parent, of.seen.example_ids)
            path = str(Path(self.warehouse.home) / CHECKPOINT_FOLDER / parent)
            self.stages.setdefault(parent, (stage, of))
            chain.append((parent, stage, of))

    def do(self) -> None:
        """Train what is missing, and write each cell as soon as its last stage is there."""
        for cell, chain in self.cells.items():
            if not chain:
                self._write(cell)
        at_once = places(self.recipe)
        self.context.log.info(
            f"{len(self.stages)} trainings of {len(self.cells)} cells, {at_once.num_at_once} at a time"
        )
        parents = {key: stage.parent_id for key, (stage, _) in self.stages.items()}
        tally = Tally(len(parents), "trainings", self.context.log.info)
        side_by_side(parents, lambda key: tally.add(is_new=self._train(key, at_once.num_threads)), at_once.num_at_once)

    def _train(self, key: str, num_threads: int | None) -> bool:
        """Whether it was trained now, and not before."""
        stage, of = self.stages[key]
        folder = Path(self.warehouse.home) / CHECKPOINT_FOLDER / key
        known = self.warehouse.read("SELECT count(*) FROM checkpoints WHERE checkpoint_id = $id", {"id": key}).item()
        found = published(folder, key) if known else None
        self.trained[key] = found or self._train_anew(key, stage, of, num_threads)
        for cell in [cell for cell, chain in self.cells.items() if chain and chain[-1][0] == key]:
            self._write(cell)
        return found is None

    def _train_anew(self, key: str, stage: Stage, of: Trainable, num_threads: int | None) -> Trained:
        job = stage_job(self.warehouse, stage, of.seen, num_threads)
        assert job.checkpoint_id == key
        name = f"{stage.name} after {stage.parent_id[:8]}, seed {stage.recipe.seed}"
        batch = partial(samples_of_a_step, job.training, of.seen.examples.height * job.epochs)
        log = TrainingLog(lambda line: self.context.log.info(f"{name}: {line}"), batch=batch)
        trained = self.train(job, log)
        for fault in tracker_faults(trained):
            self.context.log.warning(f"{name}: {fault}")
        register(self.warehouse, origin(self.context), stage, job, trained, of.seen)
        return trained

    def _write(self, cell: Cell) -> None:
        rows = [self._row(key, number, stage, of) for number, (key, stage, of) in enumerate(self.cells[cell], start=1)]
        student = self.student["checkpoint_id"]
        untrained = {"stage": 0, "checkpoint_id": student, "num_examples": 0, "num_tokens": 0, "num_steps": 0}
        text = origin(self.context)
        write_cell(self.warehouse, text, self.recipe, self.experiment.name, cell, rows or [untrained])

    def _row(self, key: str, number: int, stage: Stage, of: Trainable) -> Row:
        return {
            "stage": number,
            "checkpoint_id": key,
            "dataset": stage.dataset,
            "policy": stage.policy,
            "dataset_id": of.seen.dataset_id,
            "num_examples": of.seen.examples.height,
            "num_tokens": of.num_tokens,
            "num_steps": self.trained[key].num_steps,
        }


def _tell_cells(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    recipe: Recipe,
    experiment: Experiment,
    cells: Sequence[Cell],
) -> None:
    """What the page of each partition says besides: what it was trained on, stage by stage."""
    of_cell = stage_rows(warehouse, recipe, experiment).partition_by("arm", "seed", as_dict=True)
    for cell in cells:
        rows = of_cell[cell].select(_SHOWN).to_dicts()
        checkpoint = rows[-1]["checkpoint_id"]
        context.add_asset_metadata(
            {
                "trained_on": arm_text(experiment.arms[cell[0]]),
                "stages": table(_SHOWN, rows),
                "checkpoint_id": checkpoint,
                "viewer": viewer_link(f"checkpoint/{checkpoint}"),
            },
            partition_key=partition_key(cell),
        )


def _result(
    warehouse: Warehouse,
    declared: Declaration,
    recipe: Recipe,
    experiment: Experiment,
    cells: Sequence[Cell],
    work: Work,
) -> dg.MaterializeResult:
    rows = [row for row in stage_rows(warehouse, recipe, experiment).to_dicts() if (row["arm"], row["seed"]) in cells]
    return dg.MaterializeResult(
        data_version=content_version(_versions(rows)),
        metadata=declared.result(
            warehouse,
            len(rows),
            {"experiment": experiment.name},
            num_cells=len(cells),
            num_checkpoints=len(work.stages),
            training_seconds=sum(trained.seconds for trained in work.trained.values()),
        ),
    )


_SHOWN = ("stage", "dataset", "policy", "checkpoint_id", "num_examples", "num_tokens", "num_steps")


def _versions(rows: Iterable[Row]) -> list[str]:
    return [f"{row['arm']} {row['seed']} {row['stage']} {row['checkpoint_id']}" for row in rows]
