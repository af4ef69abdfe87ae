"""Sentence types and response scores (report §4, Figure 5): cheap to redo, they never cost a forward pass.

`sentence_probabilities` -> `sentence_types` -> `response_scores`. The report leaves "much greater" and the score of a
response open: both are recipe choices, stored with every row. All scores are computed; the recipe picks one.

| score | of a response |
| --- | --- |
| `teacher_share` | share of its typed sentences that are teacher sentences |
| `mean_…`, `sum_…` | mean or sum over sentences of teacher minus student |
| `…_probability_…`, `…_log_…` | of geometric-mean probabilities, or of their logarithms |
| `…_token`, `…_character` | the mean taken per token (the report's), or per character (independent of the tokenizer) |
"""

import dagster as dg
import polars as pl

from dasd_assets.records.code_versions import CodeVersion
from dasd_assets.records.partitions import PROMPT_BATCH
from dasd_assets.records.plots import histogram, inline, shape
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import table
from dasd_assets.rules.sentences import SEGMENTER_VERSION
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import SCORE_NAMES, Divergence, Measure, Per, Recipe
from dasd_resources.storage.warehouse import Warehouse

DIVERGENCE_VERSION = "1"
TYPES = table("sentence_types", sentence_probabilities="sentence_probabilities")
SCORES = table("response_scores", sentence_types="sentence_types", sentence_probabilities="sentence_probabilities")


TYPE_NAMES = ("teacher", "student", "close")


def threshold_version(recipe: Recipe) -> str:
    """Identifies the rule by which sentences are typed and responses scored: segmenter, measure, threshold, this code.

    It is in the key of both tables: rows of another rule stay beside those of this one.
    """
    return content_hash([DIVERGENCE_VERSION, SEGMENTER_VERSION, recipe.version("selection.divergence")])[:12]


def divergence_version(recipe: Recipe) -> CodeVersion:
    """What `threshold_version` stands for."""
    code = {"divergence": DIVERGENCE_VERSION, "segmenter": SEGMENTER_VERSION}
    return CodeVersion(threshold_version(recipe), code, recipe.parts("selection.divergence"))


def difference(measure: Measure, per: Per) -> pl.Expr:
    """Teacher minus student for a sentence; NULL where either side owns no token."""

    def mean_logprob(model: str) -> pl.Expr:
        tokens = pl.col(f"{model}_num_tokens")
        length = tokens if per == "token" else pl.col("stop") - pl.col("start")
        mean = pl.col(f"{model}_sum_logprob") / length
        return pl.when(tokens > 0).then(mean if measure == "log" else mean.exp())

    return mean_logprob("teacher") - mean_logprob("student")


def sentence_type(divergence: Divergence) -> pl.Expr:
    """`teacher`, `student` or `close`; NULL where a side owns no token, which no share counts."""
    gap = difference(divergence.measure, divergence.per)
    return (
        pl.when(gap > divergence.threshold)
        .then(pl.lit("teacher"))
        .when(gap < -divergence.threshold)
        .then(pl.lit("student"))
        .when(gap.is_not_null())
        .then(pl.lit("close"))
    )


def score_expression(name: str) -> pl.Expr:
    """The score of that name over the sentences of one response; NULL where no sentence counts."""
    if name == "teacher_share":
        typed = pl.col("sentence_type").drop_nulls()
        return pl.when(typed.len() > 0).then((typed == "teacher").mean())
    reduction, measure, per = name.split("_")
    gap = difference("log" if measure == "log" else "probability", "token" if per == "token" else "character")
    total = gap.mean() if reduction == "mean" else gap.sum()
    return pl.when(gap.count() > 0).then(total)


