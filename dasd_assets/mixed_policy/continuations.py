"""The teacher takes over (report §5): `prefix_cuts` -> `teacher_continuations`.

The teacher continues the prefix *text*, in its own tokens, inside the thinking or the answer as the cut falls, with
what is left of its token budget.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import dagster as dg
import polars as pl

from dasd_assets.mixed_policy.cuts import cuts_of
from dasd_assets.mixed_policy.distilled_student import looked_up, student_rollouts_now, wanted_by
from dasd_assets.records.column_lineage import Sources
from dasd_assets.records.declaration import declare
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.tags import retry_tags
from dasd_assets.rules.cuts import CUTS
from dasd_assets.rules.ids import continuation_id
from dasd_assets.rules.instructions import AS_ASKED, REFERENCE
from dasd_assets.rules.rollouts import asked_texts, texts_of
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.sampling import sampling_request
from dasd_resources.chat import UnsupportedQuestion, without_empty_thinking
from dasd_resources.inference.engine import Completion, Failure, GenerationRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe, Thinking
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.spool import joined
from dasd_resources.storage.tables import measured
from dasd_resources.storage.warehouse import Params, Row, Warehouse

CONTINUATIONS_AT_ONCE = 64  # in memory; of 65,536 tokens with their text, 50 MB
CONTINUATION_VERSION = "1"
CONTINUATIONS = Rule(
    "continuations",
    CONTINUATION_VERSION,
    ("teacher.thinking", "mixed_policy.continuation_temperature", "generation.top_p", "generation.max_tokens"),
    (CUTS,),
)


def request(row: Row, teacher: PromptedModel, recipe: Recipe) -> GenerationRequest | Failure:
    """Continue a prefix (continuation_id, question, system_prompt, prefix_text).

    A Failure if it fills the budget, or if the chat template refuses the question.
    """
    identity, question, prefix, system = (
        row[key] for key in ("continuation_id", "question", "prefix_text", "system_prompt")
    )
    try:
        tokens = teacher.chat.continuation_ids(question, prefix, system)
    except UnsupportedQuestion as error:
        return Failure(identity, str(error), "unsupported_question")
    num_left = recipe.generation.max_tokens - (len(tokens) - len(teacher.chat.prompt_ids(question, system)))
    if num_left < 1:
        reason = f"the prefix alone fills generation.max_tokens {recipe.generation.max_tokens}; raise it"
        return Failure(identity, reason, "no_budget")
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


def continued(
    engines: Engines, teacher: PromptedModel, recipe: Recipe, prefixes: Iterable[Row]
) -> Iterator[Row | Failure]:
    """The `teacher_continuations` row of each of these `prefixes`, or why there is none, as they finish."""
    waiting = dict[str, tuple[Row, GenerationRequest]]()

    def requests() -> Iterator[GenerationRequest | Failure]:
        for row in prefixes:
            asked = request(row, teacher, recipe)
            if isinstance(asked, GenerationRequest):
                waiting[asked.request_id] = row, asked
            yield asked

    for result in engines.generate(teacher, requests()):
        row = waiting.pop(result.request_id, None)
        if isinstance(result, Failure):
            yield result
        else:
            assert row is not None, "the engine answers only what it was asked"
            yield continuation_row(result, *row, teacher)


def teachers_prefix(kept: str, thinking: Thinking) -> str:
    """What is kept of a rollout, as the teacher is given it: without an empty thinking part where it writes none.

    A student whose template opens `<think>` in the prompt ends that at once when it has learned to answer without.
    """
    return without_empty_thinking(kept) if thinking == "none" else kept


def prefix_end(text: str, prefix_text: str) -> int:
    """Code point where the teacher's part of `text` begins: the length of what `text` and the prefix share."""
    differs = (index for index, (a, b) in enumerate(zip(text, prefix_text, strict=False)) if a != b)
    return next(differs, min(len(text), len(prefix_text)))


