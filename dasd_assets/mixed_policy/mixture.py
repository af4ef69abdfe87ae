"""The mixed-policy dataset: accepted continuations, kept in balance by off-policy rows of the latest stage's dataset.

-> `selected_responses` and `sft_examples` of dataset `mixed`. Loss is on the whole response by default: masking the
student's prefix did worse in the report (Table 5).
"""

import math
from collections.abc import Iterator, Sequence
from itertools import chain

import dagster as dg
import polars as pl

from dasd_assets.mixed_policy.continuations import (
    CONTINUATIONS,
    CONTINUATIONS_AT_ONCE,
    continuations_read,
    current_continuations,
    current_cuts,
    prefix_end,
)
from dasd_assets.mixed_policy.distilled_student import distilled_checkpoint, looked_up, student_rollouts_now
from dasd_assets.records.declaration import declare
from dasd_assets.records.empty_datasets import record_empty
from dasd_assets.records.provenance import content_version
from dasd_assets.records.selection_rules import mixture_rule, record_rule
from dasd_assets.rules.asset_names import DAS, MIXED, dataset_asset
from dasd_assets.rules.empty_datasets import MixtureCounts, empty_mixture
from dasd_assets.rules.filters.catalogue import FILTERING, continuation_filter_version, required_filters
from dasd_assets.rules.ids import mixed_selection_id, off_policy_order
from dasd_assets.rules.rollouts import current_wanted
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.stored_tokens import OF_CONTINUATIONS, rows_with_tokens
from dasd_assets.selection import write_rows
from dasd_assets.sft_datasets import (
    EXAMPLES,
    audit_figures,
    example_row,
    selected_ids,
    tokens_to_teach,
    write_examples,
)
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Recipe
from dasd_resources.storage.spool import joined
from dasd_resources.storage.warehouse import Row, Warehouse

MIXTURE_VERSION = "1"
MIXTURE = Rule(
    "mixture",
    MIXTURE_VERSION,
    (
        "name",
        "seed",
        "filters.required",
        "mixed_policy.off_policy_ratio",
        "mixed_policy.require_correct",
        "mixed_policy.loss_on_prefix",
    ),
)


def off_policy_draw(ids: Sequence[str], num_on_policy: int, ratio: float, seed: int) -> list[str]:
    """⌈ratio · num_on_policy⌉ of the ids (all, if there are fewer), drawn by a hash of seed and id."""
    num_wanted = math.ceil(round(ratio * num_on_policy, 6))
    return off_policy_order(ids, seed)[:num_wanted]


