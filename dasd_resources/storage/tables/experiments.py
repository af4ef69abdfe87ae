"""Experiments: what each arm has trained on under each seed, and what chose it."""

from dasd_resources.storage.tables.recurring import CHECKPOINT_ID, DATASET, DATASET_ID, POLICY, RECIPE, RUN_ID
from dasd_resources.storage.tables.table import Column, Reference, Table

EXPERIMENT_DATASETS = Table(
    name="experiment_datasets",
    one_row_per="dataset that an experiment has chosen otherwise than its recipe",
    notes="Its responses are in `selected_responses`, its examples in `sft_examples`, under the same policy.",
    columns=(
        RECIPE,
        DATASET,
        POLICY,
        Column("rule", "VARCHAR", "All that decided which responses it holds, as JSON."),
        RUN_ID,
    ),
    key=("recipe", "dataset", "policy"),
    derived=True,
    in_summary=False,
)

EXPERIMENT_CELLS = Table(
    name="experiment_cells",
    one_row_per="stage of an arm of an experiment under a seed",
    notes="An arm without stages, the untrained student, has one row of stage 0.",
    columns=(
        RECIPE,
        Column("experiment", "VARCHAR", "Name of the experiment."),
        Column("arm", "VARCHAR", "Name of the arm."),
        Column("seed", "BIGINT", "The seed that it is trained from."),
        Column("stage", "INTEGER", "Its place in the arm, from 1; 0: not trained."),
        CHECKPOINT_ID.here("The checkpoint after the stage.").of("checkpoints.checkpoint_id"),
        DATASET.here("Dataset it was trained on; NULL: not trained.").optional().of("sft_examples.dataset"),
        POLICY.here("By what the dataset was chosen; NULL: not trained.").optional().of("sft_examples.policy"),
        DATASET_ID.optional().of("sft_examples.dataset_id"),
        Column("num_examples", "BIGINT", "Examples trained on.", ("sft_examples.example_id",)),
        Column("num_tokens", "BIGINT", "Tokens in them; every epoch sees them once.", ("sft_examples.input_ids",)),
        Column("num_steps", "BIGINT", "Optimiser steps."),
        RUN_ID,
    ),
    key=("recipe", "experiment", "arm", "seed", "stage"),
    references=(Reference(("checkpoint_id",), "checkpoints"),),
    derived=True,
    in_summary=False,
)

TABLES = (EXPERIMENT_DATASETS, EXPERIMENT_CELLS)
