"""What a server may answer, and what is not believed."""

import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from dasd_resources.inference.engine import Completion, GenerationRequest, Score, ScoringRequest
from dasd_resources.inference.openai_replies import (
    BadReply,
    generation_body,
    read_completion,
    read_context,
    read_score,
    scoring_body,
)

SAMPLE = GenerationRequest("r", (5, 6), 0.6, 0.9, 4, 2**61 + 1, (3,))
SCORE = ScoringRequest("s", (5, 6, 7, 7), 2)
Json = dict[str, Any]
Change = Callable[[Json], object]


def completion() -> Json:
    """A good answer to SAMPLE, with some of what vLLM adds."""
    logprobs = {"tokens": ["token_id:9", "token_id:3"], "token_logprobs": [-0.5, -1], "top_logprobs": []}
    return {
        "text": "x",
        "finish_reason": "stop",
        "stop_reason": 3,
        "prompt_token_ids": [5, 6],
        "token_ids": [9, 3],
        "logprobs": logprobs,
        "prompt_logprobs": None,
    }


def score() -> Json:
    """A good answer to SCORE."""
    scored = [None, *({str(t): {"logprob": -t / 4, "rank": 1, "decoded_token": "x"}} for t in (6, 7, 7))]
    return {"finish_reason": "length", "prompt_token_ids": [5, 6, 7, 7], "prompt_logprobs": scored}


def content(choice: Json, change: Change = lambda choice: None) -> bytes:
    change(choice)
    return json.dumps({"choices": [choice]}).encode()


def test_a_good_completion() -> None:
    assert read_completion(SAMPLE, content(completion())) == Completion("r", [9, 3], [-0.5, -1.0], "stop")


def test_a_completion_that_was_cut_off() -> None:
    ids = [9, 8, 7, 6]
    logprobs = {"tokens": [f"token_id:{t}" for t in ids], "token_logprobs": [-0.5] * 4}
    cut = {**completion(), "token_ids": ids, "logprobs": logprobs, "finish_reason": "length"}
    assert read_completion(SAMPLE, content(cut)).finish_reason == "length"


def test_a_good_score_is_of_the_tokens_after_the_prompt() -> None:
    assert read_score(SCORE, content(score())) == Score("s", [-1.75, -1.75])


def first_id(token_id: int) -> Change:
    """Good but for the first id that was sampled."""

    def change(choice: Json) -> None:
        choice["token_ids"][0], choice["logprobs"]["tokens"][0] = token_id, f"token_id:{token_id}"

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(logprobs=None), "no token logprobs"),
        (lambda c: c.pop("token_ids"), "no token ids"),
        (lambda c: c.pop("prompt_token_ids"), "does not say which token ids it was given"),
        (lambda c: c.update(prompt_token_ids=[5, 7]), "another prompt, of 2 token ids instead of 2"),
        (lambda c: c.update(token_ids=[9, 4]), "logprobs of other tokens"),
        (lambda c: c["logprobs"]["tokens"].pop(), "logprobs of other tokens"),
        (lambda c: c["logprobs"]["token_logprobs"].pop(), "1 logprobs for 2 tokens"),
        (lambda c: c["logprobs"].update(token_logprobs=[-0.5, None]), r"no logprob for the token at 1 \(None\)"),
        (lambda c: c["logprobs"].update(token_logprobs=[-9999.0, -1]), r"no logprob for the token at 0 \(-9999.0\)"),
        (lambda c: c["logprobs"].update(token_logprobs=[float("nan"), -1]), "logprob nan at token 0"),
        (lambda c: c["logprobs"].update(token_logprobs=[float("-inf"), -1]), "no logprob for the token at 0"),
        (lambda c: c["logprobs"].update(token_logprobs=[0.3, -1]), "logprob 0.3 at token 0 is not a log-probability"),
        (
            lambda c: c["logprobs"].update(token_logprobs=["-1", -1]),
            "token_logprobs.0 Input should be a valid",
        ),
        (
            lambda c: c["logprobs"].update(token_logprobs=[True, -1]),
            "token_logprobs.0 Input should be a valid",
        ),
        (lambda c: c.update(finish_reason="length"), "finish_reason 'length', where the stop ids say 'stop' after 2"),
        (lambda c: c.update(finish_reason="abort"), "finish_reason 'abort'"),
        (lambda c: c.update(finish_reason=None), "finish_reason None"),
        (lambda c: c.update(token_ids="93"), "choices.0.token_ids Input should be a valid"),
        (first_id(2**40), "choices.0.token_ids.0 Input should be less than 2147483648"),
        (first_id(-1), "choices.0.token_ids.0 Input should be greater than or equal to 0"),
    ],
)
def test_a_completion_that_is_not_believed(change: Change, reason: str) -> None:
    with pytest.raises(BadReply, match=reason):
        read_completion(SAMPLE, content(completion(), change))


