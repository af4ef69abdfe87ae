"""The teacher takes over: `prefix_cuts` -> `teacher_continuations` -> `continuation_verdicts`.

The teacher continues the prefix *text*, in its own tokens, inside the thinking or the answer as the cut falls, with
what is left of its token budget. The quality filters then judge the whole, prefix and continuation: what was cut off is
often a loop.
"""

import dagster as dg
import polars as pl

from dasd_assets.generations import KINDS, sampling_request
from dasd_assets.mixed_policy.cuts import CUT_VERSION
from dasd_assets.mixed_policy.rollouts import current_rollouts
from dasd_assets.records.code_versions import code_version
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import table
from dasd_assets.rules.filters import FILTERS
from dasd_assets.service.staleness import retry_tag
from dasd_assets.verdicts import filter_version, judge_row, verdict_rows
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engine import Completion, Failure, GenerationRequest
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse

VERDICTS_VERSION = "2"
DECISIVE = ("rollout_id", "prefix_text", "teacher_fingerprint", "temperature", "top_p", "max_response_tokens")
CONTINUATIONS = table(
    "teacher_continuations",
    student_rollouts="student_rollouts",
    prefix_cuts="prefix_cuts",
    prompts="prompts",
    checkpoints="teacher_model",
)
VERDICTS = table(
    "continuation_verdicts",
    teacher_continuations="teacher_continuations",
    prompts="prompts",
    checkpoints="student_model",
)


def whole_filter_version(recipe: Recipe, student: str) -> str:
    """Identifies the rules that judged a continuation: the filters, on the student's tokens of the whole text."""
    return content_hash(["whole", filter_version(recipe, student)])[:12]


def continuation_id(key: Row) -> str:
    """Names everything that decides a continuation; key: the columns of its row."""
    return content_hash([key[name] for name in DECISIVE])[:32]


def request(row: Row, teacher: PromptedModel, recipe: Recipe) -> GenerationRequest | Failure:
    """Continue a prefix (continuation_id, question, system_prompt, prefix_text); a Failure if it fills the budget."""
    identity, question, prefix, system = (
        row[key] for key in ("continuation_id", "question", "prefix_text", "system_prompt")
    )
    tokens = teacher.chat.continuation_ids(question, prefix, system)
    num_left = recipe.generation.max_tokens - (len(tokens) - len(teacher.chat.prompt_ids(question, system)))
    if num_left < 1:
        return Failure(
            identity, f"the prefix alone fills generation.max_tokens {recipe.generation.max_tokens}; raise it"
        )
    temperature = recipe.mixed_policy.continuation_temperature
    return sampling_request(teacher, identity, tokens, temperature, recipe.generation.top_p, num_left)


def continuation_row(completion: Completion, row: Row, asked: GenerationRequest, teacher: PromptedModel) -> Row:
    """The `teacher_continuations` row: `text` is the whole response, offsets (of the continuation) are into it."""
    prefix = row["prefix_text"]
    aligned = teacher.chat.read_continuation(prefix, completion.token_ids)
    return {
        "continuation_id": completion.request_id,
        "rollout_id": row["rollout_id"],
        "prompt_id": row["prompt_id"],
        "prefix_text": prefix,
        "continuation_text": aligned.text[prefix_end(aligned.text, prefix) :],
        "text": aligned.text,
        "temperature": asked.temperature,
        "top_p": asked.top_p,
        "max_tokens": asked.max_tokens,
        "max_response_tokens": row["max_response_tokens"],
        "seed": asked.seed,
        "teacher_fingerprint": teacher.fingerprint,
        "token_ids": completion.token_ids,
        "logprobs": completion.logprobs,
        "offsets": aligned.offsets,
        "tool_call": aligned.tool_call,
        "finish_reason": completion.finish_reason,
    }


def prefix_end(text: str, prefix_text: str) -> int:
    """Code point where the teacher's part of `text` begins: the length of what `text` and the prefix share."""
    differs = (index for index, (a, b) in enumerate(zip(text, prefix_text, strict=False)) if a != b)
    return next(differs, min(len(text), len(prefix_text)))


