"""VLLMEngine: the InferenceEngine on vLLM, in this process, one model at a time.

The step loop yields rows as they finish; requests for one prompt follow one another, so that they share its cached
prefix. Left out: data parallelism, which vLLM does not offer in process (the recipe's `replicas` does), and text: token
ids go in and come out, so no tokenizer is loaded.

Not run by us, for want of a GPU, but read in vLLM 0.32's source: its V2 model runner, which computes the logprobs of
the response alone, 1024 rows at a time (`prompt_logprob_start`; the tests drive vLLM's own class for it on a CPU).
"""

import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

import torch

from dasd_resources.inference.engine import Completion, Failure, FinishReason, GenerationRequest, Score, ScoringRequest
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.limits import (
    SAMPLED_TO_SCORE,
    check_generation,
    check_scoring,
    split_supported,
    unsupported_generation,
    unsupported_scoring,
)
from dasd_resources.inference.vllm_log import output_in
from dasd_resources.orphans import children_watched
from dasd_resources.recipe import Option

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams

    Job = tuple[str, Sequence[int], SamplingParams]

Purpose = Literal["generate", "score"]
REASONS = get_args(FinishReason)


class VLLMEngine:
    """A model loaded by `vllm.LLM`, anew for generating and for scoring, which want different settings.

    `options` are LLM's own arguments; they override the defaults below. logs: the folder for what vLLM prints, which is
    over a hundred lines a model; without one it is printed.
    """

    def __init__(self, path: Path, dtype: str, options: Mapping[str, Option], logs: Path | None = None) -> None:
        if options.get("data_parallel_size", 1) != 1:
            raise ValueError(
                f"engine_options: data_parallel_size {options['data_parallel_size']} needs a server; set "
                f"replicas: {options['data_parallel_size']} beside engine_options instead"
            )
        self.model = {"model": str(path), "dtype": dtype}
        self.options, self.logs = options, logs
        self.on_gpu = torch.cuda.is_available()
        self.purpose: Purpose | None = None
        self.llm: LLM | None = None
        self._watching = ExitStack()

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        """Sample every request, those that share a prompt one after another."""
        for request in requests:
            check_generation(request)
        llm = self._load("generate")
        llm.reset_prefix_cache()  # of an earlier call: rows are not to depend on it in their last digits
        limits = (_context(llm), _vocabulary(llm))
        fitting, failures = split_supported(requests, lambda r: unsupported_generation(r, *limits))
        yield from failures
        jobs = ((r.request_id, r.prompt_token_ids, _sampling_params(r)) for r in _by_prompt(fitting))
        for output in _run(llm, jobs):
            yield _completion(output)

    def stream(self, request: GenerationRequest) -> Iterator[int | Completion | Failure]:
        """The token ids of one response as they are sampled, then the response."""
        check_generation(request)
        llm = self._load("generate")
        llm.reset_prefix_cache()
        if failure := unsupported_generation(request, _context(llm), _vocabulary(llm)):
            yield failure
            return
        token_ids, logprobs, finish_reason = list[int](), list[float](), None
        job = (request.request_id, request.prompt_token_ids, _sampling_params(request, whole=False))
        for output in _run(llm, [job], whole=False):
            [new] = output.outputs
            yield from new.token_ids
            token_ids += new.token_ids
            logprobs += _read(request.request_id, new.token_ids, new.logprobs)
            finish_reason = new.finish_reason
        yield _ended(request.request_id, token_ids, logprobs, finish_reason)

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        """Score every sequence by prefill."""
        for request in requests:
            check_scoring(request)
        llm = self._load("score")
        limits = (_context(llm), _vocabulary(llm), SAMPLED_TO_SCORE)
        fitting, failures = split_supported(requests, lambda r: unsupported_scoring(r, *limits))
        yield from failures
        yield from (Score(r.request_id, []) for r in fitting if _is_all_prompt(r))
        by_id = {r.request_id: r for r in fitting if not _is_all_prompt(r)}
        response_alone = llm.llm_engine.vllm_config.use_v2_model_runner
        params, score = (_response_params, _response_score) if response_alone else (_sequence_params, _sequence_score)
        for output in _run(llm, ((r.request_id, r.token_ids, params(r)) for r in by_id.values())):
            yield score(by_id[output.request_id], output)

    def close(self) -> None:
        """Free the model; only then may another be loaded, as vLLM keeps its distributed state per process."""
        if self.llm is not None:
            self.llm.llm_engine.engine_core.shutdown()
            self.llm = None
            gc.collect()
        self._watching.close()

    def _load(self, purpose: Purpose) -> "LLM":
        if self.llm is None or self.purpose != purpose:
            self.close()
            _prepare_environment(self.on_gpu)
            if self.on_gpu:  # the model is in a process of vLLM's, which outlives one that is killed
                self._watching.enter_context(children_watched())
            defaults = {**_DEFAULTS[purpose], **(_GPU if self.on_gpu else _CPU)[purpose]}
            if ENGINES["vllm"].num_gpus(self.options) > 1:
                defaults["distributed_executor_backend"] = "mp"  # in an actor, vLLM would ask Ray for more of them
            arguments = {**defaults, **self.options, **self.model, **_PINNED}
            with nullcontext() if self.logs is None else output_in(self.logs):
                from vllm import LLM

                self.llm, self.purpose = LLM(**arguments), purpose  # type: ignore[arg-type]
        return self.llm


