"""A cell: an arm of an experiment under a seed. Its partition, its rows of `experiment_cells`, its answers."""

from collections.abc import Collection, Iterable

import dagster as dg
import polars as pl

from dasd_assets.evaluation.outcomes import outcomes
from dasd_assets.records.current_checkpoint import current_checkpoint
from dasd_assets.records.wording import number_of
from dasd_assets.rules.arms import arm_dataset
from dasd_assets.rules.asset_names import DAS, EXPERIMENT_CHECKPOINTS, RANDOM
from dasd_assets.stage_training import identity
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.recipe.experiment_recipes import evaluated_recipe
from dasd_resources.storage.warehouse import Row, Warehouse

Cell = tuple[str, int]  # arm and seed
ARM, SEED = "arm", "seed"
CHECKPOINTS = EXPERIMENT_CHECKPOINTS
EVALUATIONS, REPORT = "experiment_evaluations_", "experiment_report_"


def partitions(experiment: Experiment) -> dg.MultiPartitionsDefinition:
    """Arm by seed: the matrix in the web UI."""
    return dg.MultiPartitionsDefinition(
        {
            ARM: dg.StaticPartitionsDefinition(list(experiment.arms)),
            SEED: dg.StaticPartitionsDefinition(list(map(str, experiment.seeds))),
        }
    )


def partition_key(cell: Cell) -> dg.MultiPartitionKey:
    """The partition of a cell."""
    return dg.MultiPartitionKey({ARM: cell[0], SEED: str(cell[1])})


def cells_of(context: dg.AssetExecutionContext) -> list[Cell]:
    """The cells that a run makes."""
    keys = [dict(key.keys_by_dimension) for key in context.partition_keys]  # type: ignore[attr-defined]
    return [(key[ARM], int(key[SEED])) for key in keys]


def every_cell(experiment: Experiment) -> list[Cell]:
    """All cells, arm by arm."""
    return [(arm, seed) for arm in experiment.arms for seed in experiment.seeds]


def write_cell(warehouse: Warehouse, origin: str, recipe: Recipe, experiment: str, cell: Cell, rows: list[Row]) -> None:
    """Replace the rows of a cell, one per stage; unchanged ones make no commit. experiment: its name."""
    key = {"recipe": recipe.name, "experiment": experiment, ARM: cell[0], SEED: cell[1]}
    new = pl.DataFrame([{**key, **row} for row in rows], _SCHEMA)
    query = f"SELECT {', '.join(new.columns)} FROM experiment_cells WHERE {_OF_CELL} ORDER BY stage"
    if not warehouse.read(query, key).equals(new):
        with warehouse.commit(origin) as transaction:
            transaction.replace("experiment_cells", key, new)


_OF_A_CELL = {ARM: pl.String, SEED: pl.Int64}
_OF_CELL = "recipe = $recipe AND experiment = $experiment AND arm = $arm AND seed = $seed"
_SCHEMA = {
    "recipe": pl.String,
    "experiment": pl.String,
    ARM: pl.String,
    SEED: pl.Int64,
    "stage": pl.Int32,
    "checkpoint_id": pl.String,
    "dataset": pl.String,
    "policy": pl.String,
    "dataset_id": pl.String,
    "num_examples": pl.Int64,
    "num_tokens": pl.Int64,
    "num_steps": pl.Int64,
}


def stage_rows(warehouse: Warehouse, recipe: Recipe, experiment: Experiment) -> pl.DataFrame:
    """The rows of all cells that the experiment has now, in its order, with the path of each checkpoint."""
    query = """SELECT e.*, any_value(c.path) AS path FROM experiment_cells e JOIN checkpoints c USING (checkpoint_id)
        WHERE e.recipe = $recipe AND e.experiment = $experiment GROUP BY ALL"""
    found = warehouse.read(query, {"recipe": recipe.name, "experiment": experiment.name})
    order = pl.DataFrame(every_cell(experiment), _OF_A_CELL, orient="row").with_row_index("place")
    return found.join(order, on=[ARM, SEED]).sort("place", "stage").drop("place")


def outdated_cells(warehouse: Warehouse, recipe: Recipe, experiment: Experiment) -> set[Cell]:
    """The cells that are not what would be trained now, by declaration, recipe, data or withdrawn questions.

    What a stage chooses itself is chosen again by the experiment alone: it is outdated where the recipe has selected
    from another pool since. Not seen: responses added within the same batches, and, of a mixed-policy stage with
    another loss than the recipe's, another mixture.
    """
    query = "SELECT DISTINCT checkpoint_id FROM checkpoint_examples SEMI JOIN withdrawn_prompts USING (prompt_id)"
    withdrawn = set(warehouse.read(query)["checkpoint_id"])
    key = {"recipe": recipe.name, "experiment": experiment.name}
    of_another_pool = set(warehouse.read(_OF_ANOTHER_POOL, key).iter_rows())
    stages = stage_rows(warehouse, recipe, experiment).group_by(ARM, SEED, maintain_order=True).agg("checkpoint_id")
    chains = {(arm, seed): ids for arm, seed, ids in stages.iter_rows()}
    wanted = _wanted_checkpoints(warehouse, recipe, experiment, chains)
    others = {cell for cell, ids in chains.items() if ids[-1] != wanted[cell] or not withdrawn.isdisjoint(ids)}
    return others | (of_another_pool & chains.keys())


