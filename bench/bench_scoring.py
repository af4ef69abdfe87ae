"""Scoring with the transformers engine against the arithmetic floor and vLLM's prompt logprobs; memory; ratios last.

Each contender lives in a process of its own and waits while another runs, so that they share the machine's drift and
nothing else. Threads are as torch sets them.
"""

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import MappingProxyType

import torch
from models import smollm2, wide
from results import against, table
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from dasd_resources.inference.engine import Score, ScoringRequest
from dasd_resources.inference.transformers_engine import TransformersEngine

TEXTS = Path(__file__).parents[1] / "tests" / "data" / "sentences"
LENGTHS = {
    "float32": (90, 130, 170, 210, 260, 320, 400, 500, 650, 900),
    "bfloat16": (90, 130, 170, 260, 400),  # fewer, as a CPU without bfloat16 is slow
}
NUM_PROMPT_TOKENS = 40
ROUNDS = 3
LONG = 8192
MEGABYTE = 2**20

Logprobs = dict[str, list[float]]
Sequences = list[ScoringRequest]


def main() -> None:
    print("## Scoring: logprobs of given tokens\n")
    reference: Logprobs = {}
    faults: list[str] = []
    for dtype in LENGTHS:
        faults += compare(dtype, reference)
    faults += memory()
    sys.exit("\n".join(faults) if faults else 0)


def compare(dtype: str, reference: Logprobs) -> list[str]:
    """Rates of ours, the floor and vLLM, interleaved, and how far their values are apart; returns what is wrong."""
    sequences = read_sequences(LENGTHS[dtype])
    num_tokens = sum(len(s.token_ids) for s in sequences)
    with ExitStack() as stack:
        all_of_them = [stack.enter_context(contender(load, dtype)) for load in (ours, bare, vllm)]
        all_of_them.append(stack.enter_context(contender(ours, dtype, {"GOMP_SPINCOUNT": "0"})))
        values = [one.logprobs(sequences) for one in all_of_them]  # also the warm-up
        rounds = [[one.seconds(sequences) for one in all_of_them] for _ in range(ROUNDS)]
    rates = [num_tokens / statistics.median(column) for column in zip(*rounds, strict=True)]
    to_floor, to_vllm, to_itself = (statistics.median(times[k] / times[0] for times in rounds) for k in (1, 2, 3))
    print(f"{len(sequences)} texts of {min(LENGTHS[dtype])} to {max(LENGTHS[dtype])} tokens, {dtype}, SmolLM2-135M:\n")
    bar = 2.0 if dtype == "bfloat16" else 1.0
    rows = [
        ["bare forward pass and projection", rates[0], rates[1], against(to_floor, 0.9)],
        ["vLLM's prompt_logprobs", rates[0], rates[2], against(to_vllm, bar)],
        ["ours, threads that never spin (GOMP_SPINCOUNT=0)", rates[0], rates[3], f"{to_itself:.2f} ×"],
    ]
    print(table(["tokens/s", "ours", "other", "ratio"], rows))
    reference |= values[1] if dtype == "float32" else {}
    return agreement(dtype, values[:3], reference)


def agreement(dtype: str, values: list[Logprobs], reference: Logprobs) -> list[str]:
    """float32: all within 1e-4 nats. bfloat16: ours no further from float32 than the bare model and vLLM, + 1e-3."""
    if dtype == "float32":
        worst = [max_difference(values[0], other) for other in values[1:]]
        print(
            f"Largest difference in a logprob: to the bare model {worst[0]:.1e}, to vLLM {worst[1]:.1e} (bar 1e-4).\n"
        )
        return [f"float32 logprobs differ by {max(worst)}"] if max(worst) > 1e-4 else []
    errors = [mean_difference(one, reference) for one in values]
    print(
        f"Mean distance to float32, the noise of bfloat16: ours {errors[0]:.4f}, the bare model {errors[1]:.4f}, vLLM "
        f"{errors[2]:.4f} nats (bar: ours at most 0.001 above either).\n"
    )
    return [f"bfloat16 logprobs are off by {errors}"] if errors[0] > min(errors[1:]) + 1e-3 else []


def max_difference(one: Logprobs, other: Logprobs) -> float:
    return max(float((torch.tensor(one[key]) - torch.tensor(other[key])).abs().max()) for key in one)


def mean_difference(one: Logprobs, other: Logprobs) -> float:
    return float(torch.cat([(torch.tensor(one[key]) - torch.tensor(other[key])).abs() for key in one]).mean())


def read_sequences(lengths: tuple[int, ...]) -> Sequences:
    """Reasoning texts of exactly these lengths, each beginning elsewhere in the labelled texts."""
    tokenizer = Tokenizer.from_file(str(smollm2() / "tokenizer.json"))
    files = [TEXTS / f"{name}.jsonl" for name in ("dev", "heldout")]
    rows = [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]
    token_ids = tokenizer.encode("\n\n".join("".join(row["sentences"]) for row in rows)).ids
    starts = [311 * length % (len(token_ids) - length) for length in lengths]
    return [
        ScoringRequest(f"{length}", tuple(token_ids[start : start + length]), NUM_PROMPT_TOKENS)
        for start, length in zip(starts, lengths, strict=True)
    ]


