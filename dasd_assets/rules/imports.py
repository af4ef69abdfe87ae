"""Imported responses: which landed ones a recipe takes for which dataset, under which ids, and their rows.

A landed text becomes canonical, and gets the teacher's tokens: those that landed with logprobs, if they say the text,
else those of the text itself, which the teacher then scores.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from dasd_assets.rules.ids import imported_response_id, seed_of
from dasd_assets.rules.landed import IS_GIVEN, ITS_PROMPT, LANDED
from dasd_assets.rules.rule import Rule
from dasd_resources.chat import Aligned, UnsupportedQuestion
from dasd_resources.chat.landed_text import canonical_response
from dasd_resources.chat.tokenizer_probe import first_difference
from dasd_resources.inference.engine import Failure, FailureKind, ScoringRequest, check_logprobs
from dasd_resources.inference.engine_catalogue import ENGINES, IMPORTED
from dasd_resources.recipe import Recipe, dataset_name
from dasd_resources.storage.lake import Lake, Row

if TYPE_CHECKING:  # it loads Dagster
    from dasd_resources.inference.engines import PromptedModel

IMPORT_VERSION = "2"
IMPORTING = Rule(
    "imports",
    IMPORT_VERSION,
    (
        "imports.temperature",
        "imports.temperatures",
        "generation.temperatures",
        "generation.top_p",
        "generation.max_tokens",
    ),
)
NO_DATASET: FailureKind = "no_dataset"
GIVEN, PREFILL = "given", "prefill"  # values of `responses.logprob_origin`
# The first landing of each response to a question of the batch. Texts and lists are read later, a part at a time.
_LANDED = f"""SELECT DISTINCT ON (l.landed_id) l.landed_id, p.prompt_id, l.temperature, l.sample_index, l.source_file,
        l.source_line, l.item, l.place, bool_or({IS_GIVEN}) OVER (PARTITION BY l.landed_id) AS given
    FROM {LANDED} l {ITS_PROMPT}
    WHERE p.batch = $batch AND p.prompt_id NOT IN (SELECT prompt_id FROM withdrawn_prompts)
    ORDER BY l.landed_id, l.place, l.source_line, l.item"""


@dataclass(frozen=True)
class WantedImport:
    """A landed response that a recipe takes. wanted_index: the `sample_index` that its row names, if any.

    given: whether it is stored with logprobs that landed; else the teacher scores it, if there is one.
    """

    response_id: str
    landed_id: str
    prompt_id: str
    temperature: float
    wanted_index: int | None
    given: bool


def landed_in(lake: Lake, batch: str, existing: Sequence[str]) -> pl.DataFrame:
    """The landed responses to a batch's questions, without their texts, in the order in which they landed.

    existing: all batches, in the same order.
    """
    return lake.read(_LANDED, {"batch": batch, "existing": list(existing)}).sort("place", "source_line", "item")


def sampled_at(row: Mapping[str, object], recipe: Recipe) -> float | None:
    """The temperature of a landed response: its row's, else the recipe's for its file, else the only one there is."""
    assert recipe.imports is not None, "only a recipe with imports has landed responses"
    own, only = row["temperature"], recipe.generation.temperatures
    named = own if isinstance(own, float) else recipe.imports.temperature_of(str(row["source_file"]))
    return only[0] if named is None and len(only) == 1 else named


def wanted_imports(
    landed: pl.DataFrame, recipe: Recipe, dataset: str, teacher: "PromptedModel"
) -> dict[str, WantedImport]:
    """Response id -> the landed response, of those of a dataset's temperature."""
    temperature = recipe.datasets[dataset]
    wanted: dict[str, WantedImport] = {}
    for row in landed.iter_rows(named=True):
        sampled = sampled_at(row, recipe)
        if sampled is None or dataset_name(sampled) != dataset:
            continue
        key = {
            "landed_id": row["landed_id"],
            "teacher_fingerprint": teacher.fingerprint,
            "template_version": teacher.chat.template_version,
            "temperature": temperature,
            "top_p": recipe.generation.top_p,
            "max_tokens": recipe.generation.max_tokens,
        }
        identity, given = imported_response_id(key), row["given"] and not teacher.spec.is_proxy
        wanted[identity] = WantedImport(
            identity, row["landed_id"], row["prompt_id"], temperature, row["sample_index"], given
        )
    return wanted