@pytest.mark.parametrize(
    ("ids", "finish_reason"),
    [
        ([3, 9], "stop"),  # went on after a stop id
        ([9, 8], "stop"),  # stopped at no stop id
        ([9, 8], "length"),  # cut short of max_tokens
        ([9, 8, 7, 6, 5], "length"),  # beyond max_tokens
        ([], "stop"),
    ],
)
def test_a_completion_ends_where_it_was_told_to(ids: list[int], finish_reason: str) -> None:
    logprobs = {"tokens": [f"token_id:{t}" for t in ids], "token_logprobs": [-0.5] * len(ids)}
    ended = {**completion(), "token_ids": ids, "logprobs": logprobs, "finish_reason": finish_reason}
    with pytest.raises(BadReply, match="where the stop ids say"):
        read_completion(SAMPLE, content(ended))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda c: c.update(prompt_logprobs=None), "no prompt_logprobs"),
        (lambda c: c["prompt_logprobs"].pop(), "prompt_logprobs of 3 tokens instead of 4"),
        (lambda c: c["prompt_logprobs"].append(None), "prompt_logprobs of 5 tokens instead of 4"),
        (lambda c: c.update(prompt_token_ids=[5, 6, 7]), "another prompt, of 3 token ids instead of 4"),
        (lambda c: c["prompt_logprobs"].__setitem__(3, {"8": {"logprob": -1.0}}), "no logprob for the token at 1"),
        (lambda c: c["prompt_logprobs"].__setitem__(2, None), "no logprob for the token at 0"),
        (lambda c: c["prompt_logprobs"][3]["7"].update(logprob=float("nan")), "logprob nan at token 1"),
        (lambda c: c["prompt_logprobs"][3]["7"].update(logprob=-9999.0), "no logprob for the token at 1"),
        (lambda c: c["prompt_logprobs"][3]["7"].update(logprob=2.5), "2.5 at token 1 is not a log-probability"),
    ],
)
def test_a_score_that_is_not_believed(change: Change, reason: str) -> None:
    with pytest.raises(BadReply, match=reason):
        read_score(SCORE, content(score(), change))


@pytest.mark.parametrize(
    "nonsense",
    [b"", b"{", b"null", b"[]", b"\xff", b'{"choices": []}', b'{"choices": [{}]}', b"[" * 100_000, b"<html>"],
)
def test_what_is_no_reply(nonsense: bytes) -> None:
    for read in (lambda: read_completion(SAMPLE, nonsense), lambda: read_score(SCORE, nonsense)):
        with pytest.raises(BadReply, match=f"its reply of {len(nonsense)} bytes is not what was asked for"):
            read()


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_a_reply_cut_short(cut: int) -> None:
    with pytest.raises(BadReply):
        read_completion(SAMPLE, content(completion())[:-cut])


@pytest.mark.parametrize(
    "values", [b'"",' * 10**6, b'{"":{"logprob":0}},' * 10**5, b"[]," * 10**6], ids=["strings", "objects", "lists"]
)
@pytest.mark.parametrize("key", [b"token_ids", b"prompt_logprobs", b"x"])
def test_more_values_than_were_asked_for_are_not_parsed(key: bytes, values: bytes) -> None:
    reply = b'{"choices": [{"finish_reason": "stop", "%s": [%s0]}]}' % (key, values)
    for read in (lambda: read_completion(SAMPLE, reply), lambda: read_score(SCORE, reply)):
        with pytest.raises(BadReply, match=r"its reply holds \d+ values, more than the 164\d\d that"):
            read()


def test_one_fault_is_enough() -> None:
    """A message about each of ten million strings took 6 GB."""
    reply = content({**completion(), "token_ids": [""] * 16_000})
    tracemalloc.start()
    try:
        with pytest.raises(BadReply, match=r"token_ids\.0 Input should be a valid integer"):
            read_completion(SAMPLE, reply)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_commas_in_a_text_are_no_values() -> None:
    long = {**completion(), "text": ',"\\' * 10**6}
    assert read_completion(SAMPLE, content(long)).token_ids == [9, 3]


@pytest.mark.parametrize("end", [b"", b'"', b"\\", b'\\"'])
def test_counting_values_takes_one_pass_whatever_the_text(end: bytes) -> None:
    with pytest.raises(BadReply):
        read_completion(SAMPLE, b'{"choices": "' + b',\\"' * 10**6 + end)


def test_two_choices_are_one_too_many() -> None:
    with pytest.raises(BadReply, match="choices"):
        read_completion(SAMPLE, json.dumps({"choices": [completion(), completion()]}).encode())


def test_a_request_is_sent_in_token_ids_with_its_own_seed_and_nothing_of_the_servers() -> None:
    body = generation_body("m", SAMPLE)
    assert body["prompt"] == [5, 6] and body["seed"] == 2**61 + 1 and body["stop_token_ids"] == [3]
    assert (body["temperature"], body["top_p"], body["max_tokens"], body["n"]) == (0.6, 0.9, 4, 1)
    assert (body["top_k"], body["min_p"], body["repetition_penalty"], body["ignore_eos"]) == (0, 0.0, 1.0, True)
    scoring = scoring_body("m", SCORE)
    assert (scoring["prompt"], scoring["prompt_logprobs"], scoring["max_tokens"]) == ([5, 6, 7, 7], 0, 1)


def test_the_context_of_the_model_asked_for() -> None:
    models = b'{"data": [{"id": "a", "max_model_len": 64}, {"id": "b"}]}'
    assert (read_context("a", models), read_context("b", models)) == (64, None)
    with pytest.raises(BadReply, match=r"it serves a, b; name one of these in server\.model"):
        read_context("c", models)
    with pytest.raises(BadReply, match="it serves nothing"):
        read_context("c", b'{"data": []}')
