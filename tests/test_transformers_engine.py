"""TransformersEngine against a plain Hugging Face forward pass and log_softmax, and against arithmetic by hand."""

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GptOssConfig,
    GraniteConfig,
    HyperCLOVAXConfig,
    Lfm2Config,
    PreTrainedConfig,
    Qwen3Config,
)

from dasd_resources.inference.engine import Completion, Failure, GenerationRequest, Score, ScoringRequest
from dasd_resources.inference.generation_batch import sample
from dasd_resources.inference.transformers_engine import PROJECTED_LOGITS, TransformersEngine

VOCABULARY = 300
CONTEXT = 128
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": CONTEXT,
    "initializer_range": 0.1,
}
PROMPTS = [[5, 9, 200, 31], [7], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20], [250, 3], [8] * 25]


def save(config: PreTrainedConfig, path: Path) -> Path:
    """A model of random weights in safetensors."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(Qwen3Config(**SIZES), tmp_path_factory.mktemp("qwen3"))


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(checkpoint, "float32", {})
    yield engine
    engine.close()


def request(name: str, prompt: list[int], seed: int, **changes: object) -> GenerationRequest:
    """A request of 20 tokens at T=0.8, with one stop token, or as changed."""
    values = {"temperature": 0.8, "top_p": 1.0, "max_tokens": 20, "stop_token_ids": (2,), **changes}
    return GenerationRequest(name, tuple(prompt), seed=seed, **values)


def generate(engine: TransformersEngine, requests: list[GenerationRequest]) -> dict[str, Completion]:
    """Completions by id, one for each request."""
    completions = {}
    for completion in engine.generate(requests):
        assert isinstance(completion, Completion)
        assert completion.request_id not in completions
        completions[completion.request_id] = completion
    assert set(completions) == {r.request_id for r in requests}
    return completions


def reference(path: Path, token_ids: list[int], num_prompt_tokens: int, attention: str = "sdpa") -> list[float]:
    """Raw logprobs from the model alone: one sequence, no cache, no padding."""
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32, attn_implementation=attention).eval()
    with torch.inference_mode():
        logprobs = model(torch.tensor([token_ids])).logits[0].log_softmax(-1)
    return [float(logprobs[i - 1, token_ids[i]]) for i in range(num_prompt_tokens, len(token_ids))]


def mixed_requests() -> list[GenerationRequest]:
    """Forty requests of various prompts, temperatures, nuclei, lengths and stop ids."""
    return [
        request(
            f"r{seed}",
            PROMPTS[seed % len(PROMPTS)],
            seed,
            temperature=(0.6, 1.0, 1.3)[seed % 3],
            top_p=(1.0, 0.9)[seed % 2],
            max_tokens=1 + seed,
            stop_token_ids=((), (2,), tuple(range(0, 60)))[seed % 3],
        )
        for seed in range(40)
    ]


def scoring_requests() -> list[ScoringRequest]:
    return [
        ScoringRequest(f"s{length}", tuple((7 * i + length) % VOCABULARY for i in range(length)), 1 + length // 3)
        for length in (2, 3, 10, 31, 32, 64, CONTEXT)
    ]


def nucleus(probs: list[float], top_p: float) -> list[float]:
    """The smallest set of most probable tokens that reaches `top_p`, renormalised."""
    kept, mass = set(), 0.0
    for token in sorted(range(len(probs)), key=lambda t: -probs[t]):
        kept.add(token)
        mass += probs[token]
        if mass >= top_p:
            break
    return [p / mass if token in kept else 0.0 for token, p in enumerate(probs)]


def assert_drawn_from(token_ids: list[int], probs: list[float]) -> None:
    """Chi-square over the tokens expected 5 times or more, the others taken together; nothing impossible drawn."""
    expected = [p * len(token_ids) for p in probs]
    counts = [token_ids.count(token) for token in range(len(probs))]
    assert all(p > 0 for p, count in zip(probs, counts, strict=True) if count)
    cells = [(c, e) for c, e in zip(counts, expected, strict=True) if e >= 5]
    rest = (len(token_ids) - sum(c for c, _ in cells), len(token_ids) - sum(e for _, e in cells))
    cells += [rest] if rest[1] >= 5 else []
    freedom = len(cells) - 1
    assert freedom > 3
    assert sum((c - e) ** 2 / e for c, e in cells) < freedom + 5 * (2 * freedom) ** 0.5


@pytest.mark.parametrize("options", [{}, {"max_batch_size": 7}, {"max_batch_tokens": 200}], ids=str)
def test_generated_logprobs_are_raw_and_exact(checkpoint: Path, options: dict[str, object]) -> None:
    engine = TransformersEngine(checkpoint, "float32", options)
    completions = generate(engine, mixed_requests())
    for made in mixed_requests()[::6]:
        completion = completions[made.request_id]
        sequence = [*made.prompt_token_ids, *completion.token_ids]
        assert completion.logprobs == pytest.approx(
            reference(checkpoint, sequence, len(made.prompt_token_ids)), abs=1e-5
        )


def test_a_row_does_not_depend_on_its_batch(checkpoint: Path, engine: TransformersEngine) -> None:
    requests = mixed_requests()
    together = generate(engine, requests)
    refilled = generate(TransformersEngine(checkpoint, "float32", {"max_batch_size": 5}), requests[::-1])
    for made in requests:
        alone = generate(engine, [made])[made.request_id]
        for other in (together[made.request_id], refilled[made.request_id]):
            assert (other.token_ids, other.finish_reason) == (alone.token_ids, alone.finish_reason)
            assert other.logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_a_stream_is_what_generate_gives(engine: TransformersEngine) -> None:
    asked = mixed_requests()[:6]
    for one, expected in generate(engine, asked).items():
        *token_ids, result = engine.stream(next(r for r in asked if r.request_id == one))
        assert isinstance(result, Completion) and token_ids == result.token_ids == expected.token_ids
        assert result.finish_reason == expected.finish_reason
        assert result.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
    [failure] = engine.stream(request("long", [5] * CONTEXT, 0))
    assert isinstance(failure, Failure) and failure.kind == "context_overflow"


def uneven_requests(num_short: int) -> list[GenerationRequest]:
    """Short prompts beside one of fifteen times their length."""
    short = [request(f"s{seed}", [7 + seed, *PROMPTS[0]], seed, stop_token_ids=()) for seed in range(num_short)]
    return [request("long", [9] * 75, 99, stop_token_ids=()), *short]


class FedTokens:
    """What the model's layers are given: token positions computed, and cells of the cache read, padding included."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.num_computed = self.num_read = 0
        self._hook = engine.model.base_model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: torch.nn.Module, args: object, inputs: dict[str, Tensor]) -> None:
        self.num_computed += inputs["input_ids"].numel()
        self.num_read += inputs["attention_mask"].numel() if "attention_mask" in inputs else 0

    def __enter__(self) -> "FedTokens":
        return self

    def __exit__(self, *_: object) -> None:
        self._hook.remove()


