"""One server over HTTP: what its answers mean, and where the key may go."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from email.utils import formatdate

import httpx
import pytest

from dasd_resources.inference.replica import (
    MAX_CONSECUTIVE_FAILURES,
    AttemptFailed,
    Busy,
    Outage,
    Refused,
    Replica,
    TimedOut,
    Unreachable,
    checked_secret,
    http_client,
)
from dasd_resources.recipe import RecipeError, Server

URL = "https://a.test/v1"
KEY = "sk-very-secret-7f"
SERVER = Server(base_urls=(URL,), model="m", revision="1", api_key_env="TEACHER_KEY")
Answer = httpx.Response | Exception


def packed(status: int, encoding: str) -> httpx.Response:
    """An answer that says it is compressed."""
    return httpx.Response(status, stream=httpx.ByteStream(b"no"), headers={"content-encoding": encoding})


def fetch(answer: Answer | Callable[[httpx.Request], object], max_bytes: int = 1000, timeout_s: float = 5.0) -> bytes:
    """What a replica makes of an answer to a POST."""
    return asyncio.run(_fetch(answer, max_bytes, timeout_s))[0]


async def _fetch(
    answer: Answer | Callable[[httpx.Request], object], max_bytes: int, timeout_s: float
) -> tuple[bytes, Replica]:
    async def handle(request: httpx.Request) -> httpx.Response:
        said = answer(request) if callable(answer) else answer
        if isinstance(said, Exception):
            raise said
        assert isinstance(said, httpx.Response)
        return said

    async with http_client(SERVER, KEY, httpx.MockTransport(handle)) as client:
        replica = Replica(URL, client, KEY, asyncio.Semaphore(1))
        return await replica.fetch("/completions", {"prompt": [1]}, max_bytes, timeout_s), replica


def test_a_good_answer_is_passed_on_and_the_key_goes_with_the_request() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert (request.method, str(request.url)) == ("POST", URL + "/completions")
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(200, content=b"yes")

    assert fetch(handle) == b"yes"


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (httpx.Response(500, text="boom"), AttemptFailed, "HTTP 500: boom"),
        (httpx.Response(502, text="<html>"), AttemptFailed, "HTTP 502"),
        (httpx.Response(503), AttemptFailed, "HTTP 503"),
        (httpx.Response(503, headers={"retry-after": "7"}), Busy, "HTTP 503"),
        (httpx.Response(429, json={"error": {"message": "slow down"}}), Busy, "HTTP 429: slow down"),
        (httpx.Response(400, json={"error": {"message": "too long"}}), Refused, "HTTP 400: too long"),
        (httpx.Response(400, json={"message": "old style"}), Refused, "HTTP 400: old style"),
        (httpx.Response(422, text="[" * 50_000), Refused, "HTTP 422"),
        (httpx.Response(401, json={"error": "no"}), Outage, "HTTP 401: no; is the key right"),
        (httpx.Response(404, text="Not Found"), Outage, "HTTP 404: Not Found; does its base URL end with /v1"),
        (httpx.Response(200, content=b"x" * 1001), AttemptFailed, "more than the 1000 bytes"),
        (packed(200, "gzip"), AttemptFailed, r"its answer is compressed \(gzip\), which was not asked for; turn off"),
        (packed(200, "identity, br"), AttemptFailed, r"compressed \(identity, br\)"),
        (packed(400, "zstd"), Refused, r"HTTP 400: its message is compressed \(zstd\)"),
        (packed(503, "x" * 5000), AttemptFailed, "HTTP 503: its message is compressed"),
        (httpx.ConnectError("refused"), Unreachable, "cannot be reached: refused"),
        (httpx.ConnectTimeout(""), Unreachable, "cannot be reached: no answer"),
        (httpx.ReadError("reset"), AttemptFailed, "broke off its answer: ReadError reset"),
        (httpx.RemoteProtocolError("peer closed"), AttemptFailed, "RemoteProtocolError peer closed"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_an_answer_means(answer: Answer, kind: type[Exception], reason: str) -> None:
    with pytest.raises(kind, match=reason) as caught:
        fetch(answer)
    assert type(caught.value) is kind and str(caught.value).startswith(URL)
    assert len(str(caught.value)) < 600


def test_a_silent_server_times_out() -> None:
    async def body() -> AsyncIterator[bytes]:
        while True:  # never silent for long, never done
            yield b" "
            await asyncio.sleep(0.01)

    with pytest.raises(TimedOut, match=r"no whole answer within 0\.1 s"):
        fetch(lambda request: httpx.Response(200, content=body()), timeout_s=0.1, max_bytes=10**6)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("0.5", 0.5),
        ("in a minute", 60.0),
        ("-5", 0.0),
        ("a minute ago", 0.0),
        ("nan", 0.0),
        ("inf", 0.0),
        ("soon", 0.0),
        (None, 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(header: str | None, seconds: float) -> None:
    async def free_in() -> float:
        dates = {"in a minute": time.time() + 60, "a minute ago": time.time() - 60}
        value = formatdate(dates[header], usegmt=True) if header in dates else header
        headers = {} if value is None else {"retry-after": value}
        async with http_client(SERVER, KEY, httpx.MockTransport(lambda _: httpx.Response(429, headers=headers))) as c:
            replica = Replica(URL, c, KEY, asyncio.Semaphore(1))
            with pytest.raises(Busy):
                await replica.fetch("/completions", {}, 1000, 5.0)
            return replica.busy_until - time.monotonic()

    assert max(asyncio.run(free_in()), 0.0) == pytest.approx(seconds, abs=2.0 if seconds == 60 else 0.2)


def test_a_redirect_is_not_followed_so_the_key_stays_with_its_host() -> None:
    hosts = []

    def handle(request: httpx.Request) -> httpx.Response:
        hosts.append(request.url.host)
        return httpx.Response(307, headers={"location": "https://evil.test/v1/completions"})

    with pytest.raises(Refused, match=r"redirect to https://evil\.test/v1/completions is not followed: put the final"):
        fetch(handle)
    assert hosts == ["a.test"]


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500, text=f"you sent Bearer {KEY}"),
        httpx.Response(400, json={"error": {"message": f"bad key {KEY}"}}),
        httpx.Response(302, headers={"location": f"https://evil.test/{KEY}"}),
        httpx.ReadError(f"broke at {KEY}"),
        httpx.ConnectError(f"broke at {KEY}"),
    ],
    ids=repr,
)
def test_the_key_is_struck_out_of_what_a_server_says(answer: Answer) -> None:
    with pytest.raises((AttemptFailed, Refused)) as caught:
        fetch(answer)
    assert KEY not in str(caught.value) and caught.value.__cause__ is None


def test_nothing_prints_the_key() -> None:
    client = http_client(SERVER, KEY, None)
    assert not client.trust_env  # nor do a proxy or a .netrc of the environment get to see it
    shown = repr([client, client.headers, Replica(URL, client, KEY, asyncio.Semaphore(1)), SERVER])
    assert KEY not in shown


def test_faults_in_a_row_leave_a_server_aside() -> None:
    replica = Replica(URL, httpx.AsyncClient(), None, asyncio.Semaphore(1), healthy=True)
    for _ in range(5):
        replica.record_failure(AttemptFailed("once"))
        replica.record_success()
    for _ in range(MAX_CONSECUTIVE_FAILURES):
        assert replica.healthy
        replica.record_failure(AttemptFailed("again"))
    assert not replica.healthy and replica.reason == "again"
    lost = Replica(URL, httpx.AsyncClient(), None, asyncio.Semaphore(1), healthy=True)
    lost.record_failure(Unreachable("gone"))
    assert not lost.healthy


def test_a_key_is_taken_from_the_variable_that_the_recipe_names() -> None:
    assert checked_secret(SERVER, f" {KEY}\n") == KEY
    assert checked_secret(SERVER.model_copy(update={"api_key_env": None}), KEY) is None
    for nothing in (None, "", " \n"):
        with pytest.raises(RecipeError, match=r"server\.api_key_env: the environment variable TEACHER_KEY is not set"):
            checked_secret(SERVER, nothing)
    for wrong in (f"{KEY} {KEY}", f"{KEY}\r\nx: y", "ключ"):
        with pytest.raises(RecipeError, match="the value of TEACHER_KEY is not a key") as caught:
            checked_secret(SERVER, wrong)
        assert wrong not in str(caught.value)
