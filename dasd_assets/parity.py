"""The parity checks: do the stored logprobs agree with those of another computation? They block every batch that fails.

Everything after generation rests on one logprob per token from each model. A sample of each batch is scored again in
another way (the teacher's own tokens by prefill, the student's by another engine) and compared with `responses` and
`student_logprobs`. Beyond the recipe's tolerance the check fails, and nothing downstream is made from the batch.

The gate is on the mean and on quantiles. The largest difference is that of one token, and grows with their number: it
is reported with its token, and a limit only where the recipe sets one (float32 recipes do).
"""

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import dagster as dg
import numpy as np
import polars as pl
import yaml

from dasd_assets.records.declaration import ENGINE_POOL
from dasd_assets.records.earlier_checks import passed_on_these_rows
from dasd_assets.records.markdown import code, codes, table
from dasd_assets.records.partitions import PROMPT_BATCH, batch_of
from dasd_assets.records.table_metadata import Figure, tidy
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.candidates import AT_TEMPERATURE, OF_RECIPE, candidate_params
from dasd_assets.rules.instructions import AS_ASKED
from dasd_resources.inference.engine import Failure, Score, ScoringRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe, Rescoring
from dasd_resources.storage.warehouse import Row, Warehouse

NUM_WORST = 10  # responses shown in the metadata
WORST_COLUMNS = [
    "response_id",
    "num_tokens",
    "mean_difference",
    "max_difference",
    "token_index",
    "token",
    "stored",
    "again",
]

NOT_COMPARED = (
    "not compared: the logprobs are as they landed, and teacher {}, which could compute them again, is not here; "
    "that their tokens say the texts was checked"
)
# A sample of a batch: the responses whose ids hash lowest, so that a repeated check compares the same ones and the
# sample is spread over the batch. `SEMI JOIN prompts` leaves out responses whose prompt was withdrawn.
_SAMPLE = "ORDER BY md5(r.response_id) LIMIT $num_responses"
_OF_TEACHER = f"""SELECT r.response_id FROM responses r SEMI JOIN prompts USING (batch, prompt_id)
    WHERE r.batch = $batch AND {AT_TEMPERATURE} AND {OF_RECIPE} {_SAMPLE}"""
_OF_STUDENT = f"""SELECT r.response_id FROM responses r SEMI JOIN prompts USING (batch, prompt_id)
        JOIN student_logprobs s USING (batch, response_id)
    WHERE r.batch = $batch AND s.student_fingerprint = $student {_SAMPLE}"""
# Each table is read for the sample's ids by themselves: in a join, DuckDB may keep all tokens of the batch.
_ITS = "batch = $batch AND response_id IN (SELECT unnest($ids::VARCHAR[]))"
_TEACHER = f"""SELECT a.response_id, {AS_ASKED} AS question, p.system_prompt, a.text, a.token_ids, a.logprobs, a.offsets
    FROM (FROM responses WHERE {_ITS}) a JOIN (FROM prompts WHERE batch = $batch) p USING (prompt_id)"""
_STUDENT = f"""SELECT s.response_id, t.num_prompt_tokens, t.token_ids, s.logprobs
    FROM (FROM student_logprobs WHERE {_ITS} AND student_fingerprint = $student) s
        LEFT JOIN (FROM student_tokens WHERE {_ITS} AND student_fingerprint = $student) t USING (response_id)"""


@dataclass(frozen=True)
class StoredLogprobs:
    """Token ids and stored logprobs of a response, (T,), up to the recipe's limit; pieces: the text of each token."""

    response_id: str
    prompt_ids: list[int]
    token_ids: list[int]
    logprobs: list[float]
    pieces: list[str]

    @property
    def request(self) -> ScoringRequest:
        return ScoringRequest(self.response_id, (*self.prompt_ids, *self.token_ids), len(self.prompt_ids))