def test_short_prompts_are_not_padded_to_a_long_ones_length(checkpoint: Path) -> None:
    """A bar of a tenth more than the parts; padding to the longest computes 2.3 and reads 4.4 times as much."""
    engine = TransformersEngine(checkpoint, "float32", {"max_scoring_tokens": 256})
    engine.weight_bytes = 2**13  # as large beside the cache as a real model's with real prompts
    long, *short = uneven_requests(12)
    counts = []
    for requests in ([long], short, [long, *short]):
        with FedTokens(engine) as fed:
            generate(engine, requests)
        counts.append((fed.num_computed, fed.num_read))
    (alone, beside, together) = counts
    for part, other, both in zip(alone, beside, together, strict=True):
        assert part + other <= both <= 1.1 * (part + other)


@pytest.mark.parametrize("weight_bytes", [0, 2**13, 2**40])
def test_a_row_does_not_depend_on_which_batches_are_merged(checkpoint: Path, weight_bytes: int) -> None:
    engine = TransformersEngine(checkpoint, "float32", {"max_batch_size": 6})
    engine.weight_bytes = weight_bytes
    requests = uneven_requests(8)
    together = generate(engine, requests)
    for made in requests:
        alone = generate(engine, [made])[made.request_id]
        assert together[made.request_id].token_ids == alone.token_ids
        assert together[made.request_id].logprobs == pytest.approx(alone.logprobs, abs=1e-5)


