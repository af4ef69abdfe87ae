"""Figures of every evaluation as rows: `evaluations` -> `evaluation_metrics`, which the report and leaderboard read."""

from collections.abc import Callable, Iterator, Sequence

import dagster as dg
import polars as pl

from dasd_assets.evaluation.accuracy import BY
from dasd_assets.evaluation.metrics import METRICS, Estimate, metrics
from dasd_assets.evaluation.outcomes import SETTING, evaluation_params, outcomes
from dasd_assets.evaluation.questions import EVALUATION, asked_questions
from dasd_assets.evaluation.traits import TRAITS, find_traits, traits_version
from dasd_assets.records.declaration import declare
from dasd_assets.records.markdown import table
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.rules.checkpoints import CHAIN, chain_reads, checkpoint_names, current_checkpoints
from dasd_assets.rules.last_prompts import ASKED, OF_CHECKPOINTS, SAMPLING, asked_with_several
from dasd_assets.rules.verdict import VERIFYING_LIMITS
from dasd_resources.content_hash import content_hash
from dasd_resources.recipe import Recipe
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.verifiers.catalogue import takes_votes

WHICH = ("checkpoint_id", "benchmark", "temperature", "top_p", "max_tokens", "verifier_version")  # and num_samples
SETTINGS = (*WHICH[1:], "num_samples")  # the few ways to ask: rows of all checkpoints are deleted by one query of each


def store_metrics(
    warehouse: Warehouse, recipe: Recipe, checkpoints: Sequence[str], *, origin: str, say: Callable[[str], None]
) -> pl.DataFrame:
    """Make the `evaluation_metrics` rows of these checkpoints anew, as the recipe's `evaluation` asks; returns them.

    Any checkpoints can be given, as to `ask_missing`. origin: the commit message. say: takes lines for the log.
    """
    find_traits(warehouse, recipe, checkpoints, origin, say)
    rows = _rows(warehouse, recipe, checkpoints)
    if rows.is_empty():
        return rows
    others = list(_of_other_samples(warehouse, recipe, rows))
    with warehouse.commit(origin) as transaction:
        for which, part in pl.concat([rows, *others]).group_by(SETTINGS, maintain_order=True):
            ids = part["checkpoint_id"].unique(maintain_order=True).to_list()
            transaction.delete_keys("evaluation_metrics", dict(zip(SETTINGS, which, strict=True)), "checkpoint_id", ids)
        complete = [part.filter(pl.col("num_missing") == 0) for part in others]
        transaction.append_missing("evaluation_metrics", pl.concat([rows, *complete]))
    return rows


def _rows(warehouse: Warehouse, recipe: Recipe, checkpoints: Sequence[str]) -> pl.DataFrame:
    parts = [
        metric_rows(part, traits_version(recipe))
        for part in _with_traits(warehouse, recipe, checkpoints).partition_by(SETTING, maintain_order=True)
    ]
    return pl.concat(parts) if parts else pl.DataFrame()