def current_continuations(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> pl.DataFrame:
    """The `teacher_continuations` this recipe wants now, in the order of continuation_id, with their questions.

    Columns of both, but for the token lists, of which num_tokens is the length.
    """
    teacher = engines.find(recipe.teacher, "teacher.model")
    ids = [row["continuation_id"] for row in current_prefixes(warehouse, engines, recipe, teacher.fingerprint)]
    query = """SELECT c.* EXCLUDE (token_ids, logprobs, offsets), len(c.token_ids) AS num_tokens,
            p.question, p.system_prompt, p.reference_answer, p.verifier, p.metadata
        FROM teacher_continuations c JOIN prompts p USING (prompt_id)
        WHERE c.continuation_id IN (SELECT unnest($ids::VARCHAR[])) ORDER BY c.continuation_id"""
    return warehouse.read(query, {"ids": ids})


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`teacher_continuations` and `continuation_verdicts`."""
    return [_continuations(recipe), _verdicts(recipe)]


def _continuations(recipe: Recipe) -> dg.AssetsDefinition:
    parts = ("mixed_policy.continuation_temperature", "generation.top_p", "generation.max_tokens")
    continuations = CONTINUATIONS.made_with(code_version(recipe, *parts))

    @dg.asset(
        deps=["prefix_cuts", "teacher_model"],
        group_name="training_mixed_policy",
        kinds={"ducklake", KINDS[recipe.teacher.engine]},
        metadata=continuations.definition,
        pool="engine",
        code_version=continuations.code_version,
        description="One row per prefix that the teacher continued, with raw logprobs of the continuation.",
    )
    def teacher_continuations(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        teacher = engines.find(recipe.teacher, "teacher.model")
        wanted = {r["continuation_id"]: r for r in current_prefixes(warehouse, engines, recipe, teacher.fingerprint)}
        present = warehouse.read("SELECT continuation_id FROM teacher_continuations")["continuation_id"]
        asked = [request(wanted[key], teacher, recipe) for key in missing(wanted, present)]
        requests = {r.request_id: r for r in asked if isinstance(r, GenerationRequest)}
        with Ledger(warehouse, "teacher_continuations", origin(context)) as ledger:
            for refused in asked:
                if isinstance(refused, Failure):
                    ledger.fail(refused)
            completions = engines.generate(teacher, list(requests.values()))
            ledger.collect(
                logged(completions, len(requests), "continuations", context.log.info),
                lambda c: continuation_row(c, wanted[c.request_id], requests[c.request_id], teacher),
            )
        rows = current_continuations(warehouse, engines, recipe)
        return dg.MaterializeResult(
            data_version=content_version(rows["continuation_id"]),
            tags=retry_tag(ledger.num_retryable),
            metadata=continuations.result(
                warehouse,
                rows.height,
                {"teacher_fingerprint": teacher.fingerprint},
                num_new=ledger.num_added,
                num_failed=len(wanted) - rows.height,
                num_tokens=int(rows["num_tokens"].sum()),
            ),
        )

    return teacher_continuations


def current_prefixes(warehouse: Warehouse, engines: Engines, recipe: Recipe, teacher: str) -> list[Row]:
    """A row per current cut: continuation_id and what decides it, prompt_id, question, system_prompt."""
    rollouts = current_rollouts(warehouse, engines, recipe).filter("cut_off")
    query = "SELECT rollout_id, cut_char FROM prefix_cuts WHERE cut_version = $version AND cut_char IS NOT NULL"
    cuts = dict(warehouse.read(query, {"version": CUT_VERSION}).iter_rows())
    sampling = {
        "teacher_fingerprint": teacher,
        "temperature": recipe.mixed_policy.continuation_temperature,
        "top_p": recipe.generation.top_p,
        "max_response_tokens": recipe.generation.max_tokens,
    }
    rows: list[Row] = []
    for row in rollouts.select("rollout_id", "prompt_id", "question", "system_prompt", "text").iter_rows(named=True):
        if row["rollout_id"] in cuts:
            prefix = row.pop("text")[: cuts[row["rollout_id"]]]
            wanted = {**row, **sampling, "prefix_text": prefix}
            rows.append({**wanted, "continuation_id": continuation_id(wanted)})
    return rows


def _verdicts(recipe: Recipe) -> dg.AssetsDefinition:
    verdicts = VERDICTS.made_with(code_version(recipe, "filters", verdicts=VERDICTS_VERSION))

    @dg.asset(
        deps=["teacher_continuations"],
        group_name="training_mixed_policy",
        kinds={"ducklake"},
        metadata=verdicts.definition,
        code_version=verdicts.code_version,
        description="One row per continuation and filter: whether prefix and continuation together pass, and why not.",
    )
    def continuation_verdicts(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        student = engines.find(recipe.student, "student.model")
        version = whole_filter_version(recipe, student.fingerprint)
        continuations = current_continuations(warehouse, engines, recipe)
        rows = [
            verdict
            for row in continuations.iter_rows(named=True)
            for verdict in verdict_rows(
                {"continuation_id": row["continuation_id"]}, judge_row(row, student.chat, recipe.filters), version
            )
        ]
        table = pl.DataFrame(rows, infer_schema_length=None)
        with warehouse.commit(origin(context)) as transaction:
            transaction.append_missing("continuation_verdicts", table)
        return dg.MaterializeResult(
            data_version=content_version([*continuations["continuation_id"], version]),
            metadata=verdicts.result(
                warehouse,
                len(rows),
                {"filter_version": version},
                {"passed": False},
                num_continuations=continuations.height,
                **{
                    f"failed_{name}": sum(not row["passed"] for row in rows if row["filter"] == name)
                    for name in FILTERS
                },
            ),
        )

    return continuation_verdicts
