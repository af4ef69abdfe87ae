"""TransformersEngine: the InferenceEngine in plain PyTorch, for any attention-only causal model, with no compiler.

Generation is continuous: rows end one by one, leave the batch, and waiting requests take their places. Rows of very
different lengths run in batches of their own: padded to the longest, a short row would cost as much as a long one. Left
out: paged memory, shared prefixes, several devices, recurrent models; the vLLM engine has them.

Scoring never holds the logits of a sequence: the vocabulary goes by in blocks, and of each only the sum and the wanted
logits are kept.
"""

import gc
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from dasd_resources.inference import half_precision
from dasd_resources.inference.engine import Completion, Failure, GenerationRequest, Score, ScoringRequest
from dasd_resources.inference.generation_batch import GenerationBatch, left_padded, merged
from dasd_resources.inference.limits import (
    Request,
    check_generation,
    check_scoring,
    split_supported,
    unsupported_generation,
    unsupported_scoring,
)
from dasd_resources.inference.plain_scoring import plain_logprobs

PROJECTED_LOGITS = 2**24  # held at once while scoring: 64 MB in float32
REDUCED_LOGITS = 2**20  # of which a CPU reduces this many at a time, within its cache
MAX_ROWS = 2**14  # projected at once; more would make the blocks of the vocabulary too narrow for a matrix product
# On a CPU, larger activations leave the cache and malloc's heap, and touching fresh memory for every layer costs a
# fifth of the time (docs/log.md).
MAX_PADDING_PART = 8  # a batch's padding adds at most an eighth to the memory that max_batch_tokens allows
SCORING_TOKENS = {"cpu": 2048, "cuda": 16_384}


@dataclass(frozen=True)
class Options:
    """The recipe's `engine_options`: how attention is computed, and how much is in memory at once."""

    attn_implementation: str = "sdpa"  # or eager: slower, and in memory the scores of all pairs of tokens
    max_batch_size: int = 256  # rows generated at once
    max_batch_tokens: int = 131_072  # prompt + max_tokens of these: what the key-value cache grows to, but for padding
    max_scoring_tokens: int | None = None  # of a forward pass over given tokens, with padding; see SCORING_TOKENS
    packed_scoring: bool = False  # one block-causal row, not a padded batch; slower with sdpa, equal to 1e-5
    plain_scoring: bool = False  # one sequence at a time by other code: what the parity check compares with


