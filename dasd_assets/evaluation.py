"""Accuracy of the teacher, the student and every stage on held-out questions (report §7): avg@k.

Benchmark files -> `benchmark_questions`; with `checkpoints` -> `evaluations`, a ledger with one row per sampled answer.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
import numpy as np
import polars as pl

from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.markdown import table
from dasd_assets.records.plots import inline, labelled_axes, with_legend
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import retry_tags
from dasd_assets.records.unsafe import confinement_of, sandbox_figure
from dasd_assets.rules.asset_names import checkpoint_asset, dataset_asset
from dasd_assets.rules.checkpoints import CHAIN, checkpoint_names, current_checkpoints, trained_names
from dasd_assets.rules.ids import evaluation_id
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.sampling import sampling_request
from dasd_assets.rules.stored_answers import stored_answers
from dasd_assets.rules.verdict import VERIFYING, VERIFYING_LIMITS, judge_answer, not_decided, verifier_version
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engine import Completion, Failure, GenerationRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.landing.prompt_files import Prompt, read_prompts
from dasd_resources.landing.question_identity import judged_question_id
from dasd_resources.landing.rejections import RejectedPrompt
from dasd_resources.recipe import Benchmark, Model, Recipe, RecipeError
from dasd_resources.sandbox import USUAL, Confinement
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.verifiers import VERDICTS, in_order

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EVALUATION_VERSION = "1"
BY = ["checkpoint", "benchmark", "temperature"]
PATIENCE = 0.02  # seconds for a verdict before the engine is asked for the next answer, so that a crash loses few
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


def wanted_answers(questions: pl.DataFrame, checkpoint: str, model: PromptedModel, recipe: Recipe) -> dict[str, Row]:
    """evaluation_id -> question and sampling choices, for every answer avg@k asks of a checkpoint."""
    max_tokens = {benchmark.name: benchmark.max_tokens for benchmark in recipe.evaluation.benchmarks}
    wanted: dict[str, Row] = {}
    for question in questions.iter_rows(named=True):
        for temperature in recipe.evaluation.temperatures:
            for index in range(recipe.evaluation.samples_per_question):
                row = {
                    "checkpoint_id": checkpoint,
                    "benchmark": question["benchmark"],
                    "temperature": temperature,
                    "top_p": recipe.evaluation.top_p,
                    "max_tokens": max_tokens[question["benchmark"]],
                    "question_id": question["question_id"],
                    "sample_index": index,
                    "verifier_version": verifier_version(recipe),
                    "template_version": model.chat.template_version,
                }
                wanted[evaluation_id(row)] = {**row, "asked": question}
    return wanted


def answered(completion: Completion, model: PromptedModel) -> Row:
    """The columns of `evaluations` that the model decided."""
    return {
        "response_text": model.chat.read_response(completion.token_ids).text,
        "num_tokens": len(completion.token_ids),
        "finish_reason": completion.finish_reason,
    }


def judged_row(key: str, wanted: Row, answer: Row, confinement: Confinement = USUAL) -> Row:
    """The `evaluations` row of an answer; one without a final answer is wrong."""
    verdict = judge_answer(answer["response_text"], wanted["asked"], confinement)
    return {
        **{name: value for name, value in wanted.items() if name != "asked"},
        "evaluation_id": key,
        "correct": verdict.passed,
        "kind": verdict.kind,
        "reason": verdict.reason,
        **answer,
    }


def accuracy(answers: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Mean accuracy per group, with its standard error clustered by question, and counts.

    answers: correct, question_id and the columns of `by`. All samples of a question count as one observation.
    """
    per_question = answers.group_by([*by, "question_id"]).agg(pl.col("correct").mean(), num_answers=pl.len())
    return (
        per_question.group_by(by)
        .agg(
            accuracy=pl.col("correct").mean(),
            standard_error=pl.col("correct").std() / pl.len().sqrt(),
            num_questions=pl.len(),
            num_answers=pl.col("num_answers").sum(),
        )
        .sort(by)
    )


def checkpoint_accuracy(warehouse: Warehouse, recipe: Recipe) -> pl.DataFrame:
    """`accuracy` of every current checkpoint by its name, benchmark and temperature, in the order of training."""
    return accuracy(checkpoint_answers(warehouse, recipe), BY)


