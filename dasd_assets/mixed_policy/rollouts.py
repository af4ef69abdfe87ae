"""Answers of the distilled student to the questions of its latest dataset -> `student_rollouts`.

The reference is the selected response of the question; a rollout may have ⌈1.5 · its length⌉ tokens, both counted in
student tokens. One that hits the cap is cut off: there the student has strayed (report Figure 7).
"""

import math

import dagster as dg
import polars as pl

from dasd_assets.generations import KINDS, sampling_request, seed_of
from dasd_assets.records.code_versions import code_version
from dasd_assets.records.plots import cut_off_rates, inline
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import table
from dasd_assets.service.staleness import retry_tag
from dasd_assets.training import current_checkpoint
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engine import Completion, GenerationRequest
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import MixedPolicy, Recipe
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse

DECISIVE = ("checkpoint_id", "prompt_id", "reference_response_id", "max_tokens", "temperature", "top_p")


def length_cap(num_reference_tokens: int, cap: float) -> int:
    """⌈cap · length⌉ tokens; the product is rounded first, so that 1.1 · 50 is 55."""
    return math.ceil(round(cap * num_reference_tokens, 6))


def draw_questions(references: pl.DataFrame, num_questions: int | None, seed: int) -> pl.DataFrame:
    """One reference per question; of all questions, or of `num_questions` drawn by a hash of seed and prompt id."""
    ordered = sorted(references["prompt_id"].unique(), key=lambda key: content_hash([seed, "rollout", key]))
    drawn = references.filter(pl.col("prompt_id").is_in(ordered[:num_questions]))
    return drawn.unique("prompt_id", keep="first", maintain_order=True)


def rollout_id(key: Row) -> str:
    """Names everything that decides a rollout; key: the columns of its row."""
    return content_hash([key[name] for name in DECISIVE])[:32]


def wanted_rollouts(references: pl.DataFrame, checkpoint: str, policy: MixedPolicy) -> list[Row]:
    """Rows with rollout_id and max_tokens added.

    references: prompt_id, question, system_prompt, response_id, reference_num_tokens.
    """
    wanted: list[Row] = []
    for row in references.iter_rows(named=True):
        cap = length_cap(row["reference_num_tokens"], policy.length_cap)
        key = {
            "checkpoint_id": checkpoint,
            "prompt_id": row["prompt_id"],
            "reference_response_id": row["response_id"],
            "max_tokens": cap,
            "temperature": policy.rollout_temperature,
            "top_p": policy.rollout_top_p,
        }
        wanted.append({**row, "rollout_id": rollout_id(key), "max_tokens": cap})
    return wanted


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


def current_rollouts(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> pl.DataFrame:
    """The `student_rollouts` this recipe wants now, in the order of rollout_id, with their questions.

    Columns rollout_id, prompt_id, reference_num_tokens, cut_off, text, offsets, question, system_prompt: the token ids
    of 50,000 rollouts need not be in memory.
    """
    checkpoint, _ = distilled_student(warehouse, engines, recipe)
    ids = [row["rollout_id"] for row in current_wanted(warehouse, engines, recipe, checkpoint)]
    query = """SELECT r.rollout_id, r.prompt_id, r.reference_num_tokens, r.cut_off, r.text, r.offsets,
            p.question, p.system_prompt
        FROM student_rollouts r JOIN prompts p USING (prompt_id)
        WHERE r.checkpoint_id = $checkpoint AND r.rollout_id IN (SELECT unnest($ids::VARCHAR[]))
        ORDER BY r.rollout_id"""
    return warehouse.read(query, {"checkpoint": checkpoint, "ids": ids})


def distilled_student(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> tuple[str, PromptedModel]:
    """Checkpoint id and model of the last off-policy stage."""
    stage = f"stage{len(recipe.datasets)}"
    row = current_checkpoint(warehouse, recipe, stage, f"checkpoint_{stage}")
    spec = recipe.student.model_copy(update={"model": row["path"]})
    return str(row["checkpoint_id"]), engines.find(spec, f"checkpoint {row['checkpoint_id']}")


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`student_rollouts`."""
    policy = recipe.mixed_policy
    checkpoint_asset = f"checkpoint_stage{len(recipe.datasets)}"
    rollouts_table = table(
        "student_rollouts",
        selected_responses=f"selected_responses_{recipe.last_dataset}",
        prompts="prompts",
        student_logprobs="student_logprobs",
        checkpoints=checkpoint_asset,
    ).made_with(
        code_version(
            recipe,
            "seed",
            "mixed_policy.num_questions",
            "mixed_policy.length_cap",
            "mixed_policy.rollout_temperature",
            "mixed_policy.rollout_top_p",
        )
    )

    @dg.asset(
        deps=[checkpoint_asset, f"sft_dataset_{recipe.last_dataset}"],
        group_name="training_mixed_policy",
        kinds={"ducklake", KINDS[recipe.student.engine]},
        metadata=rollouts_table.definition,
        pool="engine",
        code_version=rollouts_table.code_version,
        description="One row per answer of the distilled student, capped relative to the teacher's answer.",
    )
    def student_rollouts(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        checkpoint, student = distilled_student(warehouse, engines, recipe)
        wanted = {row["rollout_id"]: row for row in current_wanted(warehouse, engines, recipe, checkpoint)}
        present = warehouse.read("SELECT rollout_id FROM student_rollouts")["rollout_id"]
        requests = [_request(wanted[key], student, policy) for key in missing(wanted, present)]
        with Ledger(warehouse, "student_rollouts", origin(context)) as ledger:
            completions = logged(engines.generate(student, requests), len(requests), "rollouts", context.log.info)
            ledger.collect(completions, lambda c: rollout_row(c, wanted[c.request_id], checkpoint, student, policy))
        rollouts = current_rollouts(warehouse, engines, recipe)
        return dg.MaterializeResult(
            data_version=content_version(rollouts["rollout_id"]),
            tags=retry_tag(ledger.num_retryable),
            metadata=rollouts_table.result(
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


def current_wanted(warehouse: Warehouse, engines: Engines, recipe: Recipe, checkpoint: str) -> list[Row]:
    """The rollouts this recipe wants of a checkpoint now, made or not.

    The reference's length is that of its scored tokens, end of turn (offset -1) excluded.
    """
    query = """SELECT s.prompt_id, s.response_id, p.question, p.system_prompt,
            len(list_filter(l.offsets, lambda o: o >= 0)) AS reference_num_tokens
        FROM selected_responses s JOIN prompts p USING (prompt_id) JOIN student_logprobs l USING (response_id)
        WHERE s.recipe = $recipe AND s.dataset = $dataset AND s.policy = 'das' AND l.student_fingerprint = $student
        ORDER BY s.rank, s.response_id"""
    student = engines.find(recipe.student, "student.model")
    params = {"recipe": recipe.name, "dataset": recipe.last_dataset, "student": student.fingerprint}
    references = draw_questions(warehouse.read(query, params), recipe.mixed_policy.num_questions, recipe.seed)
    return wanted_rollouts(references, checkpoint, recipe.mixed_policy)


def _request(wanted: Row, student: PromptedModel, policy: MixedPolicy) -> GenerationRequest:
    prompt = student.chat.prompt_ids(wanted["question"], wanted["system_prompt"])
    temperature, top_p = policy.rollout_temperature, policy.rollout_top_p
    return sampling_request(student, wanted["rollout_id"], prompt, temperature, top_p, wanted["max_tokens"])
