"""All servers of one remote model: each request goes to one that lives, again if need be, within the recipe's limits.

A server that cannot be reached or keeps failing is left aside and its work goes to the others; it comes back when it
passes the check that all have to pass at the start.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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

from dasd_resources.inference.openai_replies import BadReply, Body
from dasd_resources.inference.replica import Busy, Fault, Outage, Refused, Replica, TimedOut, http_client
from dasd_resources.recipe import RecipeError, Server

Result = TypeVar("Result")
Check = Callable[[Replica], Awaitable[None]]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # before a server left aside is checked again
BACK_OFF = wait_random_exponential(multiplier=0.5, max=30)
CHECKS = 3  # of a server at a time, unless it is silent
BYTES_PER_TOKEN, BYTES_BESIDE = 2048, 2**20  # a longer answer is none; vLLM sends about 200 bytes per token

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
    """The servers of a model while it is in use; `check` raises RecipeError for one that is unfit."""

    server: Server
    check: Check
    replicas: list[Replica]
    revivals: set[asyncio.Task[None]] = field(default_factory=set)
    revived: asyncio.Event = field(default_factory=asyncio.Event)
    dead_since: float | None = None  # when the last living server was left aside

    async def ask(self, body: Body, num_tokens: int, limits: Limits, read: Callable[[bytes], Result]) -> Result:
        """What `read` makes of the answer; raises Fault, Busy or Refused when all attempts are made."""

        async def attempt() -> Result:
            await limits.wait(num_tokens)
            async with self._free() as replica:
                return await self._attempt(replica, body, num_tokens, read)

        async def attempt_when_free() -> Result:
            return await _patiently(attempt, self.server.patience_s)

        attempts = stop_after_attempt(self.server.max_attempts)
        retrying = AsyncRetrying(retry=retry_if_exception_type(Fault), stop=attempts, wait=BACK_OFF, reraise=True)
        return await retrying(attempt_when_free)

    async def start(self) -> None:
        """Check all servers. Raises RecipeError if one is unfit, or none can be used; the others are left aside."""
        await asyncio.gather(*map(self._examine, self.replicas))
        aside = [replica for replica in self.replicas if not replica.lives]
        unfit = [replica.reason for replica in aside if replica.unfit]
        if unfit:
            raise RecipeError("; ".join(unfit))
        if len(aside) == len(self.replicas):
            reasons = "; ".join(replica.reason for replica in aside)
            raise RecipeError(f"no server of {self.server.model} can be used: {reasons}; start it or correct base_urls")
        for replica in aside:
            self._leave_aside(replica)

    async def _attempt(self, replica: Replica, body: Body, num_tokens: int, read: Callable[[bytes], Result]) -> Result:
        max_bytes = BYTES_BESIDE + BYTES_PER_TOKEN * num_tokens
        try:
            content = await replica.fetch("/completions", body, max_bytes, self.server.request_timeout_s)
            result = _believed(replica, read, content)
        except Fault as fault:
            lived = replica.lives
            replica.has_failed(fault)
            if lived and not replica.lives:
                self._leave_aside(replica)
            raise
        replica.has_answered()
        return result

    @asynccontextmanager
    async def _free(self) -> AsyncIterator[Replica]:
        """A slot at the living server that is free first, and of these the one with the least to do."""
        while True:
            replica = await self._living()
            replica.num_waiting += 1
            try:
                async with replica.slots:
                    await _until_free(replica)
                    if replica.lives:
                        yield replica
                        return
            finally:
                replica.num_waiting -= 1

    async def _living(self) -> Replica:
        """Raises Outage if none lives, or is free, within `patience_s`."""
        while not (living := [replica for replica in self.replicas if replica.lives]):
            await self._some_revival()
        now, patience_s = time.monotonic(), self.server.patience_s
        chosen = min(living, key=lambda replica: (max(replica.free_at, now), replica.num_waiting))
        if chosen.free_at - now > patience_s:
            pause = f"{chosen.free_at - now:.0f} s; patience_s is {patience_s:g}"
            raise Outage(f"{chosen.url} is busy, and says to come back in {pause}")
        return chosen

    async def _some_revival(self) -> None:
        assert self.dead_since is not None
        left = self.dead_since + self.server.patience_s - time.monotonic()
        try:
            async with asyncio.timeout(left):
                await self.revived.wait()
        except TimeoutError:
            reasons = "; ".join(replica.reason for replica in self.replicas)
            waited = f"{self.server.patience_s:g} s (patience_s)"
            raise Outage(f"no server was to be had for {waited}: {reasons}") from None

    def _leave_aside(self, replica: Replica) -> None:
        log.warning("left aside for now: %s", replica.reason)
        if not any(other.lives for other in self.replicas):
            self.dead_since = time.monotonic()
        revival = asyncio.create_task(self._revive(replica))
        self.revivals.add(revival)
        revival.add_done_callback(self.revivals.discard)

    async def _revive(self, replica: Replica) -> None:
        """Examine a server again and again, until it can be used."""
        pause = FIRST_PAUSE_S
        while not replica.lives:
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE_S)
            await self._examine(replica)

    async def _examine(self, replica: Replica) -> None:
        """Check a server, which lives afterwards or has its reason why not."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_passing), stop=stop_after_attempt(CHECKS), wait=BACK_OFF, reraise=True
        )
        try:
            await retrying(self._check_when_free, replica)
        except (Fault, Busy, Refused, RecipeError) as error:
            replica.reason, replica.unfit = str(error), isinstance(error, (Refused, RecipeError))
            return
        replica.lives, replica.num_faults, self.dead_since = True, 0, None
        self.revived.set()
        self.revived = asyncio.Event()

    async def _check_when_free(self, replica: Replica) -> None:
        await _until_free(replica)
        await self.check(replica)


@asynccontextmanager
async def open_replicas(
    server: Server, secret: str | None, check: Check, transport: httpx.AsyncBaseTransport | None
) -> AsyncIterator[Replicas]:
    """The servers, to be started; transport: what stands in for the network."""
    async with http_client(server, secret, transport) as client:
        slots = [asyncio.Semaphore(server.max_concurrency) for _ in server.base_urls]
        replicas = [Replica(url, client, secret, s) for url, s in zip(server.base_urls, slots, strict=True)]
        opened = Replicas(server, check, replicas)
        try:
            yield opened
        finally:
            for revival in opened.revivals:
                revival.cancel()
            await asyncio.gather(*opened.revivals, return_exceptions=True)


async def _patiently(attempt: Callable[[], Awaitable[Result]], patience_s: float) -> Result:
    """Attempt again as long as the server is busy, but not for longer than `patience_s` from when it first said so."""
    first_busy: float | None = None

    def impatient(state: RetryCallState) -> bool:
        nonlocal first_busy
        now = time.monotonic()
        first_busy = now if first_busy is None else first_busy
        return now - first_busy >= patience_s

    retrying = AsyncRetrying(retry=retry_if_exception_type(Busy), stop=impatient, wait=BACK_OFF, reraise=True)
    return await retrying(attempt)


async def _until_free(replica: Replica) -> None:
    """Until the server's own time is up, and a moment more, so that not all go at once."""
    while (left := replica.free_at - time.monotonic()) > 0:
        await asyncio.sleep(left + random.uniform(0, 1))


def _believed(replica: Replica, read: Callable[[bytes], Result], content: bytes) -> Result:
    try:
        return read(content)
    except BadReply as error:
        raise Fault(f"{replica.url}: {replica.told(str(error))}") from None


def _is_passing(error: BaseException) -> bool:
    return isinstance(error, (Fault, Busy)) and not isinstance(error, TimedOut)
