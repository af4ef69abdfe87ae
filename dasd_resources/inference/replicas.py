"""All servers of one remote model: each request goes to a healthy one, with retries, within the recipe's limits.

A server that cannot be reached, keeps failing or refuses all requests is unhealthy and its work goes to the others; it
is used again when it passes the check that all have to pass at the start.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

import httpx
from aiolimiter import AsyncLimiter
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    retry_if_exception_type,
    stop_after_attempt,
    wait_random_exponential,
)

from dasd_resources.inference.openai_replies import BadReply, Body, max_bytes
from dasd_resources.inference.replica import (
    AttemptFailed,
    Busy,
    BusyForLong,
    Outage,
    Refused,
    Replica,
    TimedOut,
    http_client,
)
from dasd_resources.recipe import RecipeError, Server

Result = TypeVar("Result")
Check = Callable[[Replica], Awaitable[None]]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # before an unhealthy server is checked again
BACK_OFF = wait_random_exponential(multiplier=0.5, max=30)
CHECK_ATTEMPTS = 3  # attempts at one check of a server; one that times out is not tried again

log = logging.getLogger(__name__)


@dataclass
class Limits:
    """Requests and tokens per minute, spread evenly; a request's tokens are its prompt and all it may sample."""

    requests: AsyncLimiter | None
    tokens: AsyncLimiter | None

    @classmethod
    def of(cls, server: Server, largest: int) -> "Limits":
        """largest: most tokens of one request, which may go out at once whatever the limit."""
        requests, tokens = server.requests_per_minute, server.tokens_per_minute
        return cls(
            AsyncLimiter(1, 60 / requests) if requests else None,
            AsyncLimiter(largest, 60 * largest / tokens) if tokens else None,
        )

    async def wait(self, num_tokens: int) -> None:
        """Until such a request may go out."""
        if self.requests:
            await self.requests.acquire()
        if self.tokens:
            await self.tokens.acquire(num_tokens)