@dataclass
class Contender:
    """A loaded scorer in a process of its own."""

    connection: Connection

    def seconds(self, sequences: Sequences) -> float:
        """Wall-clock seconds of scoring them once."""
        return self._ask("seconds", sequences)  # type: ignore[return-value]

    def logprobs(self, sequences: Sequences) -> Logprobs:
        return self._ask("logprobs", sequences)  # type: ignore[return-value]

    def _ask(self, what: str, sequences: Sequences) -> object:
        self.connection.send((what, sequences))
        return self.connection.recv()


Scorer = tuple[Callable[[Sequences], object], Callable[[Sequences], Logprobs]]  # what is timed; the values
Load = Callable[[str], Scorer]


@contextmanager
def contender(load: Load, dtype: str, environment: Mapping[str, str] = MappingProxyType({})) -> Iterator[Contender]:
    """`environment` is set before the child imports torch, which reads it once."""
    here, there = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=serve, args=(load, dtype, there), daemon=True)
    before = dict(os.environ)
    os.environ.update(environment)
    process.start()
    os.environ.clear()
    os.environ.update(before)
    there.close()  # so that a dead child ends the wait
    yield Contender(here)
    here.close()
    process.join()


def serve(load: Load, dtype: str, connection: Connection) -> None:
    timed, logprobs = load(dtype)
    while True:
        try:
            what, sequences = connection.recv()
        except EOFError:
            return
        if what == "logprobs":
            connection.send(logprobs(sequences))
            continue
        start = time.perf_counter()
        timed(sequences)
        connection.send(time.perf_counter() - start)


def ours(dtype: str) -> Scorer:
    engine = TransformersEngine(smollm2(), dtype, {})

    def logprobs(sequences: Sequences) -> Logprobs:
        return {s.request_id: s.logprobs for s in engine.score(sequences) if isinstance(s, Score)}

    return logprobs, logprobs


def bare(dtype: str) -> Scorer:
    """The floor: the model's own forward pass, one sequence at a time, projecting no more than is scored."""
    model = plain_model(smollm2(), dtype)

    @torch.inference_mode()
    def logits(s: ScoringRequest) -> torch.Tensor:
        kept = len(s.token_ids) - s.num_prompt_tokens + 1
        result: torch.Tensor = model(torch.tensor([s.token_ids]), use_cache=False, logits_to_keep=kept).logits[0, :-1]
        return result

    def forward(sequences: Sequences) -> None:
        for sequence in sequences:
            logits(sequence)

    def logprobs(s: ScoringRequest) -> list[float]:
        wanted = torch.tensor(s.token_ids[s.num_prompt_tokens :])[:, None]
        return logits(s).float().log_softmax(-1).gather(1, wanted)[:, 0].tolist()

    return forward, lambda sequences: {s.request_id: logprobs(s) for s in sequences}


def plain_model(path: Path, dtype: str) -> PreTrainedModel:
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa")
    return model.eval()


def vllm(dtype: str) -> Scorer:
    """As its users call it, in this process, with flat logprobs, which are the fastest it has."""
    from dasd_resources.inference.vllm_engine import _prepare_environment

    _prepare_environment(on_gpu=False)
    from vllm import LLM, SamplingParams

    llm = LLM(
        str(smollm2()),
        dtype=dtype,
        enforce_eager=True,
        enable_prefix_caching=False,
        skip_tokenizer_init=True,
        kv_cache_memory_bytes=2**30,
    )
    params = SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False)

    def logprobs(sequences: Sequences) -> Logprobs:
        prompts = [{"prompt_token_ids": list(s.token_ids)} for s in sequences]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        scored = zip(sequences, outputs, strict=True)
        return {s.request_id: list(o.prompt_logprobs.logprobs)[s.num_prompt_tokens - 1 :] for s, o in scored}

    return logprobs, logprobs


def memory() -> list[str]:
    """Peak of scoring one long sequence under Qwen's vocabulary, over that of the forward pass without projection."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        forward, scoring = pool.map(peak, ["forward", "score"], chunksize=1)
    above = scoring - forward
    rows = [["forward pass without projection", forward], ["our scoring", scoring], ["difference (bar: 300)", above]]
    print(f"One sequence of {LONG:,} tokens under a vocabulary of 151,936, float32 (its logits would be 4,749 MB):\n")
    print(table(["peak memory", "MB"], rows))
    return [f"scoring takes {above} MB above the forward pass"] if above > 300 else []


def peak(what: str) -> int:
    """MB of resident memory at most, from after the loading."""
    if what == "score":
        engine = TransformersEngine(wide(), "float32", {})
    else:
        model = plain_model(wide(), "float32").base_model
    token_ids = tuple(7 * i % 151_936 for i in range(LONG))
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    if what == "score":
        list(engine.score([ScoringRequest("long", token_ids, 1)]))
    else:
        with torch.inference_mode():
            model(torch.tensor([token_ids]), use_cache=False)
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024 // MEGABYTE


if __name__ == "__main__":
    main()