_PINNED: dict[str, object] = {
    "logprobs_mode": "raw_logprobs",
    "skip_tokenizer_init": True,
    "trust_remote_code": False,
}
_LOADING: dict[str, object] = {"load_format": "safetensors", "use_tqdm_on_load": False}
_DEFAULTS: dict[Purpose, dict[str, object]] = {
    "generate": {**_LOADING, "enable_prefix_caching": True},
    "score": {**_LOADING, "enable_prefix_caching": False},
}
# While scoring, vLLM's V1 runner holds the logits of all tokens of a step, several times over: 2048 tokens of Qwen's
# vocabulary are 1.25 GB in float32. So a step is kept short; with the V2 runner, which is bounded by itself, the recipe
# may raise it.
_GPU: dict[Purpose, dict[str, object]] = {"generate": {}, "score": {"max_num_batched_tokens": 2048}}
# On a CPU, vLLM 0.32 cannot resume a seeded request whose prompt was cut into chunks ("CPU Generator does not use
# offset"), so prompts go in whole.
_EAGER: dict[str, object] = {"enforce_eager": True, "kv_cache_memory_bytes": 2**30}
_CPU: dict[Purpose, dict[str, object]] = {
    "generate": {**_EAGER, "enable_chunked_prefill": False},
    "score": {**_EAGER, "max_num_batched_tokens": 512},
}


