"""One server of a remote model: a request to it over HTTP, and what its answer means.

Three things can go wrong: AttemptFailed (another attempt may succeed), Busy (the server asks to come back later) and
Refused (no attempt will succeed; in an Outage, none at any other request either). Redirects are not followed and the
environment's proxies are not used, so the key goes to the recipe's hosts alone; it is removed from a server's messages.
Nothing is decompressed: 13 kB may stand for gigabytes, and httpx unpacks at once whatever one read brings. Plain
replies are asked for, and any other is refused unread.
"""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from math import isfinite
from socket import IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET

import httpx

from dasd_resources.inference.openai_replies import BadReply
from dasd_resources.recipe import RecipeError, Server
from dasd_resources.visible_text import excerpt_line

MAX_CONSECUTIVE_FAILURES = 3  # after which a server is unhealthy; a failed connection is enough by itself
MAX_QUOTED_CHARACTERS = 300  # of a server's own message
ERROR_BYTES = 65536  # read of an error's body
PLAIN = "identity"  # HTTP's name for a body that is not compressed
REMEDY = "turn off compression in the server, or in the proxy before it"
REMEDIES = {401: "is the key right?", 403: "is the key right?", 404: "does its base URL end with /v1?"}


class AttemptFailed(Exception):
    """This attempt failed; another may succeed."""


class Unreachable(AttemptFailed):
    """There is no connection to the server."""


class TimedOut(AttemptFailed):
    """The server did not answer in time."""


class Busy(Exception):
    """The server asks to come back later."""


class Refused(Exception):
    """No further attempt would succeed."""


class Outage(Refused):
    """Nor would any other request: the server is not available, or rejects the key."""


class BusyForLong(Outage):
    """The server asks to come back later than the recipe is patient."""


@dataclass
class Replica:
    """A server and its state; times are of the monotonic clock."""

    url: str
    client: httpx.AsyncClient
    secret: str | None = field(repr=False)
    slots: asyncio.Semaphore
    healthy: bool = False
    num_consecutive_failures: int = 0
    num_waiting: int = 0  # requests waiting for a slot, or for an answer
    busy_until: float = 0.0  # from its Retry-After
    reason: str = ""  # why it is unhealthy
    incompatible: bool = False  # it answers, but not as this model's engine needs it

    async def fetch(self, path: str, body: object, max_bytes: int, timeout_s: float) -> bytes:
        """GET the path, or POST a body to it as JSON. Raises AttemptFailed, Busy or Refused."""
        method = "GET" if body is None else "POST"
        with self._failures(timeout_s):
            async with asyncio.timeout(timeout_s), self.client.stream(method, self.url + path, json=body) as response:
                content = await (_read_whole(response, max_bytes) if response.is_success else _read_message(response))
        if not response.is_success:
            self._refuse(response, content)
        return content

    async def lines(self, path: str, body: object, max_bytes: int, timeout_s: float) -> AsyncGenerator[bytes]:
        """What is answered to a body, line by line as it comes. Raises as `fetch` does."""
        with self._failures(timeout_s):
            async with asyncio.timeout(timeout_s), self.client.stream("POST", self.url + path, json=body) as response:
                if not response.is_success:
                    self._refuse(response, await _read_message(response))
                rest = b""
                async for chunk in _chunks(response, max_bytes):
                    *whole, rest = (rest + chunk).split(b"\n")
                    for line in whole:
                        yield line

    def record_success(self) -> None:
        """Its last answer was valid."""
        self.num_consecutive_failures = 0

    def record_failure(self, error: AttemptFailed) -> None:
        """Its last attempt failed; it is unhealthy after too many of them."""
        self.num_consecutive_failures += 1
        if isinstance(error, Unreachable) or self.num_consecutive_failures >= MAX_CONSECUTIVE_FAILURES:
            self.healthy, self.reason = False, str(error)

    def quote(self, text: str) -> str:
        """What a server said, as it may be stored and shown: short, on one line, and without the key."""
        clean = text.replace(self.secret, "***") if self.secret else text
        return excerpt_line(clean, MAX_QUOTED_CHARACTERS)

    @contextmanager
    def _failures(self, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"{self.url} cannot be reached: {self.quote(str(error)) or 'no answer'}") from None
        except TimeoutError:
            raise TimedOut(f"{self.url} gave no whole answer within {timeout_s:g} s") from None
        except BadReply as error:
            raise AttemptFailed(f"{self.url}: {self.quote(str(error))}") from None
        except httpx.HTTPError as error:
            cause = self.quote(f"{type(error).__name__} {error}")
            raise AttemptFailed(f"{self.url} broke off its answer: {cause}") from None

    def _refuse(self, response: httpx.Response, content: bytes) -> None:
        """Raise the error that a response without success stands for."""
        status = response.status_code
        message = f"{self.url} answered HTTP {status}: {self.quote(_message(content))}"
        wait_s = _retry_after_s(response.headers.get("retry-after"))
        if status == 429 or (status == 503 and wait_s is not None):
            self.busy_until = max(self.busy_until, time.monotonic() + (wait_s or 0.0))
            raise Busy(message)
        if response.is_server_error or status == 408:
            raise AttemptFailed(message)
        if response.is_redirect:
            target = self.quote(response.headers.get("location", "nowhere"))
            raise Outage(f"{message}; a redirect to {target} is not followed: put the final address in base_urls")
        if status in REMEDIES:
            raise Outage(f"{message}; {REMEDIES[status]}")
        raise Refused(message)