def continuation_example(row: Row, loss_on_prefix: bool) -> Row:
    """The `sft_examples` row of a continuation: loss on all of it, or only from where the teacher's text begins.

    row: continuation_id, text, prefix_text, and what `example_row` needs.
    """
    start = 0 if loss_on_prefix else prefix_end(row["text"], row["prefix_text"])
    return example_row(row, loss_from=start)


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`mixed_policy_dataset`."""
    declared = declare(
        recipe,
        dataset_asset(MIXED),
        ["sft_examples", "selected_responses", "selection_rules", "published_datasets", "empty_datasets"],
        reads={
            **continuations_read(recipe),
            "continuation_verdicts": "continuation_verdicts",
        },
        looks_up={**looked_up(recipe), "continuation_tokens": "continuation_tokens"},
        models=["teacher_model", "student_model"],
        rules=[MIXTURE, CONTINUATIONS, EXAMPLES, FILTERING],
        rows=f"dataset = '{MIXED}'",
    )

    @declared.asset(
        group="training_mixed_policy",
        kinds={"ducklake"},
        description="One row per training example of the last stage: accepted continuations and off-policy responses.",
    )
    def mixed_policy_dataset(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.fingerprint(recipe.student, "student.model")
        continuations = current_continuations(warehouse, engines, recipe)
        accepted = _accepted(warehouse, recipe, student, continuations)
        num_continued = continuations.height
        empty = _why_empty(warehouse, engines, recipe, student, num_continued) if accepted.is_empty() else None
        record_empty(context, warehouse, recipe, MIXED, empty)
        ids = selected_ids(warehouse, recipe, recipe.last_dataset, DAS)
        ratio = recipe.mixed_policy.off_policy_ratio
        drawn = off_policy_draw(ids, accepted.height, ratio, recipe.seed)
        _write_off_policy(context, warehouse, recipe, drawn)
        record_rule(context, warehouse, recipe, MIXED, mixture_rule(recipe, accepted.height, len(drawn)))
        on_policy = (
            continuation_example(row, recipe.mixed_policy.loss_on_prefix)
            for row in continuations_to_teach(warehouse, student, accepted["continuation_id"].to_list())
        )
        off_policy = map(example_row, tokens_to_teach(warehouse, student, drawn))
        made = write_examples(context, warehouse, recipe, MIXED, DAS, chain(on_policy, off_policy))
        return dg.MaterializeResult(
            data_version=content_version(made["example_id"]),
            metadata=declared.result(
                warehouse,
                made.height,
                {"recipe": recipe.name, "dataset": MIXED, "policy": DAS},
                num_on_policy=accepted.height,
                num_off_policy=len(drawn),
                empty=str(empty["reason"]) if empty else None,
                num_tokens=int(made["num_tokens"].sum()),
                **audit_figures(warehouse, recipe, MIXED),
            ),
        )

    return [mixed_policy_dataset]


def continuations_to_teach(
    warehouse: Warehouse, student: str, ids: Sequence[str], num_read: int = CONTINUATIONS_AT_ONCE
) -> Iterator[Row]:
    """(continuation_id, text, prefix_text, num_prompt_tokens, token_ids, offsets) of these, `num_read` in memory.

    Raises NoTokens if one has none.
    """
    keys = pl.Series(ids, dtype=pl.String)
    parts = joined(warehouse, _TO_TEACH, {"student": student}, OF_CONTINUATIONS.key, keys, num_read)
    return rows_with_tokens(parts, OF_CONTINUATIONS)


_THESE = "continuation_id IN (SELECT unnest($keys::VARCHAR[]))"
_TO_TEACH = f"""SELECT continuation_id, text, prefix_text FROM teacher_continuations WHERE {_THESE}
    UNION ALL BY NAME SELECT continuation_id, num_prompt_tokens, token_ids, offsets, TRUE AS has_tokens
        FROM continuation_tokens WHERE {_THESE} AND student_fingerprint = $student"""


def _accepted(warehouse: Warehouse, recipe: Recipe, student: str, continuations: pl.DataFrame) -> pl.DataFrame:
    """Those of the continuations that passed every required filter."""
    query = """SELECT continuation_id FROM continuation_verdicts
        WHERE filter_version = $version AND list_contains($filters, filter)
        GROUP BY continuation_id HAVING bool_and(passed) AND count(*) = len($filters)"""
    params = {
        "version": continuation_filter_version(recipe, student),
        "filters": list(required_filters(recipe.mixed_policy.require_correct, recipe.filters.required)),
    }
    passed = warehouse.read(query, params)["continuation_id"]
    return continuations.filter(pl.col("continuation_id").is_in(passed.implode()))


def _why_empty(warehouse: Warehouse, engines: Engines, recipe: Recipe, student: str, num_continued: int) -> Row:
    """The `empty_datasets` row, where no continuation was accepted."""
    checkpoint = str(distilled_checkpoint(warehouse, recipe)["checkpoint_id"])
    rollouts = student_rollouts_now(warehouse, engines, recipe)
    counts = MixtureCounts(
        num_wanted=len(current_wanted(warehouse, recipe, student, checkpoint)),
        num_rolled_out=rollouts.height,
        num_cut_off=rollouts.filter("cut_off").height,
        num_cut=len(current_cuts(warehouse, engines, recipe)),
        num_continued=num_continued,
        num_passed=0,
        has_teacher=not ENGINES[recipe.teacher.engine].absent,
    )
    return empty_mixture(recipe.name, MIXED, counts)


def _write_off_policy(context: dg.AssetExecutionContext, warehouse: Warehouse, recipe: Recipe, ids: list[str]) -> None:
    """Record the off-policy rows as the selection of dataset `mixed`, with the rank and score they were selected by."""
    query = """SELECT * EXCLUDE (run_id) REPLACE ($mixed AS dataset, $selection_id AS selection_id)
        FROM selected_responses WHERE recipe = $recipe AND dataset = $dataset AND policy = 'das'
          AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""
    params = {
        "mixed": MIXED,
        "selection_id": mixed_selection_id(MIXED, recipe.name, ids),
        "recipe": recipe.name,
        "dataset": recipe.last_dataset,
        "ids": ids,
    }
    write_rows(context, warehouse, recipe, MIXED, DAS, warehouse.read(query, params))
