"""The transformers engine on prompts of very different lengths: together against one length at a time; ratio last.

Padded to the longest, short rows would cost as much as long ones. CPU seconds of one thread, the best of the rounds.
"""

import time
from collections.abc import Callable, Iterable, Sequence

import torch
from models import smollm2
from results import against, table

from dasd_resources.inference.engine import GenerationRequest, ScoringRequest
from dasd_resources.inference.transformers_engine import TransformersEngine

MIXES = (((32, 30), (1, 500)), ((11, 30), (1, 3563)))  # (number, tokens of the prompt)
MAX_TOKENS, ROUNDS = 16, 2
MOST = 1.3  # times the sum of the parts


def main() -> None:
    torch.set_num_threads(1)
    engine = TransformersEngine(smollm2(), "float32", {})
    seconds(engine.generate, prompts(2, 30))  # warm-up
    rows = []
    for parts in MIXES:
        asked = [prompts(*part) for part in parts]
        to_score = [[ScoringRequest(r.request_id, r.prompt_token_ids, 1) for r in part] for part in asked]
        rows += [row("generation", parts, engine.generate, asked), row("scoring", parts, engine.score, to_score)]
    print("## Mixed lengths: the transformers engine\n")
    print(
        f"SmolLM2-135M, float32, {MAX_TOKENS} tokens sampled after each prompt; one thread, CPU seconds. The ratio is "
        f"that of the parts over the mix, which may take {MOST} times as long.\n"
    )
    print(table(["s", "short", "long", "together", "ratio"], rows))


def row(name: str, parts: Sequence[tuple[int, int]], run: Callable, asked: Sequence[list]) -> list[object]:
    """Each part alone, then all in one call; rounds take turns, so that the machine's drift cancels."""
    sets = [*asked, [request for part in asked for request in part]]
    *alone, together = map(min, zip(*([seconds(run, one) for one in sets] for _ in range(ROUNDS)), strict=True))
    named = " + ".join(f"{number} × {tokens:,}" for number, tokens in parts)
    return [f"{name}, {named}", *alone, together, against(sum(alone) / together, round(1 / MOST, 2))]


def prompts(number: int, length: int) -> list[GenerationRequest]:
    """Requests without a stop token, so that all make as many tokens."""
    ids = [tuple((7 * row + column) % 40_000 + 100 for column in range(length)) for row in range(number)]
    return [GenerationRequest(f"{length}-{i}", ids[i], 1.0, 1.0, MAX_TOKENS, i, ()) for i in range(number)]


def seconds(run: Callable[[list], Iterable[object]], requests: list) -> float:
    start = time.process_time()
    assert len(list(run(requests))) == len(requests)
    return time.process_time() - start


if __name__ == "__main__":
    main()
