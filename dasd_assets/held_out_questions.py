"""Benchmark files, and others that the recipe names -> `held_out_questions`: landed questions are compared with them.

Left out where the recipe says `decontamination: null`.
"""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl

from dasd_assets.evaluation.questions import EVALUATION, benchmark_rows
from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import origin
from dasd_assets.rules.rule import Rule
from dasd_resources.content_hash import content_hash
from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.landing.rejections import MALFORMED, RejectedPrompt
from dasd_resources.recipe import Recipe, RecipeError
from dasd_resources.storage.warehouse import Row, Warehouse

HELD_OUT_VERSION = "1"
HELD_OUT = Rule("held-out questions", HELD_OUT_VERSION)


def held_out_rows(recipe: Recipe) -> Sequence[Row]:
    """The `held_out_questions` rows of a recipe. Raises RecipeError where a file is missing, or holds none."""
    if recipe.decontamination is None:
        return []
    rows = [
        {"source": row["benchmark"], "question_id": row["question_id"], "question": row["question"]}
        for row in benchmark_rows(recipe)
    ]
    return [*rows, *(row for file in recipe.decontamination.files for row in _file_rows(Path(file)))]


def held_out_version(rows: Sequence[Row]) -> str:
    """Identifies the questions by their texts."""
    return content_hash([[row["source"], row["question_id"], row["question"]] for row in rows])[:16]


def _file_rows(path: Path) -> Sequence[Row]:
    key = f"decontamination.files {path}"
    if not path.is_file():
        raise RecipeError(f"{key}: there is no such file; put one there, in the format of prompt files, or remove it")
    records = list(read_prompts(path))
    for record in records:
        if isinstance(record, RejectedPrompt) and record.kind in MALFORMED:
            raise RecipeError(f"{key}, line {record.source_line}: {record.reason}; correct or remove the line")
    found = [record for record in records if isinstance(record, Prompt)]
    if not found:
        raise RecipeError(f"{key}: it holds no question; each line needs a `question`, as in prompt files")
    return [{"source": path.name, "question_id": one.prompt_id, "question": one.question} for one in found]


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`held_out_questions`, unless the recipe compares with none."""
    if recipe.decontamination is None:
        return []
    declared = declare(
        recipe,
        "held_out_questions",
        "held_out_questions",
        rules=[HELD_OUT, EVALUATION],
        parts=["name", "evaluation.benchmarks", "decontamination.files"],
        rows=f"recipe = '{recipe.name}'",
    )

    @declared.asset(
        group="inputs",
        kinds={"ducklake"},
        description="One row per question that nothing is trained on: of benchmarks, and of `decontamination.files`.",
    )
    def held_out_questions(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        rows = held_out_rows(recipe)
        table = pl.DataFrame(rows, infer_schema_length=None).unique(["source", "question_id"], maintain_order=True)
        with warehouse.commit(origin(context)) as transaction:
            transaction.replace(
                "held_out_questions", {"recipe": recipe.name}, table.with_columns(recipe=pl.lit(recipe.name))
            )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(held_out_version(rows)),
            metadata=declared.result(
                warehouse,
                table.height,
                {"recipe": recipe.name},
                **{f"num_{name}": count for name, count in table["source"].value_counts(sort=True).iter_rows()},
            ),
        )

    return [held_out_questions]