def test_a_short_row_ends_before_a_long_one_beside_it(engine: TransformersEngine) -> None:
    long, *short = uneven_requests(3)
    ended = [result.request_id for result in engine.generate([replace(long, max_tokens=40), *short])]
    assert ended[-1] == "long"


def test_short_sequences_are_not_padded_while_scoring(checkpoint: Path) -> None:
    engine = TransformersEngine(checkpoint, "float32", {"max_scoring_tokens": 256})
    sequences = [tuple(r.prompt_token_ids) for r in uneven_requests(40)]
    with FedTokens(engine) as fed:
        list(engine.score([ScoringRequest(str(i), ids, 1) for i, ids in enumerate(sequences)]))
    assert fed.num_computed <= 1.1 * sum(map(len, sequences))


def test_a_larger_limit_only_adds_tokens(engine: TransformersEngine) -> None:
    short = generate(engine, [request("a", PROMPTS[0], 3, max_tokens=9, stop_token_ids=())])["a"]
    long = generate(engine, [request("a", PROMPTS[0], 3, max_tokens=30, stop_token_ids=())])["a"]
    assert long.token_ids[:9] == short.token_ids
    assert len(long.token_ids) == 30


def test_different_seeds_draw_different_noise(engine: TransformersEngine) -> None:
    completions = generate(engine, [request(f"{seed}", PROMPTS[0], seed) for seed in range(20)])
    assert len({tuple(c.token_ids) for c in completions.values()}) == 20


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (0.8, 0.7)])
def test_samples_follow_the_tempered_distribution(
    checkpoint: Path, engine: TransformersEngine, temperature: float, top_p: float
) -> None:
    changes = {"temperature": temperature, "top_p": top_p, "max_tokens": 1, "stop_token_ids": ()}
    completions = generate(engine, [request(f"{seed}", PROMPTS[2], seed, **changes) for seed in range(4000)])
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    with torch.inference_mode():
        logits = model(torch.tensor([PROMPTS[2]])).logits[0, -1]
    probs = nucleus((logits.double() / temperature).softmax(-1).tolist(), top_p)
    assert_drawn_from([c.token_ids[0] for c in completions.values()], probs)


def draw(probs: list[float], uniform: float, top_p: float = 1.0, temperature: float = 1.0) -> int:
    """One token, given the probabilities at temperature 1."""
    values = (torch.tensor([probs]).log(), *(torch.tensor([v]) for v in (temperature, top_p, uniform)))
    return int(sample(*values))


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 1), (0.19, 1), (0.21, 2), (0.69, 2), (0.71, 3), (1 - 2**-24, 3)])
def test_inverse_cdf_by_hand(uniform: float, token: int) -> None:
    assert draw([0.0, 0.2, 0.5, 0.3, 0.0], uniform) == token


@pytest.mark.parametrize(("uniform", "token"), [(0.0, 2), (0.62, 2), (0.63, 3), (1 - 2**-24, 3)])
def test_nucleus_by_hand(uniform: float, token: int) -> None:
    # tokens 2 and 3 reach 0.8 of the mass; renormalised, they share [0, 1) as 0.625 and 0.375
    assert draw([0.0, 0.2, 0.5, 0.3, 0.0], uniform, top_p=0.75) == token


def test_temperature_zero_is_greedy() -> None:
    assert {draw([0.3, 0.36, 0.34], u / 10, temperature=0.0) for u in range(10)} == {1}


def test_rows_end_at_their_own_stop_token_or_limit(engine: TransformersEngine) -> None:
    requests = mixed_requests()
    completions = generate(engine, requests)
    assert {c.finish_reason for c in completions.values()} == {"stop", "length"}
    for made in requests:
        completion = completions[made.request_id]
        *before, last = completion.token_ids
        assert not set(before) & set(made.stop_token_ids)
        assert (completion.finish_reason == "stop") == (last in made.stop_token_ids)
        assert completion.finish_reason == "stop" or len(completion.token_ids) == made.max_tokens


