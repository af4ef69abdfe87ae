"""What an experiment's arms were trained on: how long the examples are, how many are right, how much is the teacher's.

Policies differ in all of these at once; an arm that wins may win by any of them.
"""

import polars as pl

from dasd_assets.records.current_checkpoint import current_checkpoint
from dasd_assets.rules.filters.catalogue import CORRECTNESS, WORK, filter_version
from dasd_assets.rules.scores import threshold_version
from dasd_assets.rules.verdict import DECIDED
from dasd_assets.sft_datasets import NO_LOSS
from dasd_resources.recipe import Recipe
from dasd_resources.storage.tables import measured
from dasd_resources.storage.warehouse import Params, Warehouse

_SCORES = {"teacher_share": "teacher_share", "mean_difference": "mean_probability_token"}
_PASSED = {"right": CORRECTNESS, "sound": WORK}
_OF_AN_EXAMPLE = {  # of which the mean is a trait, with a standard error
    "tokens": "len(e.input_ids)",
    "sentences": "teacher_share.num_sentences",
    **{name: f"{name}_verdict.passed::INT" for name in _PASSED},
    **{name: f"{name}.score" for name in _SCORES},
    "probability": "exp(r.mean_logprob)",
}
_OF_EXAMPLES = {
    "examples": "count(*)",
    "continuations": "count(e.continuation_id)",
    "tokens": f"avg({_OF_AN_EXAMPLE['tokens']})",
    "with_loss": f"""sum(len(list_filter(e.labels, lambda label: label <> {NO_LOSS})))::DOUBLE
        / sum(len(e.input_ids))""",
    **{name: f"avg({value})" for name, value in _OF_AN_EXAMPLE.items() if name != "tokens"},
}
TRAITS = tuple(_OF_EXAMPLES)
ERRORS = {name: f"{name}_error" for name in _OF_AN_EXAMPLE}  # trait -> column of its standard error
_ROUNDING = 1e-9  # what is less is no error: all examples are alike
_BY = ("arm", "stage", "dataset")


def dataset_traits(
    warehouse: Warehouse, recipe: Recipe, stages: pl.DataFrame, by_question: pl.DataFrame
) -> pl.DataFrame:
    """(arm, stage, dataset, TRAITS, ERRORS) of what each stage is trained on, means over seeds.

    examples, continuations: how many, and how many of them go on from what the student wrote. tokens: of an example,
    for the student. with_loss: share of all tokens that carry loss. The others are means over the teacher's own
    responses. right: the share whose answer passed verification, of those that a verifier decided; sound: with no step
    that the filter `work` knows to be wrong. teacher_share, mean_difference: scores by which responses are ranked.
    probability: geometric mean over a response's tokens, under the teacher. None: no response has it. ERRORS: of
    `clustered_errors`. stages: of `cells.stage_rows`; by_question: of `traits_by_question`.
    """
    used = _used(stages)
    examples, params = _examples(warehouse, recipe, used["policy"].unique().to_list())
    traits = warehouse.read(f"SELECT dataset, policy, {_named(_OF_EXAMPLES)} {examples} GROUP BY ALL", params)
    of_stages = used.join(traits, on=["dataset", "policy"], maintain_order="left")
    means = of_stages.group_by(_BY, maintain_order=True).agg(pl.col(TRAITS).mean())
    errors = clustered_errors(by_question)
    return means.join(errors, on=_BY, how="left", maintain_order="left")


def traits_by_question(warehouse: Warehouse, recipe: Recipe, stages: pl.DataFrame) -> pl.DataFrame:
    """(arm, stage, dataset, seed, policy, prompt_id): of each trait of ERRORS its sum over the examples to a question.

    Beside each, how many examples have it (`count_column`). stages: of `cells.stage_rows`.
    """
    used = _used(stages)
    examples, params = _examples(warehouse, recipe, used["policy"].unique().to_list())
    sums = {name: f"sum({value})::DOUBLE" for name, value in _OF_AN_EXAMPLE.items()}
    counts = {count_column(name): f"count({value})" for name, value in _OF_AN_EXAMPLE.items()}
    query = f"""SELECT dataset, policy, coalesce(r.prompt_id, t.prompt_id) AS prompt_id, {_named(sums | counts)}
        {examples} GROUP BY ALL ORDER BY ALL"""
    return used.join(warehouse.read(query, params), on=["dataset", "policy"])