def checkpoint_answers(warehouse: Warehouse, recipe: Recipe) -> pl.DataFrame:
    """(checkpoint, benchmark, temperature, question_id, correct, kind) of all answers asked of current checkpoints.

    Answers to questions that have left their benchmark, or under another token limit, stay stored and do not count.
    """
    chain = current_checkpoints(warehouse, recipe).select("checkpoint_id", checkpoint="name")
    query = """WITH asked AS (SELECT unnest($names::VARCHAR[]) AS benchmark, unnest($limits::INTEGER[]) AS max_tokens)
        SELECT checkpoint_id, benchmark, temperature, question_id, correct, kind
        FROM evaluations JOIN asked USING (benchmark, max_tokens)
            SEMI JOIN benchmark_questions USING (benchmark, question_id)
        WHERE list_contains($ids, checkpoint_id) AND top_p = $top_p AND sample_index < $samples
          AND list_contains($temperatures, temperature) AND verifier_version = $verifier"""
    params = {
        "names": [benchmark.name for benchmark in recipe.evaluation.benchmarks],
        "limits": [benchmark.max_tokens for benchmark in recipe.evaluation.benchmarks],
        "ids": chain["checkpoint_id"].to_list(),
        "top_p": recipe.evaluation.top_p,
        "samples": recipe.evaluation.samples_per_question,
        "temperatures": list(recipe.evaluation.temperatures),
        "verifier": verifier_version(recipe),
    }
    answers = warehouse.read(query, params).join(chain, on="checkpoint_id")
    return answers.with_columns(pl.col("checkpoint").cast(pl.Enum(checkpoint_names(recipe))))


