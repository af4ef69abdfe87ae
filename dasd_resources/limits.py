"""What every local engine refuses: requests without a meaning (ValueError) and requests beyond the model's context."""

from dasd_resources.engine import Failure, GenerationRequest, ScoringRequest


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


def too_long_to_generate(request: GenerationRequest, context: int) -> Failure | None:
    """A Failure if prompt and `max_tokens` together exceed `context` tokens."""
    num_prompt_tokens = len(request.prompt_token_ids)
    if num_prompt_tokens + request.max_tokens <= context:
        return None
    return Failure(
        request.request_id,
        f"prompt of {num_prompt_tokens} tokens + max_tokens {request.max_tokens} exceed the model's context of "
        f"{context}; lower the recipe's generation.max_tokens (for an evaluation, the benchmark's max_tokens; for a "
        "rollout, mixed_policy.length_cap)",
    )


def too_long_to_score(request: ScoringRequest, context: int) -> Failure | None:
    """A Failure if the sequence exceeds `context` tokens."""
    if len(request.token_ids) <= context:
        return None
    return Failure(
        request.request_id,
        f"sequence of {len(request.token_ids)} tokens exceeds the model's context of {context}; lower the recipe's "
        "generation.max_tokens or take a model with a longer context",
    )