@dataclass(frozen=True)
class ParityResult:
    """Differences between stored and re-scored logprobs of a sample, in nats.

    table: WORST_COLUMNS, a row per response with its worst token; the worst response first. p99_difference,
    p999_difference: of all tokens but one in a hundred and in a thousand. bias: the mean signed difference. faults: one
    message (Markdown, as a check's description) for each response that could not be compared.
    """

    table: pl.DataFrame
    num_tokens: int
    mean_difference: float
    p99_difference: float
    p999_difference: float
    max_difference: float
    bias: float
    correlation: float | None
    faults: list[str]

    def violations(self, limits: Rescoring, key: str) -> list[str]:
        """Why the check fails, one message per reason; empty if it passes. key: in the recipe, `parity.teacher` say."""
        return [
            *self.faults,
            *(
                f"{name} difference {value:.4g} nats is above {key}.{setting} {limit:g}"
                for name, value, setting, limit in self._limited(limits)
                if not value <= limit  # unlike value > limit, this is true for NaN
            ),
        ]

    def wider(self, limits: Rescoring) -> dict[str, str | float]:
        """The limits as a recipe has them, with twice what was seen in the place of those that it is above."""
        raised = {
            setting: float(f"{2 * value:.2g}") for _, value, setting, limit in self._limited(limits) if value > limit
        }
        return limits.model_dump(exclude_none=True) | raised

    def _limited(self, limits: Rescoring) -> Iterator[tuple[str, float, str, float]]:
        """Name, value, setting and limit of each difference that has a limit."""
        for name, value, setting, limit in (
            ("mean", self.mean_difference, "max_mean_difference", limits.max_mean_difference),
            ("p99", self.p99_difference, "max_p99_difference", limits.max_p99_difference),
            ("p99.9", self.p999_difference, "max_p999_difference", limits.max_p999_difference),
            ("max", self.max_difference, "max_difference", limits.max_difference),
        ):
            if limit is not None:
                yield name, value, setting, limit

    @property
    def worst(self) -> str:
        """The token with the largest difference, for a message."""
        if self.table.is_empty():
            return "nothing compared"
        row = self.table.row(0, named=True)
        return (
            f"response {row['response_id']}, token {row['token_index']} {code(repr(row['token']))}: "
            f"stored {row['stored']:.4f}, re-scored {row['again']:.4f}"
        )


def compare(stored: Sequence[StoredLogprobs], results: Iterable[Score | Failure]) -> ParityResult:
    """Compare stored with re-scored logprobs; a response without exactly one result of its length is a fault."""
    # 1. Pair each stored response with its result.
    found = {result.request_id: result for result in results}
    faults, rows, before, after = [], [], [], []
    for one in stored:
        result = found.get(one.response_id)
        if isinstance(result, Score) and len(result.logprobs) == len(one.token_ids):
            old, new = np.asarray(one.logprobs, np.float64), np.asarray(result.logprobs, np.float64)
            rows.append(_compared(one, old, new))
            before.append(old)
            after.append(new)
        else:
            faults.append(f"response {one.response_id} was not re-scored: {_reason(result, one)}")
    # 2. Statistics over all tokens of the sample together. Correlation is undefined where one side is constant.
    old, new = (np.concatenate([np.empty(0), *parts]) for parts in (before, after))
    difference = np.abs(new - old)
    return ParityResult(
        table=pl.DataFrame(rows).sort("max_difference", descending=True) if rows else pl.DataFrame(),
        num_tokens=len(old),
        mean_difference=float(difference.mean()) if len(old) else 0.0,
        p99_difference=_quantile(difference, 0.99),
        p999_difference=_quantile(difference, 0.999),
        max_difference=float(difference.max()) if len(old) else 0.0,
        bias=float((new - old).mean()) if len(old) else 0.0,
        correlation=float(np.corrcoef(old, new)[0, 1]) if len(old) > 1 and old.std() > 0 and new.std() > 0 else None,
        faults=faults,
    )


def _quantile(difference: np.ndarray, share: float) -> float:
    """The value that this share of the differences does not exceed; a value that there is, so of few not their largest.

    NaN if any is NaN.
    """
    return float(np.quantile(difference, share, method="lower")) if len(difference) else 0.0


def _compared(one: StoredLogprobs, old: np.ndarray, new: np.ndarray) -> Row:
    difference = np.abs(new - old)
    index = int(difference.argmax())
    return {
        "response_id": one.response_id,
        "num_tokens": len(old),
        "mean_difference": float(difference.mean()),
        "max_difference": float(difference[index]),
        "token_index": index,
        "token": one.pieces[index],
        "stored": float(old[index]),
        "again": float(new[index]),
    }