def test_a_request_beyond_the_context_fails_and_the_others_go_on(engine: TransformersEngine) -> None:
    exact = request("exact", [5] * 100, 1, max_tokens=28, stop_token_ids=())
    results = {r.request_id: r for r in engine.generate([request("long", [5] * 100, 0, max_tokens=29), exact])}
    assert isinstance(results["exact"], Completion)
    failure = results["long"]
    assert isinstance(failure, Failure) and failure.kind == "context_overflow"
    assert all(part in failure.reason for part in ("100", "29", "128", "generation.max_tokens"))


@pytest.mark.parametrize(("prompt", "max_tokens"), [([], 5), ([1], 0)])
def test_nothing_to_sample_is_an_error(engine: TransformersEngine, prompt: list[int], max_tokens: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        list(engine.generate([request("a", prompt, 0, max_tokens=max_tokens)]))


@pytest.mark.parametrize("budget", [1, 100, 10_000])
@pytest.mark.parametrize("packed", [False, True])
def test_scores_equal_a_plain_log_softmax(checkpoint: Path, packed: bool, budget: int) -> None:
    engine = TransformersEngine(checkpoint, "float32", {"packed_scoring": packed, "max_scoring_tokens": budget})
    requests = scoring_requests()
    scores = {s.request_id: s.logprobs for s in engine.score(requests)}
    assert len(scores) == len(requests)
    for made in requests:
        expected = reference(checkpoint, list(made.token_ids), made.num_prompt_tokens)
        assert scores[made.request_id] == pytest.approx(expected, abs=1e-5)


def test_a_sequence_that_is_all_prompt_has_no_logprobs(engine: TransformersEngine) -> None:
    (score,) = engine.score([ScoringRequest("a", (5, 6), 2)])
    assert score.logprobs == []


@pytest.mark.parametrize("num_prompt_tokens", [0, 4])
def test_an_impossible_prompt_length_is_an_error(engine: TransformersEngine, num_prompt_tokens: int) -> None:
    with pytest.raises(ValueError, match="num_prompt_tokens"):
        list(engine.score([ScoringRequest("a", (5, 6, 7), num_prompt_tokens)]))


def test_a_sequence_beyond_the_context_fails(engine: TransformersEngine) -> None:
    (failure,) = engine.score([ScoringRequest("a", (5,) * (CONTEXT + 1), 1)])
    assert isinstance(failure, Failure) and failure.kind == "context_overflow"
    assert "129" in failure.reason


class LargestResult(TorchDispatchMode):
    """Notes the size of the largest tensor any operation returns."""

    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.num_bytes = max(self.num_bytes, result.nbytes)
        return result


def test_scoring_never_holds_the_logits_of_a_whole_sequence(tmp_path: Path) -> None:
    sizes = {**SIZES, "vocab_size": 151_936, "hidden_size": 32, "num_hidden_layers": 1, "max_position_embeddings": 1024}
    path = save(Qwen3Config(**sizes), tmp_path)
    engine = TransformersEngine(path, "float32", {})
    token_ids = tuple(7 * i % 151_936 for i in range(600))
    with LargestResult() as largest:
        (score,) = engine.score([ScoringRequest("a", token_ids, 28)])
    assert largest.num_bytes <= 4 * PROJECTED_LOGITS < 600 * 151_936 * 4
    assert isinstance(score, Score)
    assert score.logprobs == pytest.approx(reference(path, list(token_ids), 28), abs=1e-5)


GEMMA2 = {**SIZES, "final_logit_softcapping": 2.0, "sliding_window": 8, "query_pre_attn_scalar": 32}
GPT_OSS = GptOssConfig(  # SIZES' heads are too few for its sinks to matter
    **{**SIZES, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    num_local_experts=4,
    num_experts_per_tok=2,
    sliding_window=8,
    rope_parameters={"rope_type": "default", "rope_theta": 150_000.0},
)
ARCHITECTURES = [
    (Gemma2Config(**GEMMA2, attn_logit_softcapping=None), "sdpa"),
    (Gemma2Config(**GEMMA2, attn_logit_softcapping=0.5), "eager"),
    (GraniteConfig(**SIZES, logits_scaling=3.0), "sdpa"),
    (CohereConfig(**{k: v for k, v in SIZES.items() if k != "head_dim"}, logit_scale=0.3), "sdpa"),
    (GPT_OSS, "eager"),
]


@pytest.mark.parametrize(("config", "attention"), ARCHITECTURES, ids=lambda value: getattr(value, "model_type", value))
def test_decode_and_prefill_agree_with_the_plain_model(
    config: PreTrainedConfig, attention: str, tmp_path: Path
) -> None:
    path = save(config, tmp_path)
    engine = TransformersEngine(path, "float32", {"max_batch_size": 2, "attn_implementation": attention})
    completions = generate(engine, [request(str(i), p, i, stop_token_ids=()) for i, p in enumerate(PROMPTS)])
    sequences = [[*p, *completions[str(i)].token_ids] for i, p in enumerate(PROMPTS)]
    scores = {s.request_id: s.logprobs for s in engine.score([ScoringRequest("4", tuple(sequences[4]), 25)])}
    for i, prompt in enumerate(PROMPTS):
        expected = reference(path, sequences[i], len(prompt), attention)
        assert completions[str(i)].logprobs == pytest.approx(expected, abs=1e-5)
    assert scores["4"] == pytest.approx(completions["4"].logprobs, abs=1e-5)


REFUSED = [
    (Lfm2Config(**SIZES, layer_types=["conv", "full_attention"]), "recurrent"),
    (HyperCLOVAXConfig(**SIZES, logits_scaling=2.0), "projection"),
    (GPT_OSS, "attn_implementation: sdpa; set engine_options: {attn_implementation: eager}"),
    (Gemma2Config(**GEMMA2), "attn_implementation: sdpa; set engine_options: {attn_implementation: eager}"),
]


@pytest.mark.parametrize(("config", "reason"), REFUSED, ids=["recurrent", "scaling", "sinks", "capped attention"])
def test_models_it_would_get_wrong_are_refused(config: PreTrainedConfig, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=f"{reason}.*engine: vllm"):
        TransformersEngine(save(config, tmp_path), "float32", {})


def test_a_row_that_overflows_fails_alone(checkpoint: Path) -> None:
    engine = TransformersEngine(checkpoint, "float32", {})
    engine.model.get_input_embeddings().weight.data[299] = torch.nan
    rows = [ScoringRequest("good", (5, 9, 7), 1), ScoringRequest("bad", (5, 299, 7), 1)]
    scores = {result.request_id: result for result in engine.score(rows)}
    asked = [request("good", [5, 9], 1, max_tokens=3), request("bad", [299], 1, max_tokens=3)]
    said = {result.request_id: result for result in engine.generate(asked)}
    assert isinstance(scores["good"], Score) and isinstance(said["good"], Completion)
    for result in (scores["bad"], said["bad"]):
        assert isinstance(result, Failure) and result.kind == "invalid_logprobs"
        assert "bad: logprob nan at token 0 is not a log-probability" in result.reason


def test_an_unknown_option_is_named_beside_the_known_ones(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match=r"\['batch'\].*max_batch_size"):
        TransformersEngine(checkpoint, "float32", {"batch": 4})


def test_half_precision_and_a_second_engine_after_closing_the_first(checkpoint: Path) -> None:
    results: list[Tensor] = []
    for dtype in ("float32", "bfloat16"):
        engine = TransformersEngine(checkpoint, dtype, {})
        scores = sorted(engine.score(scoring_requests()), key=lambda s: s.request_id)
        results.append(torch.tensor(list(itertools.chain.from_iterable(s.logprobs for s in scores))))
        engine.close()
    assert 0 < (results[0] - results[1]).abs().mean() < 0.05