def _of_other_samples(warehouse: Warehouse, recipe: Recipe, rows: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """The stored rows of other numbers of samples, made anew, where a checkpoint was asked with several prompts.

    They may be of an earlier prompt, and the leaderboard takes those of the most samples. So it is where requests had
    failed: they may be answered by now. rows: of this recipe.
    """
    which = [*WHICH, "num_samples"]
    failed = f"SELECT {SAMPLING} FROM evaluation_metrics WHERE {OF_CHECKPOINTS} AND num_failed > 0"
    query = f"""SELECT DISTINCT {", ".join(which)} FROM evaluation_metrics
        SEMI JOIN ({asked_with_several(OF_CHECKPOINTS)} UNION {failed}) USING ({SAMPLING})
        WHERE num_samples <> $samples"""
    params = {"ids": rows["checkpoint_id"].unique().to_list(), "samples": recipe.evaluation.samples_per_question}
    stored = warehouse.read(query, params).cast(rows.select(which).schema)
    for samples in stored["num_samples"].unique().sort():
        evaluation = recipe.evaluation.model_copy(update={"samples_per_question": samples})
        ids = stored.filter(num_samples=samples)["checkpoint_id"].unique().to_list()
        if (found := _rows(warehouse, recipe.model_copy(update={"evaluation": evaluation}), ids)).height:
            yield found.join(stored, on=which, how="semi", maintain_order="left")


def metric_rows(answers: pl.DataFrame, version: str) -> pl.DataFrame:
    """The `evaluation_metrics` rows of one evaluation. answers: `outcomes` with traits and `votes`."""
    counts = dict(answers["status"].value_counts().iter_rows())
    questions = answers.select("question_id", "instruction", "judged_by").unique()
    rows: list[Row] = [
        {
            **{key: answers[key][0] for key in WHICH},
            "num_samples": answers.height // questions.height,
            "metric": name,
            "value": found.value,
            "standard_error": found.standard_error,
            "num_questions": found.num_questions,
            "num_answers": counts.get("answered", 0),
            "num_failed": counts.get("failed", 0),
            "num_missing": counts.get("missing", 0),
            "question_set": question_set(questions),
            "traits_version": version,
        }
        for name, found in metrics(answers).items()
    ]
    return pl.DataFrame(rows, schema_overrides={"value": pl.Float64, "standard_error": pl.Float64})


def question_set(questions: pl.DataFrame) -> str:
    """Identifies what a benchmark asks, and what judges it: figures of other sets are not comparable.

    questions: id, instruction, judged_by, which counts where there is one.
    """
    rows = questions.select("question_id", "instruction", "judged_by").sort("question_id").rows()
    return content_hash([row if row[-1] is not None else row[:-1] for row in rows])[:12]


def question_sets(warehouse: Warehouse) -> pl.DataFrame:
    """The `question_set` of each benchmark now: figures of another are of questions that it no longer has."""
    asked = warehouse.read("SELECT benchmark, question_id, instruction, judged_by FROM benchmark_questions")
    sets = [(name, question_set(part)) for (name,), part in asked.partition_by("benchmark", as_dict=True).items()]
    return pl.DataFrame(sets, {"benchmark": pl.String, "question_set": pl.String}, orient="row")


def _with_traits(warehouse: Warehouse, recipe: Recipe, checkpoints: Sequence[str]) -> pl.DataFrame:
    query = """SELECT t.evaluation_id, t.final_answer, t.repetition
        FROM answer_traits t JOIN evaluations e USING (evaluation_id)
        WHERE t.traits_version = $version AND e.checkpoint_id IN (SELECT unnest($ids::VARCHAR[]))"""
    known = warehouse.read(query, {"version": traits_version(recipe), "ids": list(checkpoints)})
    questions = asked_questions(warehouse, recipe).select("benchmark", "question_id", "verifier")
    votes = questions.with_columns(votes=pl.col("verifier").map_elements(takes_votes, pl.Boolean)).drop("verifier")
    found = outcomes(warehouse, recipe, checkpoints).join(known, on="evaluation_id", how="left", maintain_order="left")
    return found.join(votes, on=["benchmark", "question_id"], how="left", maintain_order="left")


def current_metrics(warehouse: Warehouse, recipe: Recipe) -> pl.DataFrame:
    """`evaluation_metrics` of the recipe's current checkpoints, as it evaluates now; `checkpoint` is their name."""
    current = current_checkpoints(warehouse, recipe).select("checkpoint_id", checkpoint="name")
    query = f"""WITH {ASKED}
        SELECT m.* FROM evaluation_metrics m JOIN asked USING (benchmark, max_tokens)
        WHERE list_contains($ids, checkpoint_id) AND top_p = $top_p AND num_samples = $samples
            AND list_contains($temperatures, temperature) AND verifier_version = $verifier"""
    params = evaluation_params(recipe, current["checkpoint_id"])
    stored = warehouse.read(query, params).join(question_sets(warehouse), on=["benchmark", "question_set"], how="semi")
    found = stored.join(current, on="checkpoint_id")
    return found.with_columns(pl.col("checkpoint").cast(pl.Enum(checkpoint_names(recipe)))).sort(*BY, "metric")


def stored_accuracy(warehouse: Warehouse, recipe: Recipe) -> pl.DataFrame:
    """`accuracy` of every current checkpoint, as it is stored in `evaluation_metrics`."""
    found = current_metrics(warehouse, recipe).filter(pl.col("metric") == pl.format("avg@{}", "num_samples"))
    counts = ["num_questions", "num_answers", "num_failed", "num_missing"]
    return found.select(*BY, pl.col("value").alias("accuracy"), "standard_error", *counts)


def metric_table(found: pl.DataFrame) -> dg.TableMetadataValue:
    """A row per checkpoint, benchmark and temperature, a column per metric. found: `current_metrics`."""
    names = found["metric"].unique(maintain_order=True).to_list()
    rows = []
    for part in found.partition_by(BY, maintain_order=True):
        shown = {row["metric"]: shown_figure(row) for row in part.to_dicts()}
        first = part.row(0, named=True)
        where = {
            "checkpoint": str(first["checkpoint"]),
            "benchmark": f"{first['benchmark']}, T={first['temperature']:g}",
        }
        rows.append(dict.fromkeys(names) | where | shown)
    return table(["checkpoint", "benchmark", *names], rows)


def shown_figure(row: Row) -> str:
    """A figure of `evaluation_metrics` with its standard error: `61.3% ± 2.1%`, `84 ± 5` for tokens."""
    if row["num_missing"]:
        return f"incomplete: {row['num_answers'] + row['num_failed']:,} of {_num_wanted(row):,}"
    found = Estimate(row["value"], row["standard_error"], row["num_questions"])
    return found.shown(".0f" if "tokens" in row["metric"] else ".1%")


def _num_wanted(row: Row) -> int:
    return int(row["num_answers"] + row["num_failed"] + row["num_missing"])


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`evaluation_metrics`."""
    declared = declare(
        recipe,
        "evaluation_metrics",
        ["evaluation_metrics", "answer_traits"],
        reads={
            "evaluations": "evaluations",
            "evaluation_requests": "evaluations",
            "failed_requests": "evaluations",
            "benchmark_questions": "benchmark_questions",
            **chain_reads(recipe),
        },
        rules=[METRICS, TRAITS, EVALUATION, CHAIN],
        parts=["evaluation", *VERIFYING_LIMITS],
    )

    @declared.asset(
        group="training_results",
        kinds={"ducklake"},
        description="One row per figure of a model on a benchmark: avg@k, pass@k, maj@k, lengths, repetition.",
    )
    def evaluation_metrics(context: dg.AssetExecutionContext, warehouse: Warehouse) -> dg.MaterializeResult:
        ids = current_checkpoints(warehouse, recipe)["checkpoint_id"].to_list()
        rows = store_metrics(warehouse, recipe, ids, origin=origin(context), say=context.log.info)
        found = current_metrics(warehouse, recipe)
        return dg.MaterializeResult(
            data_version=content_version(rows.rows()),
            metadata=declared.result(warehouse, rows.height, {"checkpoint_id": ids[-1]}, metrics=metric_table(found)),
        )

    return [evaluation_metrics]