def without_dataset(landed: pl.DataFrame, recipe: Recipe) -> list[Failure]:
    """A failure for each landed response whose temperature is none of the recipe's, or unknown."""
    failures = []
    for row in landed.iter_rows(named=True):
        sampled = sampled_at(row, recipe)
        if sampled is None:
            reason = "its row names no temperature, nor does the recipe: set imports.temperature"
        elif dataset_name(sampled) not in recipe.datasets:
            known = ", ".join(f"{t:g}" for t in recipe.generation.temperatures)
            reason = f"it was sampled at {sampled:g}; generation.temperatures has {known}"
        else:
            continue
        failures.append(Failure(row["landed_id"], reason, NO_DATASET))
    return failures


def sample_indices(todo: Iterable[WantedImport], taken: Mapping[str, Iterable[int]]) -> dict[str, int]:
    """Response id -> its place among its question's: the one that its row names if that is free, else the first free.

    taken: prompt id -> places that are taken by now.
    """
    used = {prompt: set(places) for prompt, places in taken.items()}
    found: dict[str, int] = {}
    for one in todo:
        places = used.setdefault(one.prompt_id, set())
        index, free = one.wanted_index, (number for number in range(len(places) + 1) if number not in places)
        found[one.response_id] = next(free) if index is None or index in places else index
        places.add(found[one.response_id])
    return found


def given_tokens(one: WantedImport, landed: Row, teacher: "PromptedModel") -> Aligned | Failure:
    """Canonical text and offsets of landed tokens; a Failure unless they say the landed text.

    landed: text, token_ids, logprobs.
    """
    try:
        check_logprobs(one.landed_id, landed["logprobs"], len(landed["token_ids"]))
    except ValueError as error:
        return Failure(one.response_id, str(error), "invalid_logprobs")
    return _as_landed(one, landed["text"], teacher.chat.read_landed(landed["token_ids"]))


@dataclass(frozen=True)
class ToScore:
    """A response that the teacher is to score: the request, and the text and offsets of its tokens."""

    wanted: WantedImport
    request: ScoringRequest
    said: Aligned
    finish_reason: str

    @property
    def token_ids(self) -> list[int]:
        return list(self.request.token_ids[self.request.num_prompt_tokens :])


def to_score(one: WantedImport, landed: Row, teacher: "PromptedModel") -> ToScore | Failure:
    """The text in the teacher's tokens, with its end of turn if it ended by itself; a Failure if these do not say it.

    landed: text, finish_reason, question, system_prompt.
    """
    chat, text = teacher.chat, canonical_response(landed["text"]).text
    try:
        encoded = chat.encode_response(landed["question"], text, landed["system_prompt"])
    except UnsupportedQuestion as error:
        return Failure(one.response_id, str(error), "unsupported_question")
    ids = encoded.token_ids[: None if landed["finish_reason"] == "stop" else -1]
    said = _as_landed(one, landed["text"], chat.read_response(ids[encoded.num_prompt_tokens :]))
    if isinstance(said, Failure):
        return said
    request = ScoringRequest(one.response_id, tuple(ids), encoded.num_prompt_tokens)
    return ToScore(one, request, said, landed["finish_reason"])


def _as_landed(one: WantedImport, text: str, said: Aligned) -> Aligned | Failure:
    landed = canonical_response(text)
    if said.text != landed.text:
        reason = f"the teacher's tokens of it read {first_difference(landed.text, said.text)}"
        return Failure(one.response_id, reason, "tokens_differ")
    return Aligned(said.text, said.offsets, said.tool_call or landed.tool_call)


def imported_row(one: WantedImport, said: Aligned, recipe: Recipe, teacher: "PromptedModel") -> Row:
    """The `responses` row of a landed response, without its batch, place, tokens and how it ended."""
    return {
        "response_id": one.response_id,
        "prompt_id": one.prompt_id,
        "temperature": one.temperature,
        "top_p": recipe.generation.top_p,
        "max_tokens": recipe.generation.max_tokens,
        "seed": seed_of(one.response_id),
        "teacher_fingerprint": teacher.fingerprint,
        "template_version": teacher.chat.template_version,
        "engine": IMPORTED if one.given else teacher.spec.engine,
        "dtype": teacher.spec.dtype,
        "text": said.text,
        "offsets": said.offsets,
        "tool_call": said.tool_call,
        "landed_id": one.landed_id,
        "logprob_origin": GIVEN if one.given else PREFILL,
    }


def no_logprobs(one: WantedImport, recipe: Recipe) -> Failure:
    """Why a response cannot be imported that has no logprobs, by a recipe without a teacher."""
    reason = (
        f"no logprobs of it have landed, and teacher {recipe.teacher.stands_for} is not here to score it: "
        "land them, or give the recipe a teacher, or a proxy"
    )
    return Failure(one.response_id, reason, "no_logprobs")


def has_teacher(recipe: Recipe) -> bool:
    """Whether there is a teacher to ask; where not, its responses are imported with their logprobs."""
    return not ENGINES[recipe.teacher.engine].absent
