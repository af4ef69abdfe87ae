"""The held-out questions (report §7): benchmark files -> `benchmark_questions`."""

from collections.abc import Sequence
from pathlib import Path

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import origin
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.verdict import VERIFYING
from dasd_resources.content_hash import content_hash
from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.landing.question_identity import judged_question_id
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.recipe import Benchmark, Recipe, RecipeError
from dasd_resources.storage.warehouse import Row, Warehouse

EVALUATION_VERSION = "1"
EVALUATION = Rule("evaluation", EVALUATION_VERSION, (), (VERIFYING,))


def question_rows(benchmark: Benchmark) -> list[Row]:
    """The `benchmark_questions` rows of a file. Raises RecipeError unless every line is a question with a verifier."""
    path = Path(benchmark.path)
    key = f"evaluation.benchmarks {benchmark.name}: path {benchmark.path}"
    if not path.is_file():
        raise RecipeError(
            f"{key}: there is no such file; put one there, in the format of the prompt files (docs/landing.md; every "
            "line with a verifier), or name another in a recipe of your own"
        )
    rows: dict[str, Row] = {}
    for record in read_prompts(path, mappings=[benchmark.columns] if benchmark.columns else []):
        row = _question_row(record, benchmark, key)
        twin = rows.setdefault(row["question_id"], row)
        if twin is not row:
            first, line = twin["source_line"], row["source_line"]
            raise RecipeError(f"{key}, line {line}: the same question as line {first}; correct or remove the line")
    return list(rows.values())


def _question_row(record: Prompt | RejectedPrompt, benchmark: Benchmark, key: str) -> Row:
    if isinstance(record, RejectedPrompt) and record.line is not None:
        record = record.line  # the same question with another answer may be held out, too
    if isinstance(record, RejectedPrompt):
        raise RecipeError(f"{key}, line {record.source_line}: {record.reason}; correct or remove the line")
    if record.verifier is None:
        raise RecipeError(f"{key}, line {record.source_line}: no verifier, so no answer could be judged; name one")
    return {
        "benchmark": benchmark.name,
        "question_id": judged_question_id(
            record.question, record.system_prompt, record.domain, record.verifier, record.reference_answer
        ),
        "question": record.question,
        "system_prompt": record.system_prompt,
        "reference_answer": record.reference_answer,
        "verifier": record.verifier,
        "metadata": record.metadata,
        "source_line": record.source_line,
    }


def benchmark_rows(recipe: Recipe) -> list[Row]:
    """The `benchmark_questions` rows of all benchmarks of a recipe; raises as `question_rows` does."""
    return [row for benchmark in recipe.evaluation.benchmarks for row in question_rows(benchmark)]


def benchmark_version(rows: Sequence[Row]) -> str:
    """Identifies the benchmarks by what their files hold."""
    return content_hash([[row[key] for key in ("benchmark", "question_id", "metadata")] for row in rows])[:16]


def asked_questions(warehouse: Warehouse, recipe: Recipe) -> pl.DataFrame:
    """The `benchmark_questions` rows of the recipe's benchmarks, in the order in which they are asked."""
    return warehouse.read(
        "SELECT * FROM benchmark_questions WHERE list_contains($names, benchmark) ORDER BY benchmark, question_id",
        {"names": [benchmark.name for benchmark in recipe.evaluation.benchmarks]},
    )


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`benchmark_questions`."""
    declared = declare(
        recipe,
        "benchmark_questions",
        "benchmark_questions",
        rules=[EVALUATION],
        parts=["evaluation.benchmarks"],
    )

    @declared.asset(
        group="training_results",
        kinds={"ducklake"},
        description="One row per held-out question of the recipe's benchmarks.",
    )
    def benchmark_questions(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        rows = benchmark_rows(recipe)
        of = {b.name: [row for row in rows if row["benchmark"] == b.name] for b in recipe.evaluation.benchmarks}
        with warehouse.commit(origin(context)) as transaction:
            for name, own in of.items():
                transaction.replace("benchmark_questions", {"benchmark": name}, pl.DataFrame(own))
        return dg.MaterializeResult(
            data_version=dg.DataVersion(benchmark_version(rows)),
            metadata=declared.result(
                warehouse,
                len(rows),
                {"benchmark": recipe.evaluation.benchmarks[0].name},
                **{f"num_{name}": len(own) for name, own in of.items()},
                **{f"file_{b.name}": dg.MetadataValue.path(b.path) for b in recipe.evaluation.benchmarks},
            ),
        )

    return [benchmark_questions]
