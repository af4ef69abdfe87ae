"""The completions protocol in token ids: what is sent for a request, and when the reply to it is accepted.

A reply is accepted if it is about the ids that were sent, holds one logprob for each token, and ends where and why it
should; anything else is a BadReply with the reason. Its size is bounded by what was asked for, in bytes while it is
read and in JSON values before it is parsed: a value of two bytes becomes an object of a hundred. `return_token_ids` and
`prompt_logprobs` are vLLM's additions to OpenAI's protocol, which knows neither.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dasd_resources.inference.engine import Completion, FinishReason, GenerationRequest, Score, ScoringRequest

Body = dict[str, object]
# vLLM's stand-in for minus infinity, which JSON cannot say. No token that was sampled or is scored has it.
MINUS_INFINITY = -9999.0
# Of a reply, per token that was sent or may be sampled, and on top. vLLM sends about 200 bytes and 5 values; a token
# may be a long text. 20 MB of empty strings where numbers belong took 6 GB and 33 s to be refused.
BYTES_PER_TOKEN, OTHER_BYTES = 2048, 2**20
VALUES_PER_TOKEN, OTHER_VALUES = 12, 2**14
EVENT, LAST_EVENT = b"data:", b"[DONE]"  # a line of a stream (server-sent events), and what ends it
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL)


class BadReply(Exception):
    """A reply that is not accepted; the message is a sentence about the server."""


def max_bytes(num_tokens: int) -> int:
    """The most bytes of a reply about so many tokens, sent and sampled."""
    return OTHER_BYTES + BYTES_PER_TOKEN * num_tokens


class _Shape(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


Shape = TypeVar("Shape", bound=_Shape)
Value = TypeVar("Value")
# The first fault ends it: else there is a message about every value.
Values = Annotated[list[Value], Field(fail_fast=True)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]  # as tables store it: one beyond would fail the rows beside it, too


class _Logprobs(_Shape):
    tokens: Values[str]
    token_logprobs: Values[float | None]


class _PromptLogprob(_Shape):
    logprob: float


class _Choice(_Shape):
    finish_reason: str | None
    text: str | None = None
    token_ids: Values[TokenId] | None = None
    prompt_token_ids: Values[TokenId] | None = None
    logprobs: _Logprobs | None = None
    prompt_logprobs: Values[dict[str, _PromptLogprob] | None] | None = None


class _Reply(_Shape):
    choices: Annotated[list[_Choice], Field(min_length=1, max_length=1, fail_fast=True)]


class _ServedModel(_Shape):
    id: str
    max_model_len: Annotated[int, Field(ge=2)] | None = None


class _Models(_Shape):
    data: Values[_ServedModel]


# Sent explicitly, as a server takes what is left out from the model's generation_config.json.
_NEUTRAL_SAMPLING: Body = {
    "n": 1,
    "stream": False,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "return_token_ids": True,
}


def generation_body(model: str, request: GenerationRequest, prompt: str | None = None) -> Body:
    """One sample, ended by the request's own stop ids alone; prompt: a text to send instead of the prompt's ids."""
    return {
        **_NEUTRAL_SAMPLING,
        "model": model,
        "prompt": list(request.prompt_token_ids) if prompt is None else prompt,
        "add_special_tokens": False,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "stop_token_ids": list(request.stop_token_ids),
        "ignore_eos": True,
        "logprobs": 0,
        "return_tokens_as_token_ids": True,
        "skip_special_tokens": False,
    }


def streaming_body(model: str, request: GenerationRequest) -> Body:
    """The same sample, sent as it comes: each event has what is new of it."""
    return {**generation_body(model, request), "stream": True}


def scoring_body(model: str, request: ScoringRequest) -> Body:
    """A prefill, and one more token, as servers insist on sampling one."""
    return {
        **_NEUTRAL_SAMPLING,
        "model": model,
        "prompt": list(request.token_ids),
        "temperature": 0.0,
        "max_tokens": 1,
        "prompt_logprobs": 0,
    }


def read_completion(request: GenerationRequest, content: bytes) -> Completion:
    """The sampled ids with their logprobs. Raises BadReply."""
    return _completion(request, _only_choice(content, len(request.prompt_token_ids) + request.max_tokens))


@dataclass
class Events:
    """What a server has sent of one sample, event by event; whole, it is read as a reply is that came at once."""

    request: GenerationRequest
    choices: list[_Choice] = field(default_factory=list)

    def read(self, line: bytes) -> list[int]:
        """The ids that a line of the stream adds; none where it is no event, or the last. Raises BadReply."""
        content = line.removeprefix(EVENT).strip()
        if not line.startswith(EVENT) or content == LAST_EVENT:
            return []
        choice = _only_choice(content, len(self.request.prompt_token_ids) + self.request.max_tokens)
        self.choices.append(choice)
        return choice.token_ids or []

    def completion(self) -> Completion:
        """All of them as one. Raises BadReply."""
        logprobs = [choice.logprobs for choice in self.choices if choice.logprobs is not None]
        whole = _Choice(
            finish_reason=self.choices[-1].finish_reason if self.choices else None,
            token_ids=[token_id for choice in self.choices for token_id in choice.token_ids or ()],
            prompt_token_ids=next((c.prompt_token_ids for c in self.choices if c.prompt_token_ids is not None), None),
            logprobs=_Logprobs(
                tokens=[token for some in logprobs for token in some.tokens],
                token_logprobs=[logprob for some in logprobs for logprob in some.token_logprobs],
            ),
        )
        return _completion(self.request, whole)


def _completion(request: GenerationRequest, choice: _Choice) -> Completion:
    _check_prompt(request.prompt_token_ids, choice.prompt_token_ids)
    if choice.logprobs is None:
        raise BadReply("it returned no token logprobs")
    if choice.token_ids is None:
        raise BadReply("it returned no token ids (return_token_ids)")
    token_ids, logprobs = choice.token_ids, choice.logprobs
    if logprobs.tokens != [f"token_id:{token_id}" for token_id in token_ids]:
        raise BadReply(f"it returned logprobs of other tokens than the {len(token_ids)} it sampled")
    values = _valid_logprobs(logprobs.token_logprobs, len(token_ids))
    reason = _finish_reason(request, token_ids, choice)
    with _invalid_as_bad_reply():
        return Completion(request.request_id, token_ids, values, reason)


def read_text(request: GenerationRequest, content: bytes) -> str | None:
    """What the server says that the ids it sampled read as; None if it says nothing. Raises BadReply."""
    return _only_choice(content, len(request.prompt_token_ids) + request.max_tokens).text


def read_score(request: ScoringRequest, content: bytes) -> Score:
    """The logprobs of the ids after the prompt. Raises BadReply."""
    choice = _only_choice(content, len(request.token_ids) + 1)
    _check_prompt(request.token_ids, choice.prompt_token_ids)
    positions = choice.prompt_logprobs
    if positions is None:
        raise BadReply("it returned no prompt_logprobs")
    if len(positions) != len(request.token_ids):
        raise BadReply(f"it returned prompt_logprobs of {len(positions)} tokens instead of {len(request.token_ids)}")
    found = [
        position.get(str(token_id)) if position else None
        for token_id, position in list(zip(request.token_ids, positions, strict=True))[request.num_prompt_tokens :]
    ]
    values = _valid_logprobs([value.logprob if value else None for value in found], len(found))
    with _invalid_as_bad_reply():
        return Score(request.request_id, values)


def read_context(model: str, content: bytes) -> int | None:
    """Most tokens the served model takes, if the server says so. Raises BadReply if it does not serve the model."""
    served = {found.id: found for found in _parsed(_Models, content, num_tokens=0).data}
    if model not in served:
        raise BadReply(f"it serves {', '.join(sorted(served)) or 'nothing'}; name one of these in server.model")
    return served[model].max_model_len


def _parsed(shape: type[Shape], content: bytes, num_tokens: int) -> Shape:
    _check_values(content, OTHER_VALUES + VALUES_PER_TOKEN * num_tokens)
    try:
        return shape.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise BadReply(f"its reply of {len(content)} bytes is not what was asked for: {where} {first['msg']}") from None


def _check_values(content: bytes, most: int) -> None:
    """Raise BadReply where there are more JSON values than that, as told by the commas outside strings."""
    if content.count(b",") > most and (found := _STRING.sub(b"", content).count(b",")) > most:
        raise BadReply(f"its reply holds {found} values, more than the {most} that what was asked for can take")


def _only_choice(content: bytes, num_tokens: int) -> _Choice:
    return _parsed(_Reply, content, num_tokens).choices[0]


def _check_prompt(sent: Sequence[int], received: Sequence[int] | None) -> None:
    if received is None:
        raise BadReply("it does not say which token ids it was given (return_token_ids)")
    if list(sent) != received:
        at = next((i for i, (a, b) in enumerate(zip(sent, received, strict=False)) if a != b), len(sent))
        raise BadReply(
            f"it answered another prompt, of {len(received)} token ids instead of {len(sent)}: {received[at : at + 3]} "
            f"instead of {list(sent[at : at + 3])} at {at}"
        )


def _valid_logprobs(values: Sequence[float | None], num_tokens: int) -> list[float]:
    if len(values) != num_tokens:
        raise BadReply(f"it returned {len(values)} logprobs for {num_tokens} tokens")
    missing = [index for index, value in enumerate(values) if value is None or value <= MINUS_INFINITY]
    if missing:
        raise BadReply(f"it returned no logprob for the token at {missing[0]} ({values[missing[0]]})")
    return [value for value in values if value is not None]


def _finish_reason(request: GenerationRequest, token_ids: Sequence[int], choice: _Choice) -> FinishReason:
    """Why it ended: at the first stop id, or else at `max_tokens`."""
    stop_ids = frozenset(request.stop_token_ids)
    stops = [index for index, token_id in enumerate(token_ids) if token_id in stop_ids]
    reason: Literal["stop", "length"] = "stop" if stops else "length"
    due = stops[0] + 1 if stops else request.max_tokens
    if choice.finish_reason != reason or len(token_ids) != due:
        raise BadReply(
            f"it ended after {len(token_ids)} of at most {request.max_tokens} tokens with finish_reason "
            f"{choice.finish_reason!r}, where the stop ids say {reason!r} after {due}"
        )
    return reason


@contextmanager
def _invalid_as_bad_reply() -> Iterator[None]:
    """What the engine's records refuse (NaN, a logprob above 0) is a bad reply of the server."""
    try:
        yield
    except ValueError as error:
        raise BadReply(f"it returned an invalid logprob: {error}") from None
