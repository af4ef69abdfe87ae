"""OpenAIEngine: the InferenceEngine over HTTP, for a teacher behind `vllm serve` or what speaks its protocol.

Token ids go out and token ids come back, with one raw logprob each (`openai_replies.py`); any number of servers may
share the work (`replicas.py`). Each is probed before it gets a row. Left out: chat completions, whose template is the
server's.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from statistics import fmean
from typing import Generic, TypeVar

import anyio
import httpx
from anyio.abc import ObjectSendStream
from anyio.from_thread import start_blocking_portal

from dasd_resources.chat import Chat
from dasd_resources.inference.engine import (
    MAX_MEAN_DIFFERENCE,
    Completion,
    Failure,
    FailureKind,
    GenerationRequest,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.limits import (
    SAMPLED_TO_SCORE,
    check_generation,
    check_scoring,
    split_supported,
    unsupported_generation,
    unsupported_scoring,
)
from dasd_resources.inference.openai_replies import (
    BadReply,
    Body,
    Events,
    generation_body,
    read_completion,
    read_context,
    read_score,
    read_text,
    scoring_body,
    streaming_body,
)
from dasd_resources.inference.replica import (
    AttemptFailed,
    Busy,
    BusyForLong,
    Outage,
    Refused,
    Replica,
    Unreachable,
    checked_secret,
)
from dasd_resources.inference.replicas import Limits, open_replicas
from dasd_resources.recipe import RecipeError, Server

Request = TypeVar("Request", GenerationRequest, ScoringRequest)
Result = TypeVar("Result", Completion, Score)
Part = TypeVar("Part")  # of what is sent back: a result, or a token of one

BUFFER = 256  # results that may wait for the caller
# What tokenizers disagree on: letters of several scripts and forms, emoji, white space, digits, where a word ends.
PROBE = (
    "Prove that x₁ ≤ 3.14159 for “naïve” 你好 мир 🙂\n\n\tdef f(n): return n**2\r\n"
    "  DON'T   say /snake_case or camelCase: e\u0301 👩\u200d🚀"
)
PROBE_TOKENS = 16
PROBE_TEMPERATURE = 2.0  # far from 1, so that tempered logprobs are far from raw ones
PROBE_BYTES = 2**22
PROBE_TIMEOUT_S = 300.0
# Of the text that a server makes of what it sampled for the probe, with ours: 1 where both have the same tokenizer, far
# less where the ids are of different vocabularies.
MIN_LIKENESS = 0.5


@dataclass(frozen=True)
class Job(Generic[Result]):
    """A request as it is sent; num_tokens: the most it may come to, for limits per minute."""

    request_id: str
    body: Body
    num_tokens: int
    read: Callable[[bytes], Result]


class OpenAIEngine:
    """The servers of a recipe's model."""

    def __init__(
        self, server: Server, chat: Chat, secret: str | None, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        """Probe every server. Raises RecipeError if one is incompatible, or none can be used.

        secret: the servers' key, sent to them and kept nowhere else; transport: replaces the network in tests.
        """
        self.server = server
        self._probe = GenerationRequest(
            "probe", tuple(chat.prompt_ids(PROBE)), PROBE_TEMPERATURE, 1.0, PROBE_TOKENS, seed=1, stop_token_ids=()
        )
        self._probe_text, self._said = chat.prompt(PROBE), chat.said
        self._contexts: dict[str, int] = {}
        self._first: tuple[str, list[float]] | None = None  # the first server probed, and its logprobs of the prompt
        with ExitStack() as stack:
            self._portal = stack.enter_context(start_blocking_portal())
            opening = open_replicas(server, checked_secret(server, secret), self._check, transport)
            self._replicas = stack.enter_context(self._portal.wrap_async_context_manager(opening))
            self._portal.call(self._replicas.start)
            self._resources = stack.pop_all()

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        """Sample every request; as many are under way at once as the recipe allows."""
        for request in requests:
            check_generation(request)
        context = self._most_tokens
        fitting, failures = split_supported(requests, lambda r: unsupported_generation(r, context))
        yield from failures
        yield from self._run(fitting, self._generation)

    def stream(self, request: GenerationRequest) -> Iterator[int | Completion | Failure]:
        """The token ids of one response as a server sends them, then the response.

        Where that fails, for it is one attempt, the response is asked for as by `generate`.
        """
        check_generation(request)
        if failure := unsupported_generation(request, self._most_tokens):
            yield failure
            return
        is_whole = False
        for part in self._received(partial(self._stream, request)):
            is_whole = isinstance(part, Completion)
            yield part
        if not is_whole:
            yield from self.generate([request])

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        """Score every sequence by prefill."""
        for request in requests:
            check_scoring(request)
        context = self._most_tokens
        fitting, failures = split_supported(
            requests, lambda r: unsupported_scoring(r, context, sampled=SAMPLED_TO_SCORE)
        )
        yield from failures
        yield from self._run(fitting, self._scoring)

    def close(self) -> None:
        """Close the connections; requests still under way are cancelled."""
        self._resources.close()

    @property
    def context(self) -> int | None:
        """Most tokens that all servers take, as far as they report it; None where none does."""
        return min(self._contexts.values(), default=None)

    @property
    def _most_tokens(self) -> int:
        """The same as a number: servers that do not report it refuse what is too long."""
        return sys.maxsize if self.context is None else self.context

    def _generation(self, r: GenerationRequest) -> Job[Completion]:
        body = generation_body(self.server.model, r)
        return Job(r.request_id, body, len(r.prompt_token_ids) + r.max_tokens, partial(read_completion, r))

    def _scoring(self, r: ScoringRequest) -> Job[Score]:
        return Job(
            r.request_id,
            scoring_body(self.server.model, r),
            len(r.token_ids) + SAMPLED_TO_SCORE,
            partial(read_score, r),
        )

    def _run(self, requests: Sequence[Request], job: Callable[[Request], Job[Result]]) -> Iterator[Result | Failure]:
        """Results as they come."""
        limits = Limits.of(self.server, max((job(r).num_tokens for r in requests), default=1))
        num_workers = min(len(requests), self.server.max_concurrency * len(self.server.base_urls))
        return self._received(partial(self._work, map(job, requests), num_workers, limits))

    def _received(self, work: Callable[[ObjectSendStream[Part]], Awaitable[None]]) -> Iterator[Part]:
        """What the work sends, as it comes; the next is made in the background, but for an early stop."""
        send, receive = anyio.create_memory_object_stream[Part](BUFFER)
        future = self._portal.start_task_soon(work, send)
        try:
            with suppress(anyio.EndOfStream):
                while True:
                    yield self._portal.call(receive.receive)
            future.result()
        finally:
            future.cancel()
            self._portal.call(receive.aclose)

    async def _stream(self, request: GenerationRequest, send: ObjectSendStream[int | Completion | Failure]) -> None:
        """Each new id, and at last the completion; without that, if the server failed or cannot do it."""
        events, body = Events(request), streaming_body(self.server.model, request)
        lines = self._replicas.lines(body, len(request.prompt_token_ids) + request.max_tokens)
        async with send, aclosing(lines):
            with suppress(AttemptFailed, Busy, Refused, BadReply):
                async for line in lines:
                    for token_id in events.read(line):
                        await send.send(token_id)
                await send.send(events.completion())

    async def _work(
        self,
        jobs: Iterator[Job[Result]],
        num_workers: int,
        limits: Limits,
        send: ObjectSendStream[Result | Failure],
    ) -> None:
        """Workers that share the jobs; each job ends as one result."""

        async def work() -> None:
            for job in jobs:
                await send.send(await self._result(job, limits))

        async with send, asyncio.TaskGroup() as group:
            for _ in range(num_workers):
                group.create_task(work())

    async def _result(self, job: Job[Result], limits: Limits) -> Result | Failure:
        try:
            return await self._replicas.ask(job.body, job.num_tokens, limits, job.read)
        except (AttemptFailed, Busy, Refused) as error:
            return Failure(job.request_id, str(error), _failure_kind(error))

    async def _check(self, replica: Replica) -> None:
        """Raise RecipeError unless the server gives ids and raw logprobs of the model whose tokenizer is here."""
        try:
            await self._send_probe(replica)
        except BadReply as error:
            raise RecipeError(
                f"{replica.url} cannot serve {self.server.model}: {replica.quote(str(error))}; a server must return "
                "token ids and raw logprobs, as `vllm serve` does with the model and tokenizer of the recipe"
            ) from None

    async def _send_probe(self, replica: Replica) -> None:
        """Sample a little from a text that the server has to tokenise as we do, and have it scored again."""
        model, probe = self.server.model, self._probe
        timeout_s = min(PROBE_TIMEOUT_S, self.server.request_timeout_s)
        ask = partial(replica.fetch, max_bytes=PROBE_BYTES, timeout_s=timeout_s)
        context = read_context(model, await ask("/models", None))
        reply = await ask("/completions", generation_body(model, probe, self._probe_text))
        sampled = read_completion(probe, reply)
        _check_text(self._said(sampled.token_ids), read_text(probe, reply))
        to_score = ScoringRequest(probe.request_id, (*probe.prompt_token_ids, *sampled.token_ids), 1)
        scored = read_score(to_score, await ask("/completions", scoring_body(model, to_score))).logprobs
        start = len(probe.prompt_token_ids) - 1  # the first token has none
        _check_raw(sampled.logprobs, scored[start:])
        self._first = self._first or (replica.url, scored[:start])
        _check_same(scored[:start], *self._first)
        if context is not None:
            self._contexts[replica.url] = context


def _failure_kind(error: AttemptFailed | Busy | Refused) -> FailureKind:
    if isinstance(error, (Busy, BusyForLong)):
        return "server_busy"
    if isinstance(error, (Outage, Unreachable)):
        return "server_unavailable"
    return "server_refused" if isinstance(error, Refused) else "server_error"


def _check_text(said: str, text: str | None) -> None:
    """Raise BadReply if the server reads the ids that it sampled as quite another text than they are here.

    Servers trim white space, and treat characters that are not whole each in their way: hence likeness, not equality.
    """
    ours, theirs = ("".join(read.replace("\ufffd", "").split()) for read in (said, text or ""))
    if ours and theirs and SequenceMatcher(None, ours, theirs, autojunk=False).ratio() < MIN_LIKENESS:
        raise BadReply(f"it reads the ids it sampled as {text!r}, which are {said!r} here: its tokenizer is another")


def _check_raw(sampled: Sequence[float], scored: Sequence[float]) -> None:
    """Raise BadReply if the logprobs that came with sampling are not those of the untempered distribution."""
    difference = _difference(sampled, scored)
    if difference > MAX_MEAN_DIFFERENCE:
        raise BadReply(
            f"the logprobs it samples with at temperature {PROBE_TEMPERATURE:g} are {difference:.2f} nats from what it "
            "scores the same tokens with; start it with --logprobs-mode raw_logprobs, or else its numbers are wrong"
        )


def _check_same(of_prompt: Sequence[float], first: str, of_first: Sequence[float]) -> None:
    """Raise BadReply if the probe's prompt has other logprobs than under the first server."""
    difference = _difference(of_prompt, of_first)
    if difference > MAX_MEAN_DIFFERENCE:
        raise BadReply(
            f"its logprobs of one text are {difference:.2f} nats from those of {first}: its weights are others"
        )


def _difference(some: Sequence[float], others: Sequence[float]) -> float:
    return fmean(abs(a - b) for a, b in zip(some, others, strict=True))
