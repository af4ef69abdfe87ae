"""Answers of the distilled student to the questions of its latest dataset -> `student_rollouts`.

The reference is the selected response of the question; a rollout may have ⌈1.5 · its length⌉ tokens, both counted in
student tokens. One that hits the cap is cut off: there the student has strayed (report Figure 7).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from dasd_assets.mixed_policy.distilled_student import distilled_student, looked_up, wanted_by
from dasd_assets.records.declaration import declare
from dasd_assets.records.plots import inline, labelled_axes, with_legend
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import retry_tags
from dasd_assets.rules.ids import seed_of
from dasd_assets.rules.rollouts import ROLLOUTS, current_rollouts, current_wanted
from dasd_assets.rules.sampling import sampling_request
from dasd_resources.inference.engine import Completion, GenerationRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import MixedPolicy, Recipe
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NUM_GROUPS = 8  # of rollouts by length, equally large


def rollout_row(
    completion: Completion, wanted: Row, checkpoint: str, student: PromptedModel, policy: MixedPolicy
) -> Row:
    """The `student_rollouts` row of a completion."""
    aligned = student.chat.read_response(completion.token_ids)
    return {
        "rollout_id": completion.request_id,
        "checkpoint_id": checkpoint,
        "prompt_id": wanted["prompt_id"],
        "reference_response_id": wanted["response_id"],
        "reference_num_tokens": wanted["reference_num_tokens"],
        "max_tokens": wanted["max_tokens"],
        "temperature": policy.rollout_temperature,
        "top_p": policy.rollout_top_p,
        "seed": seed_of(completion.request_id),
        "text": aligned.text,
        "token_ids": completion.token_ids,
        "logprobs": completion.logprobs,
        "offsets": aligned.offsets,
        "finish_reason": completion.finish_reason,
        "cut_off": completion.finish_reason == "length",
    }


def cut_off_rates(lengths: Sequence[int], cut_off: Sequence[bool]) -> "Figure":
    """Share of rollouts cut off against the length of their reference, in eight groups of equal size (Figure 7)."""
    figure, axes = labelled_axes("tokens of the teacher's response", "share of rollouts cut off")
    axes.plot(*rates_by_length(lengths, cut_off), marker="o", label=f"n={len(lengths):,}")
    return with_legend(figure, axes)


def rates_by_length(lengths: Sequence[float], cut_off: Sequence[bool]) -> tuple[list[float], list[float]]:
    """Mean length and share cut off, in up to NUM_GROUPS groups of equal size, the shortest first."""
    order = np.argsort(lengths, kind="stable")
    groups = [group for group in np.array_split(order, NUM_GROUPS) if len(group)]
    centres = [float(np.mean(np.asarray(lengths)[group])) for group in groups]
    return centres, [float(np.mean(np.asarray(cut_off)[group])) for group in groups]


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`student_rollouts`."""
    policy = recipe.mixed_policy
    declared = declare(
        recipe,
        "student_rollouts",
        ["student_rollouts", "failed_requests"],
        reads=wanted_by(recipe),
        looks_up=looked_up(recipe),
        models=["student_model"],
        rules=[ROLLOUTS],
    )

    @declared.asset(
        group="training_mixed_policy",
        kinds={"ducklake", ENGINES[recipe.student.engine].ui_kind},
        loads_model=True,
        description="One row per answer of the distilled student, capped relative to the teacher's answer.",
    )
    def student_rollouts(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        checkpoint, student = distilled_student(warehouse, engines, recipe)
        undistilled = engines.fingerprint(recipe.student, "student.model")
        wanted = {row["rollout_id"]: row for row in current_wanted(warehouse, recipe, undistilled, checkpoint)}
        present = warehouse.read("SELECT rollout_id FROM student_rollouts")["rollout_id"]
        todo = missing(wanted, present)
        requests = (_request(wanted[key], student, policy) for key in todo)
        with Ledger(warehouse, "student_rollouts", origin(context)) as ledger:
            completions = logged(engines.generate(student, requests), len(todo), "rollouts", context.log.info)
            ledger.collect(completions, lambda c: rollout_row(c, wanted[c.request_id], checkpoint, student, policy))
        rollouts = current_rollouts(warehouse, recipe, undistilled, checkpoint)
        return dg.MaterializeResult(
            data_version=content_version(rollouts["rollout_id"]),
            tags=retry_tags([(ledger, student.spec)]),
            metadata=declared.result(
                warehouse,
                rollouts.height,
                {"checkpoint_id": checkpoint},
                num_new=ledger.num_added,
                num_failed=len(wanted) - rollouts.height,
                cut_off_share=rollouts.select(pl.col("cut_off").mean()).item(),
                cut_off_rate=inline(
                    cut_off_rates(rollouts["reference_num_tokens"].to_list(), rollouts["cut_off"].to_list())
                ),
            ),
        )

    return [student_rollouts]


def _request(wanted: Row, student: PromptedModel, policy: MixedPolicy) -> GenerationRequest:
    prompt = student.chat.prompt_ids(wanted["question"], wanted["system_prompt"])
    temperature, top_p = policy.rollout_temperature, policy.rollout_top_p
    return sampling_request(student, wanted["rollout_id"], prompt, temperature, top_p, wanted["max_tokens"])