def accuracy_bars(table: pl.DataFrame) -> "Figure":
    """Accuracy with one standard error per checkpoint, one group of bars per benchmark and temperature."""
    figure, axes = labelled_axes("", "accuracy")
    groups = table.partition_by("benchmark", "temperature", maintain_order=True)
    for number, group in enumerate(groups):
        position = np.arange(group.height) + number * 0.8 / len(groups)
        label = f"{group['benchmark'][0]}, T={group['temperature'][0]:g}"
        errors = group["standard_error"].fill_null(0)
        axes.bar(position, group["accuracy"], 0.75 / len(groups), yerr=errors, capsize=2, label=label)
        axes.set_xticks(np.arange(group.height), list(group["checkpoint"]), fontsize=8)
    axes.set_ylim(0, 1.15)
    return with_legend(figure, axes, columns=2)


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`benchmark_questions` and `evaluations`."""
    return [_questions(recipe), _evaluations(recipe)]


def _questions(recipe: Recipe) -> dg.AssetsDefinition:
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

    return benchmark_questions


def _evaluations(recipe: Recipe) -> dg.AssetsDefinition:
    models = [checkpoint_asset(name) for name in checkpoint_names(recipe)]
    declared = declare(
        recipe,
        "evaluations",
        ["evaluations", "failed_requests"],
        reads={
            "benchmark_questions": "benchmark_questions",
            "checkpoints": models,
            "sft_examples": list(map(dataset_asset, trained_names(recipe))),
            "empty_datasets": (),
        },
        rules=[EVALUATION, CHAIN],
        parts=["evaluation", *VERIFYING_LIMITS],
    )

    @declared.asset(
        group="training_results",
        kinds={"ducklake", ENGINES[recipe.student.engine].ui_kind},
        pool="engine",
        description="One row per answer of a model to a held-out question, judged by its verifier.",
    )
    def evaluations(context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines) -> dg.MaterializeResult:
        questions = warehouse.read(
            "SELECT * FROM benchmark_questions WHERE list_contains($names, benchmark) ORDER BY benchmark, question_id",
            {"names": [benchmark.name for benchmark in recipe.evaluation.benchmarks]},
        )
        confinement = confinement_of(recipe, context.log.warning)
        ids: list[str] = []
        ledgers: list[tuple[Ledger, Model]] = []
        for row in current_checkpoints(warehouse, recipe).iter_rows(named=True):
            spec = recipe.teacher if row["name"] == "teacher" else recipe.student
            spec = spec.model_copy(update={"model": row["path"]})
            if ENGINES[spec.engine].absent:
                context.log.info(f"{row['name']} {spec.stands_for} is not here, so its accuracy is not known")
                continue
            model = engines.find(spec, f"checkpoint {row['checkpoint_id']}")
            wanted = wanted_answers(questions, row["checkpoint_id"], model, recipe)
            ledgers.append((_evaluate(context, warehouse, engines, row["name"], model, wanted, confinement), spec))
            ids += wanted
        return _evaluation_result(warehouse, recipe, ids, retry_tags(ledgers), declared)

    return evaluations


def _evaluate(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    engines: Engines,
    name: str,
    model: PromptedModel,
    wanted: dict[str, Row],
    confinement: Confinement,
) -> Ledger:
    """Have what is missing judged again, where the answer is stored, and else answered; returns its closed ledger."""
    checkpoint = str(next(iter(wanted.values()))["checkpoint_id"])
    query = "SELECT evaluation_id FROM evaluations WHERE checkpoint_id = $checkpoint"
    present = warehouse.read(query, {"checkpoint": checkpoint})["evaluation_id"]
    lacking = {key: wanted[key] for key in missing(wanted, present)}

    with Ledger(warehouse, "evaluations", origin(context)) as ledger, VERDICTS.kept_in(Path(warehouse.home)):
        stored = stored_answers(warehouse, checkpoint, lacking) if lacking else iter(())
        for row in in_order(stored, lambda found: judged_row(found[0], wanted[found[0]], found[1], confinement)):
            ledger.add(row)
            del lacking[row["evaluation_id"]]
        requests = [_request(key, row, model) for key, row in lacking.items()]
        results = logged(engines.generate(model, requests), len(requests), f"answers of {name}", context.log.info)
        given = (r if isinstance(r, Failure) else (r.request_id, answered(r, model)) for r in results)
        ledger.collect(in_order(given, lambda result: _judged(result, wanted, confinement), PATIENCE), lambda row: row)
    return ledger


def _judged(result: tuple[str, Row] | Failure, wanted: dict[str, Row], confinement: Confinement) -> Row | Failure:
    return result if isinstance(result, Failure) else judged_row(result[0], wanted[result[0]], result[1], confinement)


def _request(key: str, wanted: Row, model: PromptedModel) -> GenerationRequest:
    asked = wanted["asked"]
    prompt = model.chat.prompt_ids(asked["question"], asked["system_prompt"])
    return sampling_request(model, key, prompt, wanted["temperature"], wanted["top_p"], wanted["max_tokens"])


def _evaluation_result(
    warehouse: Warehouse, recipe: Recipe, ids: list[str], tags: dict[str, str], declared: Declaration
) -> dg.MaterializeResult:
    answers = checkpoint_answers(warehouse, recipe)
    scores = accuracy(answers, BY)
    newest = scores.filter(pl.col("checkpoint") == pl.col("checkpoint").max())
    return dg.MaterializeResult(
        data_version=content_version(ids),
        tags=tags,
        metadata=declared.result(
            warehouse,
            len(ids),
            {"checkpoint_id": current_checkpoints(warehouse, recipe)["checkpoint_id"][-1]},
            **{
                f"accuracy_of_{r['checkpoint']}/{r['benchmark']}/T={r['temperature']:g}": r["accuracy"]
                for r in newest.to_dicts()
            },
            **sandbox_figure(recipe.verification.confinement),
            **not_decided(answers["kind"]),
            accuracies=accuracy_table(scores),
            accuracy=inline(accuracy_bars(scores)),
        ),
    )


def accuracy_table(scores: pl.DataFrame) -> dg.TableMetadataValue:
    """A row per checkpoint, a column per benchmark and temperature: accuracy ± its standard error in %."""
    columns, rows = ["checkpoint"], dict[str, dict[str, str | None]]()
    for row in scores.to_dicts():
        column = f"{row['benchmark']}, T={row['temperature']:g}"
        columns += [] if column in columns else [column]
        accuracy = f"{row['accuracy']:.1%} ± {row['standard_error'] or 0:.1%}"
        rows.setdefault(row["checkpoint"], {"checkpoint": row["checkpoint"]})[column] = accuracy
    return table(columns, [dict.fromkeys(columns) | row for row in rows.values()])
