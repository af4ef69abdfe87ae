"""Log-probabilities the plain way: one sequence at a time, no padding, no packing, the model's own logits.

Shares nothing with the engines' scoring but the weights, so that what goes wrong there (a mask, an offset, a scale of
the logits) shows when the two are compared. Left out: speed.
"""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

TOKENS_AT_ONCE = 256  # rows of logits held: 155 MB in float32 for a vocabulary of 150,000


@torch.inference_mode()
def plain_logprobs(model: PreTrainedModel, token_ids: Sequence[int], num_prompt_tokens: int) -> list[float]:
    """(T,) logprobs of the tokens after the prompt; the sequence goes in piece by piece through the model's cache."""
    ids = torch.tensor([list(token_ids)], device=model.device)
    cache, parts = None, []
    for start in range(0, len(token_ids) - 1, TOKENS_AT_ONCE):
        stop = min(start + TOKENS_AT_ONCE, len(token_ids) - 1)
        said = model(input_ids=ids[:, start:stop], past_key_values=cache, use_cache=True)
        cache = said.past_key_values
        logprobs = said.logits[0].float().log_softmax(-1)
        parts.append(logprobs.gather(1, ids[0, start + 1 : stop + 1, None])[:, 0])
    every = torch.cat(parts) if parts else torch.empty(0)
    scored: list[float] = every[num_prompt_tokens - 1 :].tolist()
    return scored