@dataclass
class Replicas:
    """The servers of a model while it is in use; `check` raises RecipeError for one that is incompatible."""

    server: Server
    check: Check
    replicas: list[Replica]
    recoveries: set[asyncio.Task[None]] = field(default_factory=set)
    recovered: asyncio.Event = field(default_factory=asyncio.Event)
    all_unhealthy_since: float | None = None  # when the last healthy server became unhealthy

    async def ask(self, body: Body, num_tokens: int, limits: Limits, read: Callable[[bytes], Result]) -> Result:
        """What `read` makes of the answer; raises AttemptFailed, Busy or Refused when all attempts are made."""

        async def attempt() -> Result:
            await limits.wait(num_tokens)
            while True:
                async with self._slot() as replica:
                    try:
                        return await self._attempt(replica, body, num_tokens, read)
                    except Outage as outage:
                        if not self._leave_out(replica, outage):
                            raise

        async def attempt_when_free() -> Result:
            return await _retry_while_busy(attempt, self.server.patience_s)

        attempts = stop_after_attempt(self.server.max_attempts)
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(AttemptFailed), stop=attempts, wait=BACK_OFF, reraise=True
        )
        return await retrying(attempt_when_free)

    async def lines(self, body: Body, num_tokens: int) -> AsyncGenerator[bytes]:
        """The answer of a healthy server line by line, in one attempt, which is not counted against the server.

        Raises AttemptFailed, Busy or Refused.
        """
        limits = max_bytes(num_tokens), self.server.request_timeout_s
        async with self._slot() as replica, aclosing(replica.lines("/completions", body, *limits)) as lines:
            async for line in lines:
                yield line

    async def start(self) -> None:
        """Check all servers; those that are not available yet are checked again later, and one is waited for.

        Raises RecipeError if one is incompatible, or none can be used within `patience_s`.
        """
        await asyncio.gather(*map(self._examine, self.replicas))
        unhealthy = [replica for replica in self.replicas if not replica.healthy]
        incompatible = [replica.reason for replica in unhealthy if replica.incompatible]
        if incompatible:
            raise RecipeError("; ".join(incompatible))
        for replica in unhealthy:
            self._schedule_recovery(replica)
        if len(unhealthy) == len(self.replicas) and not all(map(self._asks_too_much, unhealthy)):
            with suppress(Outage):
                await self._any_recovery()
        if not any(replica.healthy for replica in self.replicas):
            reasons = "; ".join(replica.reason for replica in unhealthy)
            raise RecipeError(f"no server of {self.server.model} can be used: {reasons}; start it or correct base_urls")

    async def _attempt(self, replica: Replica, body: Body, num_tokens: int, read: Callable[[bytes], Result]) -> Result:
        try:
            content = await replica.fetch("/completions", body, max_bytes(num_tokens), self.server.request_timeout_s)
            result = _read_reply(replica, read, content)
        except AttemptFailed as error:
            was_healthy = replica.healthy
            replica.record_failure(error)
            if was_healthy and not replica.healthy:
                self._schedule_recovery(replica)
            raise
        replica.record_success()
        return result

    def _leave_out(self, replica: Replica, outage: Outage) -> bool:
        """Give a server that refuses all requests none until it passes the check; not so the last healthy one."""
        if not any(other.healthy for other in self.replicas if other is not replica):
            return False
        if replica.healthy:
            replica.healthy, replica.reason = False, str(outage)
            self._schedule_recovery(replica)
        return True

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[Replica]:
        """A slot at the healthy server that is free first, and of these the one with the least to do."""
        while True:
            replica = await self._next_replica()
            replica.num_waiting += 1
            try:
                async with replica.slots:
                    if await self._is_free(replica) and replica.healthy:
                        yield replica
                        return
            finally:
                replica.num_waiting -= 1

    async def _next_replica(self) -> Replica:
        """The healthy server that is free first. Raises Outage if none is, within `patience_s`."""
        while not (healthy := [replica for replica in self.replicas if replica.healthy]):
            await self._any_recovery()
        now = time.monotonic()
        chosen = min(healthy, key=lambda replica: (max(replica.busy_until, now), replica.num_waiting))
        if self._asks_too_much(chosen):
            raise BusyForLong(self._too_busy(chosen))
        return chosen

    async def _is_free(self, replica: Replica) -> bool:
        """Wait until the server's Retry-After has passed; whether it has: not where it asks for more than patience.

        With a jitter, so that waiting requests do not all go at once.
        """
        while (left := replica.busy_until - time.monotonic()) > 0:
            if self._asks_too_much(replica):
                return False
            await asyncio.sleep(left + random.uniform(0, 1))
        return True

    def _asks_too_much(self, replica: Replica) -> bool:
        """Whether its Retry-After is beyond our patience."""
        return replica.busy_until - time.monotonic() > self.server.patience_s

    def _too_busy(self, replica: Replica) -> str:
        left = replica.busy_until - time.monotonic()
        return f"{replica.url} is busy, and says to come back in {left:.0f} s; patience_s is {self.server.patience_s:g}"

    async def _any_recovery(self) -> None:
        assert self.all_unhealthy_since is not None
        left = self.all_unhealthy_since + self.server.patience_s - time.monotonic()
        try:
            async with asyncio.timeout(left):
                await self.recovered.wait()
        except TimeoutError:
            reasons = "; ".join(replica.reason for replica in self.replicas)
            waited = f"{self.server.patience_s:g} s (patience_s)"
            raise Outage(f"no server was available for {waited}: {reasons}") from None

    def _schedule_recovery(self, replica: Replica) -> None:
        log.warning("unhealthy, will be checked again: %s", replica.reason)
        if not any(other.healthy for other in self.replicas):
            self.all_unhealthy_since = time.monotonic()
        recovery = asyncio.create_task(self._recover(replica))
        self.recoveries.add(recovery)
        recovery.add_done_callback(self.recoveries.discard)

    async def _recover(self, replica: Replica) -> None:
        """Examine a server again and again, until it can be used."""
        pause = FIRST_PAUSE_S
        while not replica.healthy:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            await self._examine(replica)

    async def _examine(self, replica: Replica) -> None:
        """Check a server: afterwards it is healthy, or has its reason."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            stop=stop_after_attempt(CHECK_ATTEMPTS),
            wait=BACK_OFF,
            reraise=True,
        )
        try:
            await retrying(self._check_when_free, replica)
        except (AttemptFailed, Busy, Refused, RecipeError) as error:
            replica.reason, replica.incompatible = str(error), isinstance(error, (Refused, RecipeError))
            return
        replica.healthy, replica.num_consecutive_failures, self.all_unhealthy_since = True, 0, None
        self.recovered.set()
        self.recovered = asyncio.Event()

    async def _check_when_free(self, replica: Replica) -> None:
        if not await self._is_free(replica):
            raise Busy(self._too_busy(replica))
        await self.check(replica)


@asynccontextmanager
async def open_replicas(
    server: Server, secret: str | None, check: Check, transport: httpx.AsyncBaseTransport | None
) -> AsyncIterator[Replicas]:
    """The servers, to be started; transport: replaces the network in tests."""
    async with http_client(server, secret, transport) as client:
        slots = [asyncio.Semaphore(server.max_concurrency) for _ in server.base_urls]
        replicas = [Replica(url, client, secret, s) for url, s in zip(server.base_urls, slots, strict=True)]
        opened = Replicas(server, check, replicas)
        try:
            yield opened
        finally:
            for recovery in opened.recoveries:
                recovery.cancel()
            await asyncio.gather(*opened.recoveries, return_exceptions=True)


async def _retry_while_busy(attempt: Callable[[], Awaitable[Result]], patience_s: float) -> Result:
    """Attempt again while the server is busy, but for no longer than `patience_s` after it first said so."""
    first_busy: float | None = None

    def out_of_patience(state: RetryCallState) -> bool:
        nonlocal first_busy
        now = time.monotonic()
        first_busy = now if first_busy is None else first_busy
        return now - first_busy >= patience_s

    retrying = AsyncRetrying(retry=retry_if_exception_type(Busy), stop=out_of_patience, wait=BACK_OFF, reraise=True)
    return await retrying(attempt)


def _read_reply(replica: Replica, read: Callable[[bytes], Result], content: bytes) -> Result:
    try:
        return read(content)
    except BadReply as error:
        raise AttemptFailed(f"{replica.url}: {replica.quote(str(error))}") from None


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, (AttemptFailed, Busy)) and not isinstance(error, TimedOut)
