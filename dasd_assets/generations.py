"""Teacher responses (report §3): n candidates for every question at every temperature.

`prompts` -> `responses`, one asset per temperature. A ledger: only responses that are not there yet are sampled.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

import dagster as dg
import polars as pl

from dasd_assets.records.code_versions import code_version
from dasd_assets.records.partitions import PROMPT_BATCH
from dasd_assets.records.plots import histogram, inline, shape
from dasd_assets.records.progress import logged
from dasd_assets.records.provenance import content_version, origin
from dasd_assets.records.table_metadata import TableAsset, table
from dasd_assets.service.staleness import retry_tag
from dasd_resources.chat import UnfitQuestion
from dasd_resources.content_hash import content_hash
from dasd_resources.inference.engine import Completion, Failure, GenerationRequest
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe
from dasd_resources.storage.ledger import Ledger, missing
from dasd_resources.storage.warehouse import Row, Warehouse

GENERATION_VERSION = "1"
RESPONSES = table("responses", prompts="prompts", checkpoints="teacher_model")
DECISIVE = (
    "prompt_id",
    "teacher_fingerprint",
    "template_version",
    "system_prompt",
    "temperature",
    "top_p",
    "max_tokens",
    "sample_index",
)

KINDS = {
    "transformers": "huggingface",
    "vllm": "vllm",
    "openai": "openai",
}  # of the engine, as the web UI names and draws them


@dataclass(frozen=True)
class WantedResponse:
    """A response that a recipe asks for; its id names everything that decides the text."""

    response_id: str
    prompt_id: str
    sample_index: int

    @property
    def seed(self) -> int:
        return seed_of(self.response_id)


def response_id(key: Row) -> str:
    """Names everything that decides a response; key: the columns of its row, and the teacher's system_prompt."""
    return content_hash({name: key[name] for name in DECISIVE})[:32]


def seed_of(row_id: str) -> int:
    """A 62-bit seed that depends on the row alone, so that neither order nor batching moves its noise."""
    return int(content_hash(["seed", row_id])[:16], 16) >> 2


def sampling_request(
    model: PromptedModel,
    row_id: str,
    prompt_token_ids: Sequence[int],
    temperature: float,
    top_p: float,
    max_tokens: int,
) -> GenerationRequest:
    """The request of a row: its seed comes from its id, its stop tokens from the model."""
    return GenerationRequest(
        request_id=row_id,
        prompt_token_ids=tuple(prompt_token_ids),
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        seed=seed_of(row_id),
        stop_token_ids=model.chat.stop_token_ids,
    )


def wanted_responses(
    prompt_ids: Sequence[str], recipe: Recipe, temperature: float, teacher: PromptedModel
) -> list[WantedResponse]:
    """`num_candidates` responses per prompt; ids do not depend on n, engine, batching or order (design: ledgers)."""
    sampling = recipe.generation
    wanted = []
    for prompt_id in prompt_ids:
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
            }
            wanted.append(WantedResponse(response_id(key), prompt_id, index))
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
    }


def build(recipe: Recipe) -> list[dg.AssetsDefinition]:
    """One generation asset per temperature of the recipe."""
    return [_generations(recipe, name, temperature) for name, temperature in recipe.datasets.items()]


def _generations(recipe: Recipe, dataset: str, temperature: float) -> dg.AssetsDefinition:
    parts = ("generation.num_candidates", "generation.top_p", "generation.max_tokens", "parity")
    responses = RESPONSES.made_with(code_version(recipe, *parts, generation=GENERATION_VERSION))

    @dg.asset(
        name=f"teacher_generations_{dataset}",
        partitions_def=PROMPT_BATCH,
        deps=["prompts", "teacher_model"],
        group_name="responses",
        kinds={"ducklake", KINDS[recipe.teacher.engine]},
        metadata=responses.part(f"temperature = {temperature:g}"),
        pool="engine",
        code_version=responses.code_version,
        description=f"One row per response sampled from the teacher at temperature {temperature}, with raw logprobs.",
    )
    def teacher_generations(
        context: dg.AssetExecutionContext, warehouse: Warehouse, engines: Engines
    ) -> dg.MaterializeResult:
        teacher = engines.find(recipe.teacher, "teacher.model")
        batch = context.partition_key
        questions = _questions(warehouse, batch)
        wanted = {w.response_id: w for w in wanted_responses(list(questions), recipe, temperature, teacher)}
        todo = [wanted[key] for key in missing(wanted, _present(warehouse, batch, temperature, teacher))]
        requests, refused = requests_for(todo, questions, recipe, temperature, teacher)
        with Ledger(warehouse, "responses", origin(context), batch) as ledger:
            completions = logged(engines.generate(teacher, requests), len(requests), "responses", context.log.info)
            ledger.collect(
                chain(refused, completions),
                lambda c: response_row(c, wanted[c.request_id], batch, recipe, temperature, teacher),
            )
        return _result(warehouse, batch, temperature, teacher, list(wanted), ledger, responses)

    return teacher_generations


