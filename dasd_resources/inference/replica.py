"""One server of a remote model: a request to it over HTTP, and what its answer means.

Three things can go wrong: a Fault (another attempt may succeed), Busy (the server says to come back later) and Refused
(no attempt will succeed; in an Outage, none at any other request either). Redirects are not followed and proxies of the
environment not used, so the key goes to the recipe's hosts alone; it is struck out of whatever a server says.
"""

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from math import isfinite
from socket import IPPROTO_TCP, SO_KEEPALIVE, SOL_SOCKET

import httpx

from dasd_resources.recipe import RecipeError, Server

MAX_FAULTS = 3  # in a row, after which a server is left aside; if it cannot be connected to, one is enough
TOLD = 300  # characters of a server's own words that are passed on
SHOWN_BYTES = 65536  # read of an error
REMEDIES = {401: "is the key right?", 403: "is the key right?", 404: "does its base URL end with /v1?"}


class Fault(Exception):
    """This attempt failed; another may succeed."""


class Unreachable(Fault):
    """There is no connection to the server."""


class TimedOut(Fault):
    """The server was silent, or too slow."""


class Busy(Exception):
    """The server asks to come back later."""


class Refused(Exception):
    """No further attempt would succeed."""


class Outage(Refused):
    """Nor would any other request: the server is away, or does not know us."""


@dataclass
class Replica:
    """A server, and what is known of it; times are of the monotonic clock."""

    url: str
    client: httpx.AsyncClient
    secret: str | None = field(repr=False)
    slots: asyncio.Semaphore
    lives: bool = False
    num_faults: int = 0  # in a row
    num_waiting: int = 0  # for a slot, or for an answer
    free_at: float = 0.0  # when it is busy no longer, by its own word
    reason: str = ""  # why it was left aside
    unfit: bool = False  # it answers, but what it answers is of no use

    async def fetch(self, path: str, body: object, max_bytes: int, timeout_s: float) -> bytes:
        """GET the path, or POST a body to it as JSON. Raises Fault, Busy or Refused."""
        method = "GET" if body is None else "POST"
        with self._failures(timeout_s):
            async with asyncio.timeout(timeout_s), self.client.stream(method, self.url + path, json=body) as response:
                content = await (_whole(response, max_bytes) if response.is_success else _start(response))
        if not response.is_success:
            self._refuse(response, content)
        return content

    def has_answered(self) -> None:
        """Its last answer was good."""
        self.num_faults = 0

    def has_failed(self, fault: Fault) -> None:
        """Its last answer was none, or a wrong one."""
        self.num_faults += 1
        if isinstance(fault, Unreachable) or self.num_faults >= MAX_FAULTS:
            self.lives, self.reason = False, str(fault)

    def told(self, words: str) -> str:
        """A server's own words, fit to be stored: short, and without the key."""
        clean = " ".join(words.replace(self.secret, "***").split() if self.secret else words.split())
        return clean if len(clean) <= TOLD else clean[:TOLD] + "…"

    @contextmanager
    def _failures(self, timeout_s: float) -> Iterator[None]:
        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Unreachable(f"{self.url} cannot be reached: {self.told(str(error)) or 'no answer'}") from None
        except TimeoutError:
            raise TimedOut(f"{self.url} gave no whole answer within {timeout_s:g} s") from None
        except httpx.HTTPError as error:
            broken = self.told(f"{type(error).__name__} {error}")
            raise Fault(f"{self.url} broke off its answer: {broken}") from None

    def _refuse(self, response: httpx.Response, content: bytes) -> None:
        """Raise what an answer without a result means."""
        status = response.status_code
        said = f"{self.url} answered HTTP {status}: {self.told(_message(content))}"
        wait_s = _retry_after_s(response.headers.get("retry-after"))
        if status == 429 or (status == 503 and wait_s is not None):
            self.free_at = max(self.free_at, time.monotonic() + (wait_s or 0.0))
            raise Busy(said)
        if response.is_server_error or status == 408:
            raise Fault(said)
        if response.is_redirect:
            target = self.told(response.headers.get("location", "nowhere"))
            raise Outage(f"{said}; a redirect to {target} is not followed: put the final address in base_urls")
        if status in REMEDIES:
            raise Outage(f"{said}; {REMEDIES[status]}")
        raise Refused(said)


def http_client(server: Server, secret: str | None, transport: httpx.AsyncBaseTransport | None) -> httpx.AsyncClient:
    """A client for all replicas; transport: what stands in for the network."""
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    return httpx.AsyncClient(
        transport=transport or _network(server),
        headers=headers,
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
        raise RecipeError(f"server.api_key_env: what {server.api_key_env} holds is no key; set it to the key alone")
    return secret


def _network(server: Server) -> httpx.AsyncBaseTransport:
    """Idle connections are let go before servers do so (uvicorn: 5 s); a vanished peer is noticed in two minutes."""
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


async def _whole(response: httpx.Response, max_bytes: int) -> bytes:
    """The body, if it is not absurdly long."""
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > max_bytes:
            raise httpx.DecodingError(f"more than the {max_bytes} bytes that an answer may have")
    return bytes(content)


async def _start(response: httpx.Response) -> bytes:
    """The beginning of the body: some servers repeat all they were sent in an error."""
    async for chunk in response.aiter_bytes(SHOWN_BYTES):
        return chunk
    return b""


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
