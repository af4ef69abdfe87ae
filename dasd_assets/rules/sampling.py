"""The sampling request of a row: its seed comes from its id, or is given; its stop tokens come from the model."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dasd_assets.rules.ids import seed_of
from dasd_resources.inference.engine import GenerationRequest

if TYPE_CHECKING:  # it loads Dagster
    from dasd_resources.inference.engines import PromptedModel


def sampling_request(
    model: "PromptedModel",
    row_id: str,
    prompt_token_ids: Sequence[int],
    temperature: float,
    top_p: float,
    max_tokens: int,
    seed: int | None = None,
) -> GenerationRequest:
    """prompt_token_ids: (T,) ids of the rendered prompt; max_tokens: of the response; seed: the id's, if None."""
    return GenerationRequest(
        request_id=row_id,
        prompt_token_ids=tuple(prompt_token_ids),
        temperature=temperature,
        top_p=top_p,
        max_tokens=max_tokens,
        seed=seed_of(row_id) if seed is None else seed,
        stop_token_ids=model.chat.stop_token_ids,
    )
