"""Accuracy of the teacher, the student and every stage on held-out questions (report §7): avg@k."""

from collections.abc import Sequence

import polars as pl

from dasd_assets.evaluation.metrics import accuracy as estimate

BY = ["checkpoint", "benchmark", "temperature"]
_COLUMNS = {
    "accuracy": pl.Float64,
    "standard_error": pl.Float64,
    "num_questions": pl.Int64,
    "num_answers": pl.Int64,
    "num_failed": pl.Int64,
    "num_missing": pl.Int64,
}


def accuracy(answers: pl.DataFrame, by: Sequence[str]) -> pl.DataFrame:
    """Mean accuracy per group, with its standard error clustered by question, and counts; None where incomplete.

    answers: `outcomes` with the columns of `by`. All samples of a question count as one observation.
    """
    rows = []
    for key, part in answers.partition_by(by, as_dict=True).items():
        found, counts = estimate(part), dict(part["status"].value_counts().iter_rows())
        figures = (found.value, found.standard_error, part["question_id"].n_unique())
        rows.append((*key, *figures, *(counts.get(name, 0) for name in ("answered", "failed", "missing"))))
    schema = {name: answers.schema[name] for name in by} | _COLUMNS
    return pl.DataFrame(rows, schema=schema, orient="row").sort(by)
