"""What has become of every answer that is wanted: answered, failed, or not asked yet.

`evaluations` has the answers, and `failed_requests` the ids of those that could not be had; `evaluation_requests` says
which question such an id is of. A request that failed counts as wrong until a later run answers it. One that no server
took (`NOT_ATTEMPTS`) was not asked yet, nor was one that a killed run did not come to. Of a model that was asked with
several prompts, the answers to the last count alone (`rules/last_prompts`).
"""

from collections.abc import Iterable, Sequence

import polars as pl

from dasd_assets.rules.checkpoints import checkpoint_names, current_checkpoints
from dasd_assets.rules.last_prompts import ANSWER, ASKED, OF_CHECKPOINTS, failed_answers, last_prompts, newest_answers
from dasd_assets.rules.verdict import verifier_version
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse

SETTING = ["checkpoint_id", "benchmark", "temperature"]
_WANTED = f"{ANSWER}, verifier_version, instruction, judged_by"


def _same(other: str) -> str:
    """The condition that a row of another table is of the wanted answer."""
    return " AND ".join(f"{other}.{name} IS NOT DISTINCT FROM w.{name}" for name in _WANTED.split(", "))


_OUTCOMES = f"""WITH {ASKED},
    wanted AS (
        SELECT m.checkpoint_id, q.benchmark, t.temperature, $top_p::DOUBLE AS top_p, asked.max_tokens, q.question_id,
            q.instruction, q.judged_by, s.sample_index::INTEGER AS sample_index, $verifier AS verifier_version
        FROM benchmark_questions q JOIN asked USING (benchmark),
            (SELECT unnest($ids::VARCHAR[]) AS checkpoint_id) m,
            (SELECT unnest($temperatures::DOUBLE[]) AS temperature) t,
            range($samples) s(sample_index)),
    asked_last AS ({last_prompts(OF_CHECKPOINTS)}),
    answers AS ({newest_answers(OF_CHECKPOINTS, _WANTED)}),
    failed AS ({failed_answers(OF_CHECKPOINTS, _WANTED)})
    SELECT {", ".join(f"w.{name}" for name in _WANTED.split(", "))}, e.evaluation_id,
        CASE WHEN e.evaluation_id IS NOT NULL THEN 'answered' WHEN f.checkpoint_id IS NOT NULL THEN 'failed'
            ELSE 'missing' END AS status,
        CASE WHEN e.evaluation_id IS NOT NULL THEN e.correct WHEN f.checkpoint_id IS NOT NULL THEN FALSE END AS correct,
        e.kind, e.num_tokens, e.finish_reason = 'length' AS cut_off
    FROM wanted w LEFT JOIN answers e ON {_same("e")} LEFT JOIN failed f ON {_same("f")}
    ORDER BY w.checkpoint_id, w.benchmark, w.temperature, w.question_id, w.sample_index"""


def outcomes(
    warehouse: Warehouse, recipe: Recipe, checkpoints: Sequence[str], *, unasked: bool = False
) -> pl.DataFrame:
    """One row per answer that the recipe's `evaluation` wants of these checkpoints, in a fixed order.

    The columns of its id; evaluation_id, None unless answered; status: `answered`, `failed`, `missing`; correct: False
    where failed, None where missing; kind, num_tokens, cut_off: None unless answered. unasked: with
    evaluations of which nothing was asked yet, which are left out else.
    """
    found = warehouse.read(_OUTCOMES, evaluation_params(recipe, checkpoints))
    return found if unasked else found.filter((pl.col("status") != "missing").any().over(SETTING))


def evaluation_params(recipe: Recipe, checkpoints: Iterable[str]) -> dict[str, object]:
    """The parameters of a query for what the recipe's `evaluation` asks of these checkpoints; `ASKED` takes two."""
    return {
        "names": [benchmark.name for benchmark in recipe.evaluation.benchmarks],
        "limits": [benchmark.max_tokens for benchmark in recipe.evaluation.benchmarks],
        "ids": list(dict.fromkeys(checkpoints)),
        "top_p": recipe.evaluation.top_p,
        "samples": recipe.evaluation.samples_per_question,
        "temperatures": list(recipe.evaluation.temperatures),
        "verifier": verifier_version(recipe),
    }


def checkpoint_outcomes(warehouse: Warehouse, recipe: Recipe) -> pl.DataFrame:
    """`outcomes` of all current checkpoints of a recipe, with their names as `checkpoint`, in the order of training."""
    current = current_checkpoints(warehouse, recipe).select("checkpoint_id", checkpoint="name")
    found = outcomes(warehouse, recipe, current["checkpoint_id"].to_list())
    named = found.join(current, on="checkpoint_id", maintain_order="left")
    return named.with_columns(pl.col("checkpoint").cast(pl.Enum(checkpoint_names(recipe))))
