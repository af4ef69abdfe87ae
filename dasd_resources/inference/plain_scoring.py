"""Log-probabilities the plain way: one sequence at a time, no padding, no packing, the model's own logits.

Shares only the weights with the engines' scoring, so that an error there (a mask, an offset, a scale of the logits)
shows when the two are compared. Left out: speed.
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
    # The last token predicts nothing that is in the sequence, so it is never fed.
    for start in range(0, len(token_ids) - 1, TOKENS_AT_ONCE):
        stop = min(start + TOKENS_AT_ONCE, len(token_ids) - 1)
        output = model(input_ids=ids[:, start:stop], past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        logprobs = output.logits[0].float().log_softmax(-1)
        # The state at position t predicts token t + 1.
        parts.append(logprobs.gather(1, ids[0, start + 1 : stop + 1, None])[:, 0])
    every = torch.cat(parts) if parts else torch.empty(0)
    # every[0] is the second token's: the first has no logprob.
    scored: list[float] = every[num_prompt_tokens - 1 :].tolist()
    return scored
