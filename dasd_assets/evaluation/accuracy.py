"""Accuracy of the teacher, the student and every stage on held-out questions (report §7): avg@k."""

from collections.abc import Sequence

import polars as pl

from dasd_assets.rules.checkpoints import checkpoint_names, current_checkpoints
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.verdict import verifier_version
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Warehouse

ACCURACY_VERSION = "1"
ACCURACY = Rule("accuracy", ACCURACY_VERSION)
BY = ["checkpoint", "benchmark", "temperature"]


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
            SEMI JOIN benchmark_questions q ON q.benchmark = evaluations.benchmark
                AND q.question_id = evaluations.question_id
                AND q.instruction IS NOT DISTINCT FROM evaluations.instruction
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