def current_cuts(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> dict[str, int]:
    """rollout_id -> cut_char of the rollouts that the teacher is to continue now, in the order of their ids."""
    rollouts = student_rollouts_now(warehouse, engines, recipe).filter("cut_off")["rollout_id"]
    return dict(cuts_of(warehouse, rollouts).drop_nulls("cut_char").iter_rows())


def prefixes(texts: Iterable[Row], cuts: Mapping[str, int], recipe: Recipe, teacher: str) -> Iterator[Row]:
    """Rows of rollouts, their `text` replaced by what the teacher is given of it, and the continuation_id of that."""
    sampling = {
        "teacher_fingerprint": teacher,
        "temperature": recipe.mixed_policy.continuation_temperature,
        "top_p": recipe.generation.top_p,
        "max_response_tokens": recipe.generation.max_tokens,
    }
    for row in texts:
        prefix = teachers_prefix(row["text"][: cuts[row["rollout_id"]]], recipe.teacher.thinking)
        wanted = {name: value for name, value in row.items() if name != "text"} | sampling | {"prefix_text": prefix}
        yield {**wanted, "continuation_id": continuation_id(wanted)}


def wanted_continuations(warehouse: Warehouse, recipe: Recipe, teacher: str, cuts: Mapping[str, int]) -> dict[str, str]:
    """continuation_id -> rollout_id of these cuts. An id is a hash of the prefix, so each text is read, once."""
    with warehouse.reading() as reading:
        texts = texts_of(reading, list(cuts))
        return {row["continuation_id"]: row["rollout_id"] for row in prefixes(texts, cuts, recipe, teacher)}


def current_continuations(warehouse: Warehouse, engines: Engines, recipe: Recipe) -> pl.DataFrame:
    """`made_of` those that this recipe wants now."""
    teacher = engines.fingerprint(recipe.teacher, "teacher.model")
    cuts = current_cuts(warehouse, engines, recipe)
    return made_of(warehouse, wanted_continuations(warehouse, recipe, teacher, cuts))


def made_of(warehouse: Warehouse, ids: Iterable[str]) -> pl.DataFrame:
    """(continuation_id, prompt_id, num_tokens) of those of these that there are, in the order of their ids."""
    continuations = measured("teacher_continuations", "num_tokens", "continuation_id", "prompt_id")
    query = f"""FROM {continuations} c SEMI JOIN prompts p USING (prompt_id)
        WHERE c.continuation_id IN (SELECT unnest($ids::VARCHAR[])) ORDER BY c.continuation_id"""
    return warehouse.read(query, {"ids": list(ids)})


def continuation_texts(
    warehouse: Warehouse, ids: Sequence[str], others: str = "", params: Params | None = None
) -> Iterator[pl.DataFrame]:
    """These continuations with their questions, in their order, CONTINUATIONS_AT_ONCE in memory.

    Columns of both, but for the lists of tokens; `asked`: the question as it was asked.
    others: SQL of rows with further columns, of continuation_id in `$keys`; params: its other parameters.
    """
    questions = warehouse.read(_QUESTIONS, {"ids": list(ids)})
    query = f"{_TEXTS} UNION ALL BY NAME {others}" if others else _TEXTS
    keys = pl.Series(ids, dtype=pl.String)
    for part in joined(warehouse, query, params or {}, "continuation_id", keys, CONTINUATIONS_AT_ONCE):
        yield part.join(questions, on="continuation_id", maintain_order="left")


_TEXTS = """SELECT * EXCLUDE (token_ids, logprobs, offsets) FROM teacher_continuations
    WHERE continuation_id IN (SELECT unnest($keys::VARCHAR[]))"""
_QUESTIONS = f"""SELECT c.continuation_id, p.question, {AS_ASKED} AS asked, p.system_prompt, p.reference_answer,
        p.verifier, p.metadata
    FROM (SELECT continuation_id, prompt_id, rollout_id FROM teacher_continuations
            WHERE continuation_id IN (SELECT unnest($ids::VARCHAR[]))) c
        JOIN prompts p USING (prompt_id) {REFERENCE.format(continuation="c")}"""


def prefixes_read(recipe: Recipe) -> Sources:
    """Table -> asset: what `current_cuts` reads, and `wanted_continuations`."""
    return {**wanted_by(recipe), "student_rollouts": "student_rollouts", "prefix_cuts": "prefix_cuts"}


def continuations_read(recipe: Recipe) -> Sources:
    """Table -> asset: what `current_continuations` reads."""
    return {**prefixes_read(recipe), "teacher_continuations": "teacher_continuations"}


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """`teacher_continuations`."""
    return [_continuations(recipe)]


def _continuations(recipe: Recipe) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        "teacher_continuations",
        ["teacher_continuations", "failed_requests"],
        reads=prefixes_read(recipe),
        looks_up=looked_up(recipe),
        models=["teacher_model", "student_model"],
        rules=[CONTINUATIONS],
    )

    @declared.asset(
        group="training_mixed_policy",
        kinds={"ducklake", ENGINES[recipe.teacher.engine].ui_kind},
        loads_model=True,
        description="One row per prefix that the teacher continued, with raw logprobs of the continuation.",
    )
    def teacher_continuations(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        teacher = engines.find(recipe.teacher, "teacher.model")
        cuts = current_cuts(warehouse, engines, recipe)
        wanted = wanted_continuations(warehouse, recipe, teacher.fingerprint, cuts)
        present = warehouse.read("SELECT continuation_id FROM teacher_continuations")["continuation_id"]
        todo = sorted(wanted[key] for key in missing(wanted, present))
        with Ledger(warehouse, "teacher_continuations", origin(context)) as ledger:
            # Their texts are read again, a part at a time, as the engine asks for them.
            asked = prefixes(asked_texts(warehouse, todo), cuts, recipe, teacher.fingerprint)
            made = continued(engines, teacher, recipe, asked)
            ledger.collect(logged(made, len(todo), "continuations", context.log.info), lambda row: row)
        rows = made_of(warehouse, wanted)
        return dg.MaterializeResult(
            data_version=content_version(rows["continuation_id"]),
            tags=retry_tags([(ledger, teacher.spec)]),
            metadata=declared.result(
                warehouse,
                rows.height,
                {"teacher_fingerprint": teacher.fingerprint},
                num_new=ledger.num_added,
                num_failed=len(wanted) - rows.height,
                num_tokens=int(rows["num_tokens"].sum()),
            ),
        )

    return teacher_continuations
