"""One filter, score, table, verifier and engine more, as docs/extending.md shows them: what it prints is this code."""

from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import TypeVar

import pytest
from test_engine_catalogue import ChainSums

from dasd_assets.rules.filters.catalogue import FILTERS, Filter
from dasd_assets.rules.scores import SCORES, Score, difference
from dasd_assets.rules.verdict import VERDICT_KINDS, Verdict
from dasd_resources.inference.engine import InferenceEngine
from dasd_resources.inference.engine_catalogue import ENGINES, ApiKey, EngineEntry
from dasd_resources.inference.engines import PromptedModel
from dasd_resources.storage.tables import TABLES
from dasd_resources.storage.tables.recurring import BATCH, RESPONSE_ID, RUN_ID
from dasd_resources.storage.tables.table import Column, Reference, Table
from dasd_resources.verifiers.catalogue import VERIFIERS, Verifier
from dasd_resources.verifiers.final_answer import compare_final_answer
from dasd_resources.verifiers.judgement import Asked, Judgement

Entry = TypeVar("Entry")
MAX_CHARACTERS = 200


def brevity(text: str) -> Verdict:
    """At most so many characters."""
    if len(text) <= MAX_CHARACTERS:
        return Verdict(True)
    return Verdict(False, "too_wordy", f"{len(text)} characters, at most {MAX_CHARACTERS}")  # type: ignore[arg-type]


ADDED_KINDS = {
    "too_wordy": "The response has too many characters.",
}

ADDED_FILTERS = {
    "brevity": Filter(
        drops="responses of more than 200 characters",
        judge=lambda response, filters: brevity(response.text),
        max_drop_share=0.3,
    ),
}

ADDED_SCORES = {
    "max_probability_token": Score(
        "greatest difference of a sentence, teacher minus student probability per token",
        difference("probability", "token").max(),
    ),
}

RESPONSE_LENGTHS = Table(
    name="response_lengths",
    one_row_per="response",
    columns=(
        RESPONSE_ID.of("responses.response_id"),
        BATCH.of("responses.batch"),
        Column("num_characters", "BIGINT", "Code points of the text.", ("responses.text",)),
        Column("num_tokens", "BIGINT", "Tokens as sampled.", ("responses.token_ids",)),
        Column("lengths_version", "VARCHAR", "Version of the rule that measured them."),
        RUN_ID,
    ),
    key=("response_id", "lengths_version"),
    references=(Reference(("response_id", "batch"), "responses"),),
    owner="responses",
)


def _same_items(answer: str, reference: str) -> bool:
    """The same items between commas, in any order."""
    found, expected = answer.split(","), reference.split(",")
    return sorted(map(str.strip, found)) == sorted(map(str.strip, expected))


def judge_items(text: str, asked: Asked) -> Judgement:
    """Whether the final answer names the reference answer's items."""
    return compare_final_answer(text, asked, _same_items)


ADDED_VERIFIERS = {
    "items": Verifier(judge_items),
}


def _load_chain_sums(model: PromptedModel, api_key: ApiKey) -> InferenceEngine:
    return ChainSums(model)


ADDED_ENGINES = {
    "chain_sums": EngineEntry(
        ui_kind="python",
        load=_load_chain_sums,
        holds_gpu_until_exit=False,
        quantisation_options=(),
        context_option=None,
    ),
}


@contextmanager
def extended() -> Iterator[None]:
    """All of it in the catalogues; on leaving, they are as they were."""
    with pytest.MonkeyPatch.context() as patch:
        for set_all in (
            _setter(VERDICT_KINDS, ADDED_KINDS),  # type: ignore[misc]
            _setter(FILTERS, ADDED_FILTERS),
            _setter(SCORES, ADDED_SCORES),
            _setter(TABLES, {"response_lengths": RESPONSE_LENGTHS}),
            _setter(VERIFIERS, ADDED_VERIFIERS),
            _setter(ENGINES, ADDED_ENGINES),
        ):
            set_all(patch)
        yield


def _setter(
    catalogue: MutableMapping[str, Entry], added: MutableMapping[str, Entry]
) -> Callable[[pytest.MonkeyPatch], None]:
    def set_all(patch: pytest.MonkeyPatch) -> None:
        for name, entry in added.items():
            assert name not in catalogue
            patch.setitem(catalogue, name, entry)

    return set_all