def _used(stages: pl.DataFrame) -> pl.DataFrame:
    return stages.filter(pl.col("stage") > 0).select(*_BY, "seed", "policy")


def clustered_errors(questions: pl.DataFrame) -> pl.DataFrame:
    """(arm, stage, dataset, ERRORS): standard errors of means, all examples to a question, of all seeds, taken as one.

    They say how exactly these questions, and what is drawn for them, stand for others. None: of fewer than two
    questions, and where all examples are alike. questions: arm, stage, dataset, prompt_id; of each trait the sum over
    its examples, and how many have it (`…_count`); a row or several per question.
    """
    names = [*ERRORS, *map(count_column, ERRORS)]
    clusters = questions.group_by(*_BY, "prompt_id", maintain_order=True).agg(pl.col(names).sum())
    return clusters.group_by(_BY, maintain_order=True).agg(clustered_error(name).alias(ERRORS[name]) for name in ERRORS)


def clustered_error(name: str, less: str | None = None) -> pl.Expr:
    """Of a mean, sum / count over K clusters: the root of K / (K - 1) times their squared residuals, per example.

    less: another sum of the same clusters, whose mean is taken off; the error is then that of the difference.
    """
    residual = _residual(name) if less is None else _residual(name) - _residual(less)
    clusters = num_clusters(name, less).cast(pl.Float64)
    error = ((residual**2).sum() * clusters / (clusters - 1)).sqrt()
    return pl.when((clusters > 1) & (error > _ROUNDING)).then(error)


def num_clusters(name: str, less: str | None = None) -> pl.Expr:
    """In how many clusters there is an example that has it, or the other."""
    has = pl.any_horizontal(pl.col(count_column(each)) > 0 for each in (name, less) if each is not None)
    return has.sum()


def mean_of(name: str) -> pl.Expr:
    """Of all examples of these clusters; None where none has it."""
    number = pl.col(count_column(name)).sum()
    return pl.when(number > 0).then(pl.col(name).sum() / number)


def _residual(name: str) -> pl.Expr:
    """What a cluster adds to the mean's deviation."""
    number = pl.col(count_column(name))
    return (pl.col(name) - number * mean_of(name)) / number.sum()


def count_column(name: str) -> str:
    """Beside the sum of a trait: of how many examples."""
    return f"{name}_count"


def _named(values: dict[str, str]) -> str:
    return ", ".join(f"{value} AS {name}" for name, value in values.items())


def _examples(warehouse: Warehouse, recipe: Recipe, policies: list[str]) -> tuple[str, Params]:
    """FROM and WHERE of all that the recipe's arms by these policies are trained on, and the parameters."""
    student = str(current_checkpoint(warehouse, recipe, "student")["checkpoint_id"])
    scores = "".join(
        f"""LEFT JOIN (SELECT response_id, score, num_sentences FROM response_scores WHERE score_name = '{score}'
            AND student_fingerprint = $student AND threshold_version = $threshold_version) {name} USING (response_id)
        """
        for name, score in _SCORES.items()
    )
    verdicts = "".join(
        f"""LEFT JOIN (SELECT response_id, passed FROM response_verdicts v WHERE filter = '{filter_name}'
            AND filter_version = $filter_version AND {DECIDED}) {name}_verdict USING (response_id)
        """
        for name, filter_name in _PASSED.items()
    )
    query = f"""FROM sft_examples e
            LEFT JOIN {measured("responses", "mean_logprob", "response_id", "prompt_id")} r USING (response_id)
            LEFT JOIN teacher_continuations t USING (continuation_id)
            {scores} {verdicts}
        WHERE e.recipe = $recipe AND list_contains($policies, e.policy)"""
    params: Params = {
        "recipe": recipe.name,
        "policies": policies,
        "student": student,
        "threshold_version": threshold_version(recipe),
        "filter_version": filter_version(recipe, student),
    }
    return query, params
