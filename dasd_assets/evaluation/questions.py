"""The held-out questions (report §7): benchmark files -> `benchmark_questions`."""

from collections.abc import Sequence
from contextlib import suppress

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import declare
from dasd_assets.records.provenance import origin
from dasd_assets.rules.instructions import asked_as
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.verdict import VERIFYING
from dasd_resources.benchmarks.questions import benchmark_prompts
from dasd_resources.chat import Chat, UnsupportedQuestion
from dasd_resources.content_hash import content_hash
from dasd_resources.landing.prompt_files import Prompt
from dasd_resources.landing.question_identity import judged_question_id
from dasd_resources.recipe import Benchmark, Recipe, RecipeError
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.verifiers.catalogue import reads_metadata

EVALUATION_VERSION = "2"
EVALUATION = Rule("evaluation", EVALUATION_VERSION, (), (VERIFYING,))


def question_rows(benchmark: Benchmark) -> list[Row]:
    """The `benchmark_questions` rows of a benchmark. Raises RecipeError for one that cannot be judged, or twice."""
    rows: dict[str, Row] = {}
    for prompt in benchmark_prompts(benchmark):
        row = _question_row(prompt, benchmark)
        twin = rows.setdefault(row["question_id"], row)
        if twin is not row:
            where = f"evaluation.benchmarks {benchmark.name}: path {benchmark.path}, line {row['source_line']}"
            raise RecipeError(f"{where}: the same question as line {twin['source_line']}; correct or remove the line")
    return list(rows.values())


def _question_row(prompt: Prompt, benchmark: Benchmark) -> Row:
    return {
        "benchmark": benchmark.name,
        "question_id": judged_question_id(
            prompt.question, prompt.system_prompt, prompt.domain, prompt.verifier, prompt.reference_answer
        ),
        "domain": prompt.domain,
        "question": prompt.question,
        "system_prompt": prompt.system_prompt,
        "reference_answer": prompt.reference_answer,
        "verifier": prompt.verifier,
        "metadata": prompt.metadata,
        "judged_by": _judged_by(prompt),
        "source_line": prompt.source_line,
        "instruction": benchmark.instruction,
    }


def _judged_by(prompt: Prompt) -> str | None:
    """Hash of what the question's id does not hold of its judge: the metadata, where the verifier reads it."""
    if prompt.metadata is None or prompt.verifier is None or not reads_metadata(prompt.verifier):
        return None
    return content_hash(prompt.metadata)[:16]


def benchmark_rows(recipe: Recipe) -> list[Row]:
    """The `benchmark_questions` rows of all benchmarks of a recipe; raises as `question_rows` does."""
    return [row for benchmark in recipe.evaluation.benchmarks for row in question_rows(benchmark)]


def benchmark_version(rows: Sequence[Row]) -> str:
    """Identifies the benchmarks by what is asked, and how it is judged; an instruction counts where there is one."""
    known = [[row[key] for key in ("benchmark", "question_id", "metadata")] for row in rows]
    instructed = [[row["instruction"]] if row["instruction"] is not None else [] for row in rows]
    return content_hash([a + b for a, b in zip(known, instructed, strict=True)])[:16]


def longest_prompt(chat: Chat, rows: Sequence[Row]) -> int:
    """Tokens of the longest question as a model is asked it, of those that its chat template takes; 0 if it takes none.

    rows: of `benchmark_questions`.
    """
    for row in sorted(rows, key=lambda row: len(row["question"]) + len(row["system_prompt"] or ""), reverse=True):
        with suppress(UnsupportedQuestion):
            return len(chat.prompt_ids(asked_as(row["question"], row["instruction"]), row["system_prompt"]))
    return 0


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
                transaction.replace(
                    "benchmark_questions", {"benchmark": name}, pl.DataFrame(own, infer_schema_length=None)
                )
        return dg.MaterializeResult(
            data_version=dg.DataVersion(benchmark_version(rows)),
            metadata=declared.result(
                warehouse,
                len(rows),
                {"benchmark": recipe.evaluation.benchmarks[0].name},
                **{f"num_{name}": len(own) for name, own in of.items()},
                **{f"file_{b.name}": dg.MetadataValue.path(b.path) for b in recipe.evaluation.benchmarks if b.path},
            ),
        )

    return [benchmark_questions]
