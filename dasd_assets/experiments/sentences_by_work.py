"""How often a sentence is the teacher's own where the work is right and where a step of it is wrong.

For an experiment that compares the two: a score that counts teacher sentences takes what has more of them.
"""

import json
from collections.abc import Iterable

import polars as pl

from dasd_assets.experiments.dataset_traits import clustered_error, mean_of
from dasd_assets.experiments.result_table import markdown_table, percent
from dasd_assets.records.current_checkpoint import current_checkpoint
from dasd_assets.rules.asset_names import MIXED
from dasd_assets.rules.candidates import (
    AT_ANY_TEMPERATURE,
    HELD_OUT,
    JUDGED,
    OF_BATCHES,
    OF_RECIPE,
    candidate_params,
    held_out_share,
)
from dasd_assets.rules.filters.catalogue import CORRECTNESS, WORK, filter_version
from dasd_assets.rules.scores import threshold_version
from dasd_resources.recipe import Recipe
from dasd_resources.recipe.experiment import Experiment
from dasd_resources.storage.warehouse import Row, Warehouse

_SHARES = {"last": "the last sentence", "earlier": "those before it"}
_COLUMNS = ("domain", "work", "responses", *_SHARES.values())
_WORK = {True: "sound", False: "a wrong step"}
_LEGEND = """How many sentences are teacher sentences, in %, ± a standard error over questions: of all scored responses
with a right answer, of the temperatures that arms are trained on, by whether the filter `work` knows a step to be
wrong."""


def sentences_by_work(warehouse: Warehouse, recipe: Recipe, experiment: Experiment) -> list[str]:
    """The section of the page of an experiment with an arm that requires sound work; none for others."""
    required = [stage.filters.required or () for stages in experiment.arms.values() for stage in stages]
    if not any(WORK in names for names in required):
        return []
    shares = shares_by_work(warehouse, recipe, experiment.datasets - {MIXED})
    return ["## Teacher sentences by work", markdown_table(_COLUMNS, map(_row, shares.to_dicts())), _LEGEND]


def shares_by_work(warehouse: Warehouse, recipe: Recipe, datasets: Iterable[str]) -> pl.DataFrame:
    """(domain, sound, responses, last, last_error, earlier, earlier_error): shares of teacher sentences.

    Of the batches that these datasets were chosen from, without questions that the recipe holds out.
    """
    names = list(datasets)
    teacher, student = (
        str(current_checkpoint(warehouse, recipe, of)["checkpoint_id"]) for of in ("teacher", "student")
    )
    query = f"""WITH typed AS (SELECT response_id, sentence_type = 'teacher' AS is_teacher,
            sentence_index = max(sentence_index) OVER (PARTITION BY response_id) AS is_last FROM sentence_types
            WHERE student_fingerprint = $student AND threshold_version = $threshold_version),
        judged AS (SELECT response_id, bool_and(passed) FILTER (filter = '{WORK}') AS sound,
            bool_and(passed) FILTER (filter = '{CORRECTNESS}' AND {JUDGED}) AS is_right
            FROM response_verdicts v
            WHERE filter_version = $filter_version GROUP BY ALL)
        SELECT p.domain, sound, r.prompt_id, count(DISTINCT response_id) AS responses,
            count(*) FILTER (is_last AND is_teacher)::DOUBLE AS last, count(*) FILTER (is_last) AS last_count,
            count(*) FILTER (NOT is_last AND is_teacher)::DOUBLE AS earlier,
            count(*) FILTER (NOT is_last) AS earlier_count
        FROM responses r JOIN judged USING (response_id) JOIN typed USING (response_id) JOIN prompts p USING (prompt_id)
        WHERE {OF_RECIPE} AND {AT_ANY_TEMPERATURE} AND {OF_BATCHES} AND NOT {HELD_OUT}
          AND is_right AND sound IS NOT NULL AND is_teacher IS NOT NULL
        GROUP BY ALL ORDER BY ALL"""
    params = {
        **candidate_params(recipe, teacher),
        "student": student,
        "threshold_version": threshold_version(recipe),
        "filter_version": filter_version(recipe, student),
        "temperatures": [recipe.datasets[name] for name in names],
        "held_out_share": held_out_share(recipe),
        "batches": _batches(warehouse, recipe, names),
    }
    questions = warehouse.read(query, params)
    of_all = questions.group_by("domain", "sound", maintain_order=True)
    errors = [clustered_error(name).alias(f"{name}_error") for name in _SHARES]
    return of_all.agg(pl.col("responses").sum(), *map(mean_of, _SHARES), *errors)


def _batches(warehouse: Warehouse, recipe: Recipe, datasets: list[str]) -> list[str]:
    """The batches that the recipe, or a stage, has chosen these datasets from."""
    query = """SELECT rule FROM (SELECT recipe, dataset, rule FROM selection_rules
            UNION ALL SELECT recipe, dataset, rule FROM experiment_datasets)
        WHERE recipe = $recipe AND list_contains($datasets, dataset)"""
    rules = map(json.loads, warehouse.read(query, {"recipe": recipe.name, "datasets": datasets})["rule"])
    return sorted({batch for rule in rules for batch in rule["batches"]})


def _row(row: Row) -> dict[str, str]:
    shares = (percent(row[name], row[f"{name}_error"]) for name in _SHARES)
    values = (row["domain"], _WORK[row["sound"]], f"{row['responses']:,}", *shares)
    return dict(zip(_COLUMNS, values, strict=True))