def response_scores(sentences: pl.DataFrame) -> pl.DataFrame:
    """(response_id, score_name, score, num_sentences) for every score, from sentences with their types.

    num_sentences counts those with tokens on both sides. Rows in the order of response_id.
    """
    wide = sentences.group_by("response_id").agg(
        *[score_expression(name).cast(pl.Float64).alias(name) for name in SCORE_NAMES],
        num_sentences=pl.col("sentence_type").count().cast(pl.Int32),
    )
    long = wide.unpivot(
        SCORE_NAMES, index=["response_id", "num_sentences"], variable_name="score_name", value_name="score"
    )
    return long.sort("response_id", "score_name")


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`sentence_types` and `response_scores`."""
    return [_sentence_types(recipe), _response_scores(recipe)]


def _sentence_types(recipe: Recipe) -> dg.AssetsDefinition:
    types_table = TYPES.made_with(divergence_version(recipe))

    @dg.asset(
        partitions_def=PROMPT_BATCH,
        deps=["sentence_probabilities"],
        group_name="scores",
        kinds={"ducklake", "polars"},
        metadata=types_table.definition,
        code_version=types_table.code_version,
        description="One row per sentence: teacher, student or close, under the recipe's threshold.",
    )
    def sentence_types(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model").fingerprint
        batch = context.partition_key
        sentences = _sentences(warehouse, batch, student)
        types = sentences.select(
            "response_id",
            "batch",
            "student_fingerprint",
            "sentence_index",
            sentence_type(recipe.selection.divergence).alias("sentence_type"),
            pl.lit(recipe.selection.divergence.threshold).alias("threshold"),
            pl.lit(threshold_version(recipe)).alias("threshold_version"),
        )
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("sentence_types", types, batch)
        counts = dict(types["sentence_type"].value_counts().iter_rows())
        num_typed = types.height - counts.pop(None, 0)
        return dg.MaterializeResult(
            data_version=content_version([*types["response_id"].unique(), student, threshold_version(recipe)]),
            metadata=types_table.result(
                warehouse,
                types.height,
                {"batch": batch, "student_fingerprint": student, "threshold_version": threshold_version(recipe)},
                num_untyped=types.height - num_typed,
                **{f"{kind}_share": counts.get(kind, 0) / max(num_typed, 1) for kind in TYPE_NAMES},
            ),
        )

    return sentence_types


def _response_scores(recipe: Recipe) -> dg.AssetsDefinition:
    scores_table = SCORES.made_with(divergence_version(recipe))

    @dg.asset(
        name="response_scores",
        partitions_def=PROMPT_BATCH,
        deps=["sentence_types"],
        group_name="scores",
        kinds={"ducklake", "polars"},
        metadata=scores_table.definition,
        code_version=scores_table.code_version,
        description="One row per response and score; the recipe's score ranks the responses.",
    )
    def scores_asset(context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model").fingerprint
        batch = context.partition_key
        scores = response_scores(_typed_sentences(warehouse, batch, student, recipe)).with_columns(
            batch=pl.lit(batch),
            student_fingerprint=pl.lit(student),
            threshold_version=pl.lit(threshold_version(recipe)),
        )
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("response_scores", scores, batch)
        ranking = scores.filter(pl.col("score_name") == recipe.selection.score)
        return dg.MaterializeResult(
            data_version=content_version([*scores["response_id"].unique(), student, threshold_version(recipe)]),
            metadata=scores_table.result(
                warehouse,
                scores.height,
                {"batch": batch, "student_fingerprint": student, "threshold_version": threshold_version(recipe)},
                {"score_name": recipe.selection.score},
                num_responses=ranking.height,
                mean_score=ranking.select(pl.mean("score")).item(),
                scores_shape=shape(ranking["score"].drop_nulls().to_list()),
                scores=inline(
                    histogram({recipe.selection.score: ranking["score"].drop_nulls().to_list()}, recipe.selection.score)
                ),
            ),
        )

    return scores_asset


def _sentences(warehouse: Warehouse, batch: str, student: str) -> pl.DataFrame:
    query = """SELECT * FROM sentence_probabilities
        WHERE batch = $batch AND student_fingerprint = $student AND segmenter_version = $version"""
    return warehouse.read(query, {"batch": batch, "student": student, "version": SEGMENTER_VERSION})


def _typed_sentences(warehouse: Warehouse, batch: str, student: str, recipe: Recipe) -> pl.DataFrame:
    query = """SELECT p.*, t.sentence_type
        FROM sentence_probabilities p JOIN sentence_types t USING (response_id, student_fingerprint, sentence_index)
        WHERE p.batch = $batch AND t.batch = $batch AND p.student_fingerprint = $student
          AND p.segmenter_version = $segmenter AND t.threshold_version = $threshold"""
    params = {
        "batch": batch,
        "student": student,
        "segmenter": SEGMENTER_VERSION,
        "threshold": threshold_version(recipe),
    }
    return warehouse.read(query, params)
