"""The InferenceEngine protocol: token ids in, token ids and raw natural-log probabilities out.

Nothing here knows of text, templates or tables; `dasd_resources.chat` turns text into ids and back. Log-probabilities
are those of the untempered distribution (temperature 1, before top-p), whatever temperature sampled the token.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

FinishReason = Literal["stop", "length"]
FailureKind = Literal[
    "unsupported_question",
    "context_overflow",
    "unknown_token",
    "no_budget",
    "invalid_logprobs",
    "no_result",
    "server_busy",
    "server_unavailable",
    "server_refused",
    "server_error",
    "engine_error",
    "no_logprobs",
    "tokens_differ",
    "no_dataset",
]
FAILURE_KINDS: dict[FailureKind, str] = {  # codes of `failed_requests.kind`
    "unsupported_question": "The model's chat template refuses the question.",
    "context_overflow": "Prompt and token limit, or the sequence to score, exceed the model's context.",
    "unknown_token": "A token id lies outside the model's vocabulary.",
    "no_budget": "The prefix alone fills the token limit, so nothing is left to continue it with.",
    "invalid_logprobs": "The model gave a logprob that is not one: the arithmetic overflowed.",
    "no_result": "The engine ended without a result for the request.",
    "server_busy": "The server asked to come back later, for longer than the recipe is patient; not an attempt.",
    "server_unavailable": "No server could be reached, or it accepts no request of ours; not an attempt.",
    "server_refused": "The server refuses this request.",
    "server_error": "The server failed, was too slow, or gave a reply that cannot be right, at every attempt.",
    "engine_error": "The engine reported it; the reason has its message.",
    "no_logprobs": "Of an imported response: no logprobs landed, and there is no teacher to score it.",
    "tokens_differ": "Of an imported response, or of an answer that is scored: the token ids do not say its text.",
    "no_dataset": "Of an imported response: it was sampled at a temperature that the recipe has not, or at none known.",
}
assert get_args(FailureKind) == tuple(FAILURE_KINDS), "each kind stands in both, in one order"
# Of the request itself, so that it fails again until the request, the model or its context is another.
PERMANENT: tuple[FailureKind, ...] = (
    "unsupported_question",
    "context_overflow",
    "unknown_token",
    "no_budget",
    "no_logprobs",
    "tokens_differ",
    "no_dataset",
)
NOT_ATTEMPTS: tuple[FailureKind, ...] = ("server_busy", "server_unavailable")  # nothing could have been had
# Nats, on average, between raw logprobs of sampling and of prefill; bfloat16 makes some 0.01. Measured with vLLM 0.32:
# 0.00 with raw_logprobs, 1.1 to 1.7 with processed_logprobs (at temperature 0.6 it would be 0.04 to 0.35).
MAX_MEAN_DIFFERENCE = 0.3


@dataclass(frozen=True)
class GenerationRequest:
    """One response to sample; `seed` alone decides its noise, whatever it is batched with."""

    request_id: str
    prompt_token_ids: tuple[int, ...]
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    stop_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Completion:
    """A finished response: the sampled token ids (the stop token included) and one raw logprob in nats for each."""

    request_id: str
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason

    def __post_init__(self) -> None:
        check_logprobs(self.request_id, self.logprobs, len(self.token_ids))

    @classmethod
    def of(
        cls, request_id: str, token_ids: list[int], logprobs: list[float], finish_reason: FinishReason
    ) -> "Completion | Failure":
        """A completion, or a Failure if a logprob is invalid: one row that overflowed must not end all others."""
        try:
            return cls(request_id, token_ids, logprobs, finish_reason)
        except ValueError as error:
            return Failure(request_id, str(error), "invalid_logprobs")


@dataclass(frozen=True)
class ScoringRequest:
    """A sequence to score: logprobs are wanted for the tokens after the first `num_prompt_tokens` (at least 1)."""

    request_id: str
    token_ids: tuple[int, ...]
    num_prompt_tokens: int


@dataclass(frozen=True)
class Score:
    """One raw logprob in nats per token of the sequence after its prompt."""

    request_id: str
    logprobs: list[float]

    def __post_init__(self) -> None:
        check_logprobs(self.request_id, self.logprobs, len(self.logprobs))

    @classmethod
    def of(cls, request_id: str, logprobs: list[float]) -> "Score | Failure":
        """A score, or a Failure if a logprob is invalid."""
        try:
            return cls(request_id, logprobs)
        except ValueError as error:
            return Failure(request_id, str(error), "invalid_logprobs")


@dataclass(frozen=True)
class Failure:
    """A request that ended without a result, and why; unless that is permanent, a later run tries it again.

    reason: for people. kind: for code, see FAILURE_KINDS.
    """

    request_id: str
    reason: str
    kind: FailureKind = "engine_error"

    @property
    def counts(self) -> bool:
        """Whether it was an attempt at this request."""
        return self.kind not in NOT_ATTEMPTS


class InferenceEngine(Protocol):
    """A loaded model. Results come as they finish, in any order, exactly one per request."""

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]: ...

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]: ...

    def close(self) -> None: ...


@runtime_checkable
class StreamingEngine(Protocol):
    """An engine that can also give one response token by token: each id as it is sampled, at last the result.

    The response is the one that `generate` gives for the same request.
    """

    def stream(self, request: GenerationRequest) -> Iterator[int | Completion | Failure]: ...


def check_logprobs(request_id: str, logprobs: list[float], num_tokens: int) -> None:
    """Raise ValueError unless there is one finite, non-positive logprob per token; a wrong one is worse than none."""
    if len(logprobs) != num_tokens:
        raise ValueError(f"{request_id}: {num_tokens} tokens but {len(logprobs)} logprobs")
    for position, logprob in enumerate(logprobs):
        if not math.isfinite(logprob) or logprob > 1e-4:
            raise ValueError(
                f"{request_id}: logprob {logprob} at token {position} is not a log-probability; where a model "
                "overflows, dtype: bfloat16 or float32 may help"
            )