# Of `pool_params`, what no stage can change and no policy's name holds. A rule from before there was a key lacks it.
_OF_POOL = ("batches", "teacher", "student", "top_p", "max_tokens", "instructed", "instructions", "filter_version")
_DIFFERS = " OR ".join(f"json_extract(d.rule, '$.{key}') <> json_extract(s.rule, '$.{key}')" for key in _OF_POOL)
_OF_ANOTHER_POOL = f"""SELECT DISTINCT arm, seed FROM experiment_cells e
        JOIN experiment_datasets d ON d.recipe = e.recipe AND d.policy = e.policy
            AND list_contains(string_split(e.dataset, '+'), d.dataset)
        JOIN selection_rules s ON s.recipe = d.recipe AND s.dataset = d.dataset
    WHERE e.recipe = $recipe AND e.experiment = $experiment
        AND e.policy NOT IN ('{DAS}', '{RANDOM}') AND ({_DIFFERS})"""


def _wanted_checkpoints(
    warehouse: Warehouse, recipe: Recipe, experiment: Experiment, cells: Collection[Cell]
) -> dict[Cell, str]:
    """The id of the last checkpoint that each cell would have if it were trained now."""
    chains = {(arm, seed): [arm_dataset(recipe, stage, seed) for stage in experiment.arms[arm]] for arm, seed in cells}
    query = """SELECT dataset, policy, list(example_id) FROM sft_examples
        WHERE recipe = $recipe AND list_contains($policies, policy) GROUP BY ALL"""
    policies = list({data.policy for chain in chains.values() for data in chain})
    found = warehouse.read(query, {"recipe": recipe.name, "policies": policies})
    examples = {(dataset, policy): ids for dataset, policy, ids in found.iter_rows()}
    student = str(current_checkpoint(warehouse, recipe, "student")["checkpoint_id"]) if cells else ""
    wanted = dict[Cell, str]()
    for cell, chain in chains.items():
        wanted[cell] = student
        for data in chain:
            ids = [key for name in data.own_parts or (data.name,) for key in examples.get((name, data.policy), [])]
            wanted[cell] = identity(data.recipe, data.name, wanted[cell], ids)
    return wanted


def current(stages: pl.DataFrame, outdated: Collection[Cell]) -> pl.DataFrame:
    """The stages whose examples are those that the warehouse has now. stages: of `stage_rows`."""
    cells = pl.DataFrame(sorted(outdated), _OF_A_CELL, orient="row")
    return stages.join(cells, on=[ARM, SEED], how="anti", maintain_order="left")


def outdated_text(outdated: Collection[Cell]) -> str:
    """What is said of `outdated_cells`; empty if there is none."""
    if not outdated:
        return ""
    are = number_of(len(outdated), "cell is", "cells are")
    return f"{are} of another declaration, recipe or data than there are now: run it again"


def trained_cells(warehouse: Warehouse, recipe: Recipe, experiment: Experiment) -> pl.DataFrame:
    """The last stage of each cell, in the experiment's order."""
    return stage_rows(warehouse, recipe, experiment).group_by(ARM, SEED, maintain_order=True).last()


def answers(warehouse: Warehouse, recipe: Recipe, experiment: Experiment) -> pl.DataFrame:
    """The answers of every cell that was asked all questions; a request that failed is wrong.

    One row per sample: arm, seed, benchmark, temperature, question_id, correct, status (`answered` or `failed`);
    evaluation_id, num_tokens, cut_off: None if it failed.
    """
    cells = trained_cells(warehouse, recipe, experiment).select(ARM, SEED, "checkpoint_id")
    asked = evaluated_recipe(recipe, experiment)
    found = outcomes(warehouse, asked, cells["checkpoint_id"].to_list())
    whole = found.filter((pl.col("status") != "missing").all().over("checkpoint_id"))
    columns = ["benchmark", "temperature", "question_id", "correct", "status", "evaluation_id", "num_tokens", "cut_off"]
    return cells.join(whole, on="checkpoint_id", maintain_order="left_right").select(ARM, SEED, *columns)


def failed_text(answers: pl.DataFrame) -> str:
    """`requests that failed and count as wrong: das 3 of 1,280`, of the arms that have any; empty if none has."""
    counts = answers.group_by(ARM, maintain_order=True).agg(failed=(pl.col("status") == "failed").sum(), asked=pl.len())
    arms = [f"{arm} {failed:,} of {asked:,}" for arm, failed, asked in counts.iter_rows() if failed]
    return f"requests that failed and count as wrong: {', '.join(arms)}" if arms else ""


def in_order(cells: Iterable[Cell], experiment: Experiment) -> list[Cell]:
    """These cells in the experiment's order."""
    wanted = set(cells)
    return [cell for cell in every_cell(experiment) if cell in wanted]