def _questions(warehouse: Warehouse, batch: str) -> dict[str, Row]:
    query = """SELECT prompt_id, question, system_prompt FROM prompts WHERE batch = $batch
        AND prompt_id NOT IN (SELECT prompt_id FROM withdrawn_prompts) ORDER BY prompt_id"""
    return {row["prompt_id"]: row for row in warehouse.read(query, {"batch": batch}).iter_rows(named=True)}


def _present(warehouse: Warehouse, batch: str, temperature: float, teacher: PromptedModel) -> list[str]:
    query = """SELECT response_id FROM responses
        WHERE batch = $batch AND temperature = $temperature AND teacher_fingerprint = $teacher"""
    params = {"batch": batch, "temperature": temperature, "teacher": teacher.fingerprint}
    return warehouse.read(query, params)["response_id"].to_list()


def requests_for(
    todo: Iterable[WantedResponse],
    questions: dict[str, Row],
    recipe: Recipe,
    temperature: float,
    teacher: PromptedModel,
) -> tuple[list[GenerationRequest], list[Failure]]:
    """What to ask, candidates of a question sharing its token ids; and a Failure for what cannot be asked."""

    @cache
    def prompt(prompt_id: str) -> tuple[int, ...] | str:
        question = questions[prompt_id]
        try:
            return tuple(teacher.chat.prompt_ids(question["question"], question["system_prompt"]))
        except UnfitQuestion as error:
            return str(error)

    requests, refused, sampling = list[GenerationRequest](), list[Failure](), recipe.generation
    for one in todo:
        ids = prompt(one.prompt_id)
        if isinstance(ids, str):
            refused.append(Failure(one.response_id, ids))
        else:
            requests.append(
                sampling_request(teacher, one.response_id, ids, temperature, sampling.top_p, sampling.max_tokens)
            )
    return requests, refused


def _result(
    warehouse: Warehouse,
    batch: str,
    temperature: float,
    teacher: PromptedModel,
    wanted: list[str],
    ledger: Ledger,
    table_asset: TableAsset,
) -> dg.MaterializeResult:
    present = set(wanted) & set(_present(warehouse, batch, temperature, teacher))
    if wanted and not present:
        query = """SELECT reason FROM failed_requests WHERE asset = 'responses' AND batch = $batch
            AND request_id IN (SELECT unnest($ids::VARCHAR[])) GROUP BY reason ORDER BY count(*) DESC"""
        reasons = "; ".join(warehouse.read(query, {"batch": batch, "ids": wanted})["reason"][:3])
        moved = "their questions have passed to another batch, and so have the responses"
        raise dg.Failure(f"the teacher answered none of {len(wanted)} requests: {reasons or moved}")
    rows = {"batch": batch, "temperature": temperature, "teacher_fingerprint": teacher.fingerprint}
    lengths = _lengths(warehouse, batch, present)
    return dg.MaterializeResult(
        data_version=content_version(present),
        tags=retry_tag(ledger.num_retryable),
        metadata=table_asset.result(
            warehouse,
            len(present),
            rows,
            num_new=ledger.num_added,
            num_failed=len(wanted) - len(present),
            num_tokens=int(lengths["num_tokens"].sum()),
            truncated_share=lengths.select(pl.col("truncated").mean()).item(),
            lengths_shape=shape(lengths["num_tokens"].to_list()),
            lengths=inline(histogram({f"T={temperature:g}": lengths["num_tokens"].to_list()}, "tokens per response")),
        ),
    )


def _lengths(warehouse: Warehouse, batch: str, response_ids: Iterable[str]) -> pl.DataFrame:
    query = """SELECT len(token_ids) AS num_tokens, finish_reason = 'length' AS truncated FROM responses
        WHERE batch = $batch AND response_id IN (SELECT unnest($ids::VARCHAR[]))"""
    return warehouse.read(query, {"batch": batch, "ids": list(response_ids)})
