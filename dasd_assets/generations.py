"""Teacher responses (report §3): n candidates for every question at every temperature.

`prompts` -> `responses`, one asset per temperature. A ledger: only the responses that are missing are sampled.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import dagster as dg
import polars as pl

from dasd_assets.records.declaration import Declaration, declare
from dasd_assets.records.plots import histogram, inline, shape
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import Figure
from dasd_assets.records.tags import failure, retry_tags
from dasd_assets.rules.asset_names import generation_asset
from dasd_assets.rules.ids import response_id, seed_of
from dasd_assets.rules.instructions import as_asked
from dasd_assets.rules.quotas import IS_ASKED
from dasd_assets.rules.rule import Rule
from dasd_assets.rules.sampling import sampling_request
from dasd_resources.chat import UnsupportedQuestion
from dasd_resources.inference.engine import PERMANENT, Completion, Failure, GenerationRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.tables import measured
from dasd_resources.storage.warehouse import Row, Warehouse
from dasd_resources.visible_text import visible

GENERATION_VERSION = "1"
GENERATION = Rule(
    "generation",
    GENERATION_VERSION,
    (
        "generation.num_candidates",
        "generation.top_p",
        "generation.max_tokens",
        "generation.questions_per_domain",
        "generation.instructions",
    ),
)
PARITY_PARTS = ("parity.num_responses", "parity.max_tokens", "parity.teacher")  # of its blocking check


@dataclass(frozen=True, slots=True)  # a batch has as many as it has responses
class WantedResponse:
    """A response that a recipe asks for; the id is the hash of everything that decides its text."""

    response_id: str
    prompt_id: str
    sample_index: int
    instruction: str | None = None

    @property
    def seed(self) -> int:
        return seed_of(self.response_id)


def wanted_responses(
    domains: Mapping[str, str], recipe: Recipe, temperature: float, teacher: PromptedModel
) -> list[WantedResponse]:
    """`num_candidates` responses per prompt; an id does not depend on n, engine, batching or order.

    domains: of the prompts, by their ids.
    """
    sampling, instructions = recipe.generation, recipe.generation.instructions
    wanted = []
    for prompt_id, domain in domains.items():
        for index in range(sampling.num_candidates):
            key = {
                "prompt_id": prompt_id,
                "teacher_fingerprint": teacher.fingerprint,
                "template_version": teacher.chat.template_version,
                "system_prompt": teacher.spec.system_prompt,
                "temperature": temperature,
                "top_p": sampling.top_p,
                "max_tokens": sampling.max_tokens,
                "sample_index": index,
                "instruction": instructions.get(domain),
            }
            wanted.append(WantedResponse(response_id(key), prompt_id, index, instructions.get(domain)))
    return wanted


def response_row(
    completion: Completion,
    wanted: WantedResponse,
    batch: str,
    recipe: Recipe,
    temperature: float,
    teacher: PromptedModel,
) -> Row:
    """The `responses` row of a completion: canonical text with one raw logprob and one offset per token."""
    aligned = teacher.chat.read_response(completion.token_ids)
    return {
        "response_id": wanted.response_id,
        "prompt_id": wanted.prompt_id,
        "batch": batch,
        "temperature": temperature,
        "top_p": recipe.generation.top_p,
        "max_tokens": recipe.generation.max_tokens,
        "sample_index": wanted.sample_index,
        "seed": wanted.seed,
        "teacher_fingerprint": teacher.fingerprint,
        "template_version": teacher.chat.template_version,
        "engine": teacher.spec.engine,
        "dtype": teacher.spec.dtype,
        "text": aligned.text,
        "token_ids": completion.token_ids,
        "logprobs": completion.logprobs,
        "offsets": aligned.offsets,
        "tool_call": aligned.tool_call,
        "finish_reason": completion.finish_reason,
        "instruction": wanted.instruction,
    }


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """One generation asset per temperature of the recipe; those of one that imports are in `imported_responses`."""
    if recipe.imports is not None:
        return []
    return [_generations(recipe, name, temperature) for name, temperature in recipe.datasets.items()]


def _generations(recipe: Recipe, dataset: str, temperature: float) -> dg.AssetsDefinition:
    declared = declare(
        recipe,
        generation_asset(dataset),
        ["responses", "failed_requests"],
        reads={"prompts": "prompts", "asked_prompts": "prompts", "withdrawn_prompts": ()},
        models=["teacher_model"],
        rules=[GENERATION],
        parts=PARITY_PARTS,
        rows=f"temperature = {temperature:g}",
    )

    @declared.asset(
        group="responses",
        kinds={"ducklake", ENGINES[recipe.teacher.engine].ui_kind},
        loads_model=True,
        description=f"One row per response sampled from the teacher at temperature {temperature}, with raw logprobs.",
    )
    def teacher_generations(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        teacher = engines.find(recipe.teacher, "teacher.model")
        batch = context.partition_key
        questions = _questions(warehouse, batch, recipe.quota_scope)
        domains = {key: row["domain"] for key, row in questions.items()}
        wanted = {w.response_id: w for w in wanted_responses(domains, recipe, temperature, teacher)}
        todo = [wanted[key] for key in missing(wanted, present_responses(warehouse, batch, temperature, teacher))]
        requests = requests_for(todo, questions, recipe, temperature, teacher)
        with Ledger(warehouse, "responses", origin(context), batch) as ledger:
            ledger.collect(
                logged(engines.generate(teacher, requests), len(todo), "responses", context.log.info),
                lambda c: response_row(c, wanted[c.request_id], batch, recipe, temperature, teacher),
            )
        return _result(warehouse, batch, temperature, teacher, list(wanted), ledger, declared)

    return teacher_generations


def _questions(warehouse: Warehouse, batch: str, scope: str) -> dict[str, Row]:
    """The batch's questions that are asked. scope: whose quotas say so, see `Recipe.quota_scope`."""
    query = f"""SELECT prompt_id, question, system_prompt, domain FROM prompts p
        WHERE batch = $batch AND {IS_ASKED} ORDER BY prompt_id"""
    params = {"batch": batch, "quota_scope": scope}
    return {row["prompt_id"]: row for row in warehouse.read(query, params).iter_rows(named=True)}


