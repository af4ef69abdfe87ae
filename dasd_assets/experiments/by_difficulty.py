"""Accuracies and differences of arms by domain, and on the easier and the harder questions of each.

A question's difficulty is `level` in its metadata, a whole number: the generated questions have one, and those of
MATH-500. Where there is none, domains alone are told apart.
"""

import polars as pl

from dasd_assets.experiments.result_table import IS_SURE, ShownTable, compared_arms, result_rows
from dasd_resources.recipe.experiment import ARM, Experiment
from dasd_resources.storage.warehouse import Warehouse

STAR = " *"  # beside a difference whose p, corrected for all of the table, says that they differ
NUM_GROUPS = 3  # of a domain's levels
QUESTION = ["benchmark", "question_id"]


def question_groups(warehouse: Warehouse, answers: pl.DataFrame) -> pl.DataFrame:
    """(benchmark, question_id, group): the domain of each question that was asked, and its group of levels there.

    A question is in one or two of them. Groups come in order: a domain, then its levels, the lowest first. answers: of
    `cells.answers`.
    """
    query = """SELECT DISTINCT benchmark, question_id, coalesce(domain, 'no domain') AS domain,
            regexp_extract(metadata->>'$.level', '^[0-9]{1,9}$') AS level
        FROM benchmark_questions WHERE list_contains($benchmarks, benchmark) ORDER BY ALL"""
    known = warehouse.read(query, {"benchmarks": answers["benchmark"].unique().to_list()})
    known = known.with_columns(pl.col("level").cast(pl.Int32, strict=False))  # none where it is no whole number
    return grouped(known.join(answers.select(QUESTION).unique(), on=QUESTION, how="semi", maintain_order="left"))


def grouped(questions: pl.DataFrame) -> pl.DataFrame:
    """`question_groups` of questions that were read. questions: benchmark, question_id, domain, level."""
    number = pl.col("number")
    levels = questions.drop_nulls("level").group_by("benchmark", "domain", "level").agg(number=pl.len()).sort(pl.all())
    # A level is of the group in which the middle of its questions lies, so that groups are about as large.
    middle = (number.cum_sum() - number / 2).over("benchmark", "domain") / number.sum().over("benchmark", "domain")
    levels = levels.with_columns(place=(middle * NUM_GROUPS).cast(pl.Int64))
    least, most = (pl.col("level").min(), pl.col("level").max())
    named = levels.with_columns(
        group=pl.format(
            "{}, level {}",
            "domain",
            pl.when(least == most).then(least.cast(pl.String)).otherwise(pl.format("{} to {}", least, most)),
        ).over("benchmark", "domain", "place")
    )
    several = named.filter(pl.col("place").n_unique().over("benchmark", "domain") > 1)  # one would be the domain again
    by_level = questions.join(several, on=["benchmark", "domain", "level"])
    by_domain = questions.with_columns(group="domain", place=pl.lit(-1, pl.Int64))
    both = pl.concat([by_domain.select(by_level.drop("number").columns), by_level.drop("number")])
    return both.sort("benchmark", "domain", "place", "question_id").select(*QUESTION, "group")


def difficulty_tables(
    experiment: Experiment, answers: pl.DataFrame, stages: pl.DataFrame, groups: pl.DataFrame
) -> dict[str, ShownTable]:
    """Of one benchmark and temperature: a table `accuracy` and, where arms can be compared, two more.

    `difference`, with a STAR where it `IS_SURE` among all of the table's, and `could have seen`. They are those of
    `result_rows`, in a column per group. answers: those of that setting; stages: of
    `cells.stage_rows`; groups: of `question_groups`.
    """
    of_groups = answers.join(groups, on=QUESTION).with_columns(benchmark="group")  # a group is asked as a benchmark is
    compared = compared_arms(of_groups, experiment)
    sure = set(compared.filter(IS_SURE).select(ARM, "baseline", "benchmark").iter_rows())
    rows = result_rows(of_groups, stages, compared, experiment)
    for row in rows:
        if (row[ARM], row["less"], row["benchmark"]) in sure:
            row["difference"] = f"{row['difference']}{STAR}"
    found = pl.DataFrame(rows, infer_schema_length=None)
    sizes = groups.group_by("group", maintain_order=True).agg(pl.col("question_id").n_unique()).rows()
    heads = {group: f"{group} ({number:,})" for group, number in sizes}
    tables = dict[str, ShownTable]()
    for value, labels in (("accuracy", (ARM,)), ("difference", (ARM, "less")), ("could have seen", (ARM, "less"))):
        present = found.drop_nulls(value)
        if not present.is_empty():
            wide = present.pivot("benchmark", index=labels, values=value)
            lacking = [pl.lit(None, pl.String).alias(group) for group in heads if group not in wide.columns]
            wide = wide.with_columns(lacking).select(*labels, *heads).rename(heads)
            tables[value] = ShownTable(wide.columns, wide.to_dicts())
    return tables