def http_client(server: Server, secret: str | None, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """A client for all replicas; transport: replaces the network in tests."""
    key = {"Authorization": f"Bearer {secret}"} if secret else {}
    return httpx.AsyncClient(
        transport=transport or _network(),
        headers={"Accept-Encoding": PLAIN, **key},
        timeout=httpx.Timeout(None, connect=server.connect_timeout_s),
        follow_redirects=False,
        trust_env=False,
    )


def checked_secret(server: Server, value: str | None) -> str | None:
    """The key to send, if the recipe names one. Raises RecipeError if it is missing or cannot be a header's value."""
    if server.api_key_env is None:
        return None
    secret = (value or "").strip()
    if not secret:
        raise RecipeError(
            f"server.api_key_env: the environment variable {server.api_key_env} is not set; export the server's key in "
            "it, also where `dasd ui` is started, or remove api_key_env"
        )
    if not (secret.isascii() and secret.isprintable() and " " not in secret):
        raise RecipeError(
            f"server.api_key_env: the value of {server.api_key_env} is not a key; set it to the key alone"
        )
    return secret


def _network() -> httpx.AsyncBaseTransport:
    """Idle connections are closed before servers do so (uvicorn: 5 s); a vanished peer is noticed in two minutes."""
    options: list[tuple[int, int, int]] = [(SOL_SOCKET, SO_KEEPALIVE, 1)]
    if sys.platform == "linux":
        from socket import TCP_KEEPCNT, TCP_KEEPIDLE, TCP_KEEPINTVL

        options += [(IPPROTO_TCP, TCP_KEEPIDLE, 60), (IPPROTO_TCP, TCP_KEEPINTVL, 15), (IPPROTO_TCP, TCP_KEEPCNT, 4)]
    return httpx.AsyncHTTPTransport(
        verify=ssl.create_default_context(),
        trust_env=False,
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=4.0),
        socket_options=options,
    )


async def _read_whole(response: httpx.Response, max_bytes: int) -> bytes:
    """The body. Raises BadReply as `_chunks` does."""
    content = bytearray()
    async for chunk in _chunks(response, max_bytes):
        content += chunk
    return bytes(content)


async def _chunks(response: httpx.Response, max_bytes: int) -> AsyncIterator[bytes]:
    """The body as it comes. Raises BadReply if it is compressed, or longer than any valid answer."""
    if encoding := _encoding(response):
        raise BadReply(f"its answer is compressed ({encoding}), which was not asked for; {REMEDY}")
    num_bytes = 0
    async for chunk in response.aiter_bytes():
        num_bytes += len(chunk)
        if num_bytes > max_bytes:
            raise BadReply(f"its answer has more than the {max_bytes} bytes that what was asked for can take")
        yield chunk


async def _read_message(response: httpx.Response) -> bytes:
    """The beginning of an error's body, as some servers repeat all they were sent; or why it is not read."""
    if encoding := _encoding(response):
        return f"its message is compressed ({encoding}), which was not asked for; {REMEDY}".encode()
    async for chunk in response.aiter_bytes(ERROR_BYTES):
        return chunk
    return b""


def _encoding(response: httpx.Response) -> str:
    """How the body is compressed, in the server's words; empty if it is not."""
    encoding = response.headers.get("content-encoding", "")
    return "" if encoding.strip().lower() in ("", PLAIN) else encoding[:40]


def _message(content: bytes) -> str:
    """The sentence in an error's JSON, in the shape OpenAI gave it, or else the text as it is."""
    text = content.decode(errors="replace")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return text
    error = document.get("error", document) if isinstance(document, dict) else document
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)


def _retry_after_s(header: str | None) -> float | None:
    """Seconds from now, of a number or an HTTP date."""
    try:
        seconds = float(header or "")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header or "").timestamp() - time.time()
        except (ValueError, OverflowError, TypeError):
            return None
    return max(seconds, 0.0) if isfinite(seconds) else None