def _reason(result: Score | Failure | None, one: StoredLogprobs) -> str:
    if result is None:
        return "the engine gave no result"
    if isinstance(result, Failure):
        return codes([result.reason])
    return f"{len(result.logprobs)} logprobs came back for {len(one.token_ids)} tokens"


def rescoring_model(model: PromptedModel, rescoring: Rescoring) -> PromptedModel:
    """The same model in the engine that re-scores it, one sequence at a time and unpadded if that engine can."""
    engine = rescoring.engine_for(model.spec.engine)
    plainly = ENGINES[engine].plain_scoring_options
    if engine == model.spec.engine and not plainly:
        return model
    other = {"engine": engine, "engine_options": dict(plainly), "server": None}
    return replace(model, spec=model.spec.model_copy(update=other))


def build(recipe: Recipe) -> list[dg.AssetChecksDefinition]:
    """`prefill_parity` of every generation asset and `engine_parity` of `student_logprobs`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)  # partitioned checks; the pinned Dagster has them
        generations = [_prefill_parity(recipe, name, temperature) for name, temperature in recipe.datasets.items()]
        return [*generations, _engine_parity(recipe)]


def _prefill_parity(recipe: Recipe, dataset: str, temperature: float) -> dg.AssetChecksDefinition:
    importing = recipe.imports is not None

    @dg.asset_check(
        asset=generation_asset(dataset),
        blocking=True,
        partitions_def=PROMPT_BATCH,
        pool=ENGINE_POOL,
        description="The teacher's sampling logprobs agree, within the recipe's tolerance, with those of a prefill.",
    )
    def prefill_parity(
        context: dg.AssetCheckExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.AssetCheckResult:
        if earlier := _passed_earlier(context, recipe, "teacher"):
            return earlier
        if ENGINES[recipe.teacher.engine].absent:
            return dg.AssetCheckResult(passed=True, description=NOT_COMPARED.format(recipe.teacher.stands_for))
        teacher = engines.find(recipe.teacher, "teacher.model")
        read = teacher.chat.read_landed if importing else teacher.chat.read_response
        params = candidate_params(recipe, teacher.fingerprint)
        rows = _sample(
            warehouse, _OF_TEACHER, _TEACHER, recipe, {**params, "batch": batch_of(context), "temperature": temperature}
        )
        stored, faults = [], []
        for row in rows:
            aligned = read(row["token_ids"])
            if (aligned.text, aligned.offsets) != (row["text"], row["offsets"]):
                faults.append(
                    f"response {row['response_id']}: its tokens no longer read as its stored text and offsets"
                )
            prompt = teacher.chat.prompt_ids(row["question"], row["system_prompt"])
            stored.append(_stored(row, prompt, row["token_ids"], teacher, recipe))
        return _check(recipe.parity.teacher, "parity.teacher", engines, teacher, stored, faults)

    return prefill_parity


def _engine_parity(recipe: Recipe) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset="student_logprobs",
        blocking=True,
        partitions_def=PROMPT_BATCH,
        pool=ENGINE_POOL,
        description="The student's logprobs agree, within the recipe's tolerance, with those of another computation.",
    )
    def engine_parity(
        context: dg.AssetCheckExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.AssetCheckResult:
        if earlier := _passed_earlier(context, recipe, "student"):
            return earlier
        student = engines.find(recipe.student, "student.model")
        params = {"batch": batch_of(context), "student": student.fingerprint}
        stored, faults = [], []
        for row in _sample(warehouse, _OF_STUDENT, _STUDENT, recipe, params):
            if row["token_ids"] is None:
                faults.append(f"response {row['response_id']}: its tokens are not in student_tokens: materialize that")
                continue
            ids, num_prompt = row["token_ids"], row["num_prompt_tokens"]
            stored.append(_stored(row, ids[:num_prompt], ids[num_prompt:], student, recipe))
        return _check(recipe.parity.student, "parity.student", engines, student, stored, faults)

    return engine_parity


def _passed_earlier(
    context: dg.AssetCheckExecutionContext, recipe: Recipe, role: Literal["teacher", "student"]
) -> dg.AssetCheckResult | None:
    """The outcome of this check on the same rows, if it passed with the same settings: no model is loaded for it."""
    settings = recipe.parts("parity.num_responses", "parity.max_tokens", f"parity.{role}")
    (key,) = context.selected_asset_check_keys
    return passed_on_these_rows(context.instance, key, batch_of(context), settings)


def _sample(warehouse: Warehouse, drawn: str, query: str, recipe: Recipe, params: Row) -> Sequence[Row]:
    """The query's rows of the ids that are drawn, in the order of these."""
    with warehouse.reading() as reading:
        ids = reading.read(drawn, {**params, "num_responses": recipe.parity.num_responses})["response_id"].to_list()
        return reading.read(query, {**params, "ids": ids}).sort("response_id").to_dicts()


