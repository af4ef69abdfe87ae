"""What every engine refuses: invalid requests (ValueError) and requests that the model does not support (Failure).

The latter, longer than the context or with tokens outside the vocabulary, fail alone.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from dasd_resources.inference.engine import Failure, GenerationRequest, ScoringRequest

Request = TypeVar("Request", GenerationRequest, ScoringRequest)
SAMPLED_TO_SCORE = 1  # token that vLLM, here or behind a server, insists on sampling after a sequence that it scores


def split_supported(
    requests: Sequence[Request], unsupported: Callable[[Request], Failure | None]
) -> tuple[list[Request], list[Failure]]:
    """The requests that a model supports, and a Failure for each of the others."""
    judged = [(request, unsupported(request)) for request in requests]
    return [request for request, failure in judged if failure is None], [f for _, f in judged if f is not None]


def check_generation(request: GenerationRequest) -> None:
    """Raise ValueError where there is nothing to continue or nothing to sample."""
    if not request.prompt_token_ids or request.max_tokens < 1:
        raise ValueError(
            f"{request.request_id}: cannot sample {request.max_tokens} tokens after a prompt of "
            f"{len(request.prompt_token_ids)}; both must be at least 1"
        )


def check_scoring(request: ScoringRequest) -> None:
    """Raise ValueError unless the prompt is a non-empty part of the sequence."""
    if not 1 <= request.num_prompt_tokens <= len(request.token_ids):
        raise ValueError(
            f"{request.request_id}: num_prompt_tokens {request.num_prompt_tokens} must lie between 1 and the "
            f"sequence's {len(request.token_ids)}: a first token has no predecessor to be scored from"
        )


def unsupported_generation(request: GenerationRequest, context: int, vocabulary: int | None = None) -> Failure | None:
    """A Failure if prompt and `max_tokens` together exceed `context` tokens, or one is not in the vocabulary."""
    num_prompt_tokens = len(request.prompt_token_ids)
    if num_prompt_tokens + request.max_tokens <= context:
        return _unknown_token(request.request_id, request.prompt_token_ids, vocabulary)
    return Failure(
        request.request_id,
        f"prompt of {num_prompt_tokens} tokens + max_tokens {request.max_tokens} exceed the model's context of "
        f"{context}; lower the recipe's generation.max_tokens (for an evaluation, the benchmark's max_tokens; for a "
        "rollout, mixed_policy.length_cap)",
        "context_overflow",
    )


def unsupported_scoring(
    request: ScoringRequest, context: int, vocabulary: int | None = None, sampled: int = 0
) -> Failure | None:
    """A Failure if the sequence and what is sampled after it exceed `context`, or a token is not in the vocabulary."""
    if len(request.token_ids) + sampled <= context:
        return _unknown_token(request.request_id, request.token_ids, vocabulary)
    return Failure(
        request.request_id,
        f"sequence of {len(request.token_ids)} tokens exceeds the model's context of {context}"
        f"{f', of which scoring needs {sampled} for itself' if sampled else ''}; lower the recipe's "
        "generation.max_tokens or take a model with a longer context",
        "context_overflow",
    )


def _unknown_token(request_id: str, token_ids: Sequence[int], vocabulary: int | None) -> Failure | None:
    """A Failure if there is one: on a GPU it would end the process. vocabulary: None if unknown, as a server's is."""
    if vocabulary is None or (min(token_ids) >= 0 and max(token_ids) < vocabulary):
        return None
    return Failure(
        request_id,
        f"token ids {min(token_ids)} to {max(token_ids)} leave the model's vocabulary of {vocabulary}: its tokenizer "
        "is of another model, or has tokens for which its embeddings were not enlarged",
        "unknown_token",
    )