def _prepare_environment(on_gpu: bool) -> None:
    """What vLLM reads from there: no telemetry; on a CPU no child process, which would take 25 s to start."""
    os.environ.update(VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # stdout belongs to the caller's output
    if not on_gpu:
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"


def _context(llm: "LLM") -> int:
    return int(llm.llm_engine.model_config.max_model_len)


def _vocabulary(llm: "LLM") -> int:
    return int(llm.llm_engine.model_config.get_vocab_size())


def _run(llm: "LLM", jobs: "Iterable[Job]", *, whole: bool = True) -> "Iterator[RequestOutput]":
    """Outputs as they finish; jobs enter as others leave, and none stays behind if the caller stops early.

    whole: False for those of each step, too, which have what is new.
    """
    engine, waiting, running = llm.llm_engine, iter(jobs), set[str]()
    max_running = 2 * engine.vllm_config.scheduler_config.max_num_seqs  # a batch, and the next one queued
    try:
        while True:
            for request_id, token_ids, params in islice(waiting, max_running - len(running)):
                engine.add_request(request_id, {"prompt_token_ids": list(token_ids)}, params)
                running.add(request_id)
            if not running:
                return
            for output in engine.step():
                if output.finished:
                    running.discard(output.request_id)
                if output.finished or not whole:
                    yield output  # type: ignore[misc]
    finally:
        engine.abort_request(list(running))


def _sampling_params(request: GenerationRequest, *, whole: bool = True) -> "SamplingParams":
    """One sample, ended by the request's own stop ids alone: `ignore_eos` is about those in the model's config."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        temperature=request.temperature,
        top_p=request.top_p,
        max_tokens=request.max_tokens,
        seed=request.seed,
        stop_token_ids=list(request.stop_token_ids),
        ignore_eos=True,
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY if whole else RequestOutputKind.DELTA,
    )


def _sequence_params(request: ScoringRequest) -> "SamplingParams":
    """The logprobs of all the sequence's tokens; asking for them also keeps vLLM from reading its prefix cache."""
    from vllm import SamplingParams

    return SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=0, flat_logprobs=True, detokenize=False)


def _response_params(request: ScoringRequest) -> "SamplingParams":
    """The logprobs of the tokens after the prompt alone: the state at `start` predicts the token after it."""
    from vllm import SamplingParams

    return SamplingParams(
        temperature=0,
        max_tokens=1,
        prompt_logprob_start=request.num_prompt_tokens - 1,
        prompt_logprob_token_ids=[[token_id] for token_id in request.token_ids[request.num_prompt_tokens :]],
        detokenize=False,
    )


def _is_all_prompt(request: ScoringRequest) -> bool:
    return request.num_prompt_tokens == len(request.token_ids)


def _by_prompt(requests: Sequence[GenerationRequest]) -> list[GenerationRequest]:
    """In the order in which their prompts first come."""
    first: dict[tuple[int, ...], int] = {}
    return sorted(requests, key=lambda r: first.setdefault(r.prompt_token_ids, len(first)))


def _completion(output: "RequestOutput") -> Completion | Failure:
    sampled = output.outputs[0]
    token_ids = list(sampled.token_ids)
    logprobs = _read(output.request_id, token_ids, sampled.logprobs) if sampled.finish_reason in REASONS else []
    return _ended(output.request_id, token_ids, logprobs, sampled.finish_reason)


def _ended(
    request_id: str, token_ids: list[int], logprobs: list[float], finish_reason: str | None
) -> Completion | Failure:
    if finish_reason not in REASONS:
        return Failure(request_id, f"vLLM ended the request with finish_reason {finish_reason!r}")
    return Completion.of(request_id, token_ids, logprobs, cast(FinishReason, finish_reason))


def _sequence_score(request: ScoringRequest, output: "RequestOutput") -> Score | Failure:
    logprobs = _read(request.request_id, request.token_ids[1:], output.prompt_logprobs)
    return Score.of(request.request_id, logprobs[request.num_prompt_tokens - 1 :])


def _response_score(request: ScoringRequest, output: "RequestOutput") -> Score | Failure:
    logprobs, expected = output.prompt_token_id_logprobs, len(request.token_ids) - request.num_prompt_tokens
    if logprobs is None or logprobs.shape != (expected, 1):
        raise RuntimeError(f"{request.request_id}: vLLM did not return the logprobs of its {expected} response tokens")
    return Score.of(request.request_id, logprobs[:, 0].tolist())


def _read(request_id: str, token_ids: Sequence[int], logprobs: object) -> list[float]:
    """The logprobs of exactly these tokens; raises RuntimeError if vLLM returned none, or those of others."""
    from vllm.logprobs import FlatLogprobs

    if not isinstance(logprobs, FlatLogprobs) or logprobs.token_ids != list(token_ids):
        raise RuntimeError(f"{request_id}: vLLM did not return the logprobs of its {len(token_ids)} tokens")
    return list(logprobs.logprobs)