def _stored(row: Row, prompt: list[int], token_ids: list[int], model: PromptedModel, recipe: Recipe) -> StoredLogprobs:
    kept = slice(recipe.parity.max_tokens)
    pieces = model.chat.token_texts(token_ids[kept])
    return StoredLogprobs(row["response_id"], prompt, token_ids[kept], row["logprobs"][kept], pieces)


def _check(
    limits: Rescoring, key: str, engines: Engines, model: PromptedModel, stored: list[StoredLogprobs], faults: list[str]
) -> dg.AssetCheckResult:
    if not stored and not faults:
        return dg.AssetCheckResult(
            passed=True, description="nothing to compare: the batch has no response with logprobs of this model"
        )
    other = rescoring_model(model, limits)
    comparison = compare(stored, engines.score(other, [one.request for one in stored]))
    comparison = replace(comparison, faults=[*faults, *comparison.faults])
    violations = comparison.violations(limits, key)
    return dg.AssetCheckResult(
        passed=not violations,
        description="; ".join([*violations[:5], f"worst: {comparison.worst}", *_advice(comparison, limits, key)])
        if violations
        else _agreement(comparison),
        metadata=_metadata(comparison, other),
    )


def _advice(comparison: ParityResult, limits: Rescoring, key: str) -> list[str]:
    """What a failed check asks of the user; nothing where no token was compared, as the faults say it then."""
    if comparison.table.is_empty():
        return []
    section, _, role = key.partition(".")
    wider = yaml.safe_dump(comparison.wider(limits), default_flow_style=True, sort_keys=False, width=10**6)
    return [
        f"rounding alone has a signed mean near 0 (here {comparison.bias:.2g}): then write "
        f"{code(f'{role}: {wider.strip()}')} in the recipe's `{section}` and `dasd run`, which makes no row again and "
        "scores each batch's sample once more; else one of the two computations is wrong, and `dasd check` and "
        f"`dasd audit response {comparison.table.row(0, named=True)['response_id']}` show more"
    ]


def _agreement(comparison: ParityResult) -> str:
    return (
        f"{comparison.num_tokens:,} tokens of {comparison.table.height} responses agree: "
        f"mean difference {comparison.mean_difference:.2g}, p99 {comparison.p99_difference:.2g}, "
        f"max {comparison.max_difference:.2g} nats"
    )


def _metadata(comparison: ParityResult, other: PromptedModel) -> dict[str, Figure]:
    plain = ", one sequence at a time" if ENGINES[other.spec.engine].plain_scoring_options else ""
    correlation = comparison.correlation
    differences = {
        "mean_difference": tidy(comparison.mean_difference),
        "p99_difference": tidy(comparison.p99_difference),
        "p999_difference": tidy(comparison.p999_difference),
        "max_difference": tidy(comparison.max_difference),
        "mean_signed_difference": tidy(comparison.bias),
    }
    return {
        "rescored_by": dg.MetadataValue.text(f"{other.spec.engine} in {other.spec.dtype}{plain}"),
        "num_responses": dg.MetadataValue.int(comparison.table.height),
        "num_faults": dg.MetadataValue.int(len(comparison.faults)),
        "num_tokens": dg.MetadataValue.int(comparison.num_tokens),
        **(differences if comparison.num_tokens else {}),  # of no token there is none
        "correlation": dg.MetadataValue.text("undefined" if correlation is None else f"{correlation:.8f}"),
        "worst_token": dg.MetadataValue.text(comparison.worst),
        "worst_responses": table(WORST_COLUMNS, comparison.table.head(NUM_WORST).to_dicts()),
    }