class TransformersEngine:
    """A checkpoint of safetensors on the GPU, or on the CPU where there is none."""

    def __init__(self, path: Path, dtype: str, options: Mapping[str, object]) -> None:
        self.options = _parse(options)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = _load(path, dtype, self.options.attn_implementation, self.device)
        self.head = cast(torch.nn.Linear, self.model.get_output_embeddings())
        self.scoring_tokens = self.options.max_scoring_tokens or SCORING_TOKENS[self.device.type]
        self.emulated = half_precision.is_missing(self.device, self.model.dtype)
        if self.emulated:
            half_precision.emulate(self.model)
        self.config = self.model.config.get_text_config()
        self._check_supported(path)
        self.context: int = self.config.max_position_embeddings
        self.weight_bytes = sum(int(weight.nbytes) for weight in self.model.parameters())
        self.vocabulary = len(cast(torch.nn.Embedding, self.model.get_input_embeddings()).weight)

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        """Sample every request, longest first, so that memory peaks at the start."""
        for request in requests:
            check_generation(request)
        fitting, failures = split_supported(
            requests, lambda r: unsupported_generation(r, self.context, self.vocabulary)
        )
        yield from failures
        yield from self._generate(deque(sorted(fitting, key=_num_reserved, reverse=True)))

    def stream(self, request: GenerationRequest) -> Iterator[int | Completion | Failure]:
        """The token ids of one response as they are sampled, then the response."""
        check_generation(request)
        if failure := unsupported_generation(request, self.context, self.vocabulary):
            yield failure
            return
        rows = GenerationBatch.start([request], request.max_tokens, len(request.stop_token_ids), self.device)
        ended = self._advance(rows, left_padded([request.prompt_token_ids], self.device))
        yield int(rows.last[0])
        while not ended:
            ended = self._advance(rows, rows.last[:, None])
            yield int(rows.last[0])
        yield from ended

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        """Score every sequence, longest first, batched with others of about its length."""
        for request in requests:
            check_scoring(request)
        fitting, failures = split_supported(requests, lambda r: unsupported_scoring(r, self.context, self.vocabulary))
        yield from failures
        if self.options.plain_scoring:
            for r in fitting:
                yield Score.of(r.request_id, plain_logprobs(self.model, r.token_ids, r.num_prompt_tokens))
            return
        for batch in self._alike(fitting, lambda r: len(r.token_ids)):
            yield from self._score(batch)

    def close(self) -> None:
        """Free the weights."""
        del self.model, self.head
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @torch.inference_mode()
    def _check_supported(self, path: Path) -> None:
        """Raise ValueError for a model whose logprobs would be wrong here: recurrent, or with an unknown last step."""
        model = self.config.model_type
        layers = set(getattr(self.config, "layer_types", None) or ())
        if self.model._is_stateful or layers - {"full_attention", "sliding_attention", "chunked_attention"}:
            raise ValueError(f"{path}: {model} keeps a recurrent state, which padding would spoil; set engine: vllm")
        token_ids = torch.arange(4, device=self.device)[None]
        expected = self.model(input_ids=token_ids, use_cache=False).logits[0].float()
        if not torch.allclose(
            self._logits(self.head(self._hidden(input_ids=token_ids)[0])), expected, rtol=1e-2, atol=1e-2
        ):
            raise ValueError(f"{path}: {model} does not end in a plain projection to the vocabulary; set engine: vllm")

    def _hidden(self, **inputs: object) -> Tensor:
        """(B, T, H) final states, normed, not yet projected."""
        states: Tensor = self.model.base_model(**{"use_cache": False, **inputs}).last_hidden_state
        return states

    def _project_block(self, hidden: Tensor, block: slice, buffer: Tensor) -> Tensor:
        """(N, H) states -> (N, B) scores of a block of the vocabulary, in their dtype, written to `buffer`."""
        weight = self.head.weight[block].to(hidden.dtype)
        scores = buffer[: len(hidden) * len(weight)].view(len(hidden), len(weight))
        torch.mm(hidden, weight.t(), out=scores)
        return scores if self.head.bias is None else scores.add_(self.head.bias[block])

    def _logits(self, scores: Tensor) -> Tensor:
        """Scores as float32, scaled and capped as the model's config says; in place where they are float32 already."""
        logits = scores.float()
        scale = (getattr(self.config, "logit_scale", None) or 1) / (getattr(self.config, "logits_scaling", None) or 1)
        if scale != 1:  # Cohere multiplies, Granite divides
            logits *= scale
        if cap := getattr(self.config, "final_logit_softcapping", None):  # Gemma
            logits.div_(cap).tanh_().mul_(cap)
        return logits

    def _generate(self, queue: deque[GenerationRequest]) -> Iterator[Completion | Failure]:
        size = max((r.max_tokens for r in queue), default=0)
        num_stops = max((len(r.stop_token_ids) for r in queue), default=0)
        running: list[GenerationBatch] = []
        while queue or running:
            # 1. Admitted prompts are prefilled with others of about their length.
            admitted = self._admit(queue, [r for rows in running for r in rows.requests])
            for requests in self._alike(admitted, lambda r: len(r.prompt_token_ids)):
                added = GenerationBatch.start(requests, size, num_stops, self.device)
                yield from self._advance(added, left_padded([r.prompt_token_ids for r in requests], self.device))
                running.append(added)
            # 2. They go on as one batch where that is cheaper, a token at a time.
            running = merged(running, self._max_padding(running[0]))
            while not any(rows.is_sparse() for rows in running):
                for rows in running:
                    yield from self._advance(rows, rows.last[:, None])
            # 3. Rows that have ended make room.
            left = [rows.drop_ended() if rows.is_sparse() else rows for rows in running]
            running = [rows for rows in left if rows is not None]

    def _admit(self, queue: deque[GenerationRequest], running: Sequence[GenerationRequest]) -> list[GenerationRequest]:
        """Take the requests there is room for, at least one if nothing runs."""
        admitted: list[GenerationRequest] = []
        rows = self.options.max_batch_size - len(running)
        tokens = self.options.max_batch_tokens - sum(map(_num_reserved, running))
        while queue and ((rows > 0 and tokens >= _num_reserved(queue[0])) or not (running or admitted)):
            admitted.append(queue.popleft())
            rows, tokens = rows - 1, tokens - _num_reserved(admitted[-1])
        return admitted

    def _max_padding(self, rows: GenerationBatch) -> int:
        """Cells of padding that a batch may carry: reading them takes as long as reading the weights once more.

        Two batches read the weights twice for a token of each; as one, padding included, they read more of the cache.
        """
        return min(self.weight_bytes // rows.cell_bytes, self.options.max_batch_tokens // MAX_PADDING_PART)

    @torch.inference_mode()
    def _advance(self, rows: GenerationBatch, token_ids: Tensor) -> list[Completion | Failure]:
        """Feed (B, T) token ids, sample the next token of every row, and return the rows that end with it."""
        start = rows.cache.get_seq_length()
        columns = torch.arange(start + token_ids.shape[1], device=self.device)
        hidden = self._hidden(
            input_ids=token_ids,
            attention_mask=columns >= rows.padding[:, None],
            position_ids=(columns[start:] - rows.padding[:, None]).clamp(0, self.context - 1),
            past_key_values=rows.cache,
            use_cache=True,
        )
        return rows.sample(self._logits(self.head(hidden[:, -1])))

    def _alike(self, requests: Sequence[Request], length: Callable[[Request], int]) -> Iterator[list[Request]]:
        """Cut requests into batches of one forward pass: at most `scoring_tokens`, of which little is padding.

        A batch ends early where more than a sixteenth would be padding, once that is more than a pass itself costs.
        """
        batch, padding = list[Request](), 0
        for request in sorted(requests, key=length, reverse=True):
            longest = length(batch[0] if batch else request)
            tokens = (len(batch) + 1) * longest
            padding += longest - length(request)
            if batch and (tokens > self.scoring_tokens or 16 * padding > max(tokens, self.scoring_tokens)):
                yield batch
                batch, padding = [], 0
            batch.append(request)
        if batch:
            yield batch

    @torch.inference_mode()
    def _score(self, batch: Sequence[ScoringRequest]) -> list[Score | Failure]:
        """Only the states that predict a scored token are projected."""
        layout = _packed if self.options.packed_scoring else _padded
        inputs, starts = layout([r.token_ids for r in batch], self.device)
        spans = [
            torch.arange(start + r.num_prompt_tokens, start + len(r.token_ids))
            for r, start in zip(batch, starts, strict=True)
        ]
        scored = torch.cat(spans).to(self.device)
        hidden = self._hidden(**inputs).flatten(0, 1)[scored - 1]
        targets = inputs["input_ids"].flatten()[scored]
        parts = zip(hidden.split(MAX_ROWS), targets.split(MAX_ROWS), strict=True)
        logprobs = torch.cat([self._token_logprobs(*part) for part in parts])
        rows = logprobs.cpu().split([len(span) for span in spans])
        return [Score.of(r.request_id, row.tolist()) for r, row in zip(batch, rows, strict=True)]

    def _token_logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """(N,) logprobs of `targets` (N,) after the states (N, H): their logit less the log of the running sum.

        Where half precision is emulated, logits stay as exact as they were summed: rounding them would add noise.
        """
        if self.emulated:
            hidden = hidden.float()
        vocabulary = len(self.head.weight)
        width = min(vocabulary, max(1024, PROJECTED_LOGITS // max(len(hidden), 1) // 64 * 64))
        height = max(1, REDUCED_LOGITS // width) if self.device.type == "cpu" else MAX_ROWS
        buffer = torch.empty(len(hidden) * width, dtype=hidden.dtype, device=self.device)
        sums = torch.full((len(hidden),), -torch.inf, device=self.device)
        logits = torch.empty_like(sums)
        for start in range(0, vocabulary, width):
            block = self._project_block(hidden, slice(start, start + width), buffer)
            for part in zip(*(t.split(height) for t in (block, targets - start, sums, logits)), strict=True):
                self._reduce(*part)
        return logits - sums

    def _reduce(self, scores: Tensor, positions: Tensor, sums: Tensor, logits: Tensor) -> None:
        """Add the scores (N, B) of a block to the log-sums (N,); note the logits at the positions (N,) inside it."""
        values = self._logits(scores)
        torch.logaddexp(sums, values.logsumexp(-1), out=sums)
        inside = (positions >= 0) & (positions < values.shape[1])
        found = values.gather(1, positions.clamp(0, values.shape[1] - 1)[:, None])[:, 0]
        torch.where(inside, found, logits, out=logits)


def _load(path: Path, dtype: str, attn_implementation: str, device: torch.device) -> PreTrainedModel:
    disable_progress_bar()
    config = AutoConfig.from_pretrained(path, trust_remote_code=False, local_files_only=True)
    _check_attention(path, config, attn_implementation)
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        path,
        config=config,
        dtype=dtype,
        attn_implementation=attn_implementation,
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
    )
    torch.nn.Module.to(model, device)
    return model.eval()


def _check_attention(path: Path, config: PreTrainedConfig, attn_implementation: str) -> None:
    """Raise ValueError where the model has no such attention, or one that leaves out a part of its arithmetic."""
    if attn_implementation != "sdpa":
        return
    model = AutoModelForCausalLM._model_mapping.get(type(config), None)
    # transformers' sdpa drops the cap that Gemma 2 puts on the scores, without a word.
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    if capped or not getattr(model, "_supports_sdpa", True):
        raise ValueError(
            f"{path}: {config.model_type} cannot be computed with attn_implementation: sdpa; set "
            "engine_options: {attn_implementation: eager}, or engine: vllm"
        )


def _parse(options: Mapping[str, object]) -> Options:
    known = [option.name for option in fields(Options)]
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(f"engine_options {unknown} are unknown to engine: transformers, which takes {known}")
    return Options(**options)  # type: ignore[arg-type]


def _num_reserved(request: GenerationRequest) -> int:
    return len(request.prompt_token_ids) + request.max_tokens


def _padded(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[dict[str, Tensor], list[int]]:
    """A batch padded on the right, which causal attention never sees, and each sequence's start in it, flattened."""
    longest = max(map(len, sequences))
    token_ids = torch.tensor([[*s, *[0] * (longest - len(s))] for s in sequences], device=device)
    return {"input_ids": token_ids}, [row * longest for row in range(len(sequences))]


def _packed(sequences: Sequence[Sequence[int]], device: torch.device) -> tuple[dict[str, Tensor], list[int]]:
    """All in one row, and each sequence's start in it; restarting positions make transformers keep them apart."""
    token_ids = torch.tensor([[token for s in sequences for token in s]], device=device)
    positions = torch.cat([torch.arange(len(s)) for s in sequences])[None].to(device)
    starts = [int(start) for start in (positions[0] == 0).nonzero()[:, 0]]
    return {"input_ids": token_ids, "position_ids": positions}, starts