def present_responses(warehouse: Warehouse, batch: str, temperature: float, teacher: PromptedModel) -> list[str]:
    """Ids of a batch's responses of a teacher at a temperature."""
    query = """SELECT response_id FROM responses
        WHERE batch = $batch AND temperature = $temperature AND teacher_fingerprint = $teacher"""
    params = {"batch": batch, "temperature": temperature, "teacher": teacher.fingerprint}
    return warehouse.read(query, params)["response_id"].to_list()


def requests_for(
    todo: Iterable[WantedResponse],
    questions: Mapping[str, Row],
    recipe: Recipe,
    temperature: float,
    teacher: PromptedModel,
) -> Iterator[GenerationRequest | Failure]:
    """Requests as they are asked for, all candidates of a question sharing its token ids.

    todo: a question's candidates one after another. A Failure stands for one that has no prompt: a chat template may
    refuse a question.
    """

    @lru_cache(maxsize=1)  # the prompts of a whole batch are not kept
    def prompt(prompt_id: str, instruction: str | None) -> tuple[int, ...] | str:
        question = questions[prompt_id]
        try:
            asked = as_asked(question["question"], instruction)
            return tuple(teacher.chat.prompt_ids(asked, question["system_prompt"]))
        except UnsupportedQuestion as error:
            return str(error)

    sampling = recipe.generation
    for response in todo:
        ids = prompt(response.prompt_id, response.instruction)
        if isinstance(ids, str):
            yield Failure(response.response_id, ids, "unsupported_question")
        else:
            yield sampling_request(teacher, response.response_id, ids, temperature, sampling.top_p, sampling.max_tokens)


def _result(
    warehouse: Warehouse,
    batch: str,
    temperature: float,
    teacher: PromptedModel,
    wanted: list[str],
    ledger: Ledger,
    declared: Declaration,
) -> dg.MaterializeResult:
    present = set(wanted) & set(present_responses(warehouse, batch, temperature, teacher))
    if wanted and not present:
        raise _none_answered(warehouse, batch, wanted)
    return dg.MaterializeResult(
        data_version=content_version(present),
        tags=retry_tags([(ledger, teacher.spec)]),
        metadata=declared.result(
            warehouse,
            len(present),
            {"batch": batch, "temperature": temperature, "teacher_fingerprint": teacher.fingerprint},
            num_new=ledger.num_added,
            num_failed=len(wanted) - len(present),
            **length_figures(lengths_of(warehouse, batch, present), temperature),
        ),
    )


def _none_answered(warehouse: Warehouse, batch: str, wanted: list[str]) -> dg.Failure:
    """Why a batch has no response at all: the three most frequent reasons of the engine, if it reported any."""
    query = """SELECT reason, kind FROM failed_requests WHERE asset = 'responses' AND batch = $batch
        AND request_id IN (SELECT unnest($ids::VARCHAR[])) GROUP BY ALL ORDER BY count(*) DESC"""
    failed = warehouse.read(query, {"batch": batch, "ids": wanted})
    moved = "their questions have moved to another batch, and the responses with them"
    reasons = visible("; ".join(failed["reason"][:3])) or moved
    message = f"the teacher answered none of {len(wanted)} requests: {reasons}"
    return failure(message, permanent=not failed.is_empty() and set(failed["kind"]) <= set(PERMANENT))


def length_figures(lengths: pl.DataFrame, temperature: float) -> dict[str, Figure]:
    """How long the responses are, in tokens, and how many hit the limit."""
    num_tokens = lengths["num_tokens"].to_list()
    return {
        "num_tokens": int(lengths["num_tokens"].sum()),
        "truncated_share": lengths.select(pl.col("truncated").mean()).item(),
        "lengths_shape": shape(num_tokens),
        "lengths": inline(histogram({f"T={temperature:g}": num_tokens}, "tokens per response")) if num_tokens else None,
    }


def lengths_of(warehouse: Warehouse, batch: str, response_ids: Iterable[str]) -> pl.DataFrame:
    """(num_tokens, truncated) of these responses."""
    query = f"""SELECT num_tokens, finish_reason = 'length' AS truncated
        FROM {measured("responses", "num_tokens", "response_id", "batch", "finish_reason")}
        WHERE batch = $batch AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""
    return warehouse.read(query, {"batch": batch, "ids": list(response_ids)})
