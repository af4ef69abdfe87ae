"""Several servers of one model: who gets a request, how often, how fast, and which are unhealthy."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import httpx
import pytest

from dasd_resources.inference.openai_replies import BadReply
from dasd_resources.inference.replica import AttemptFailed, Busy, Outage, Refused, Replica, TimedOut
from dasd_resources.inference.replicas import Limits, Replicas, open_replicas
from dasd_resources.recipe import RecipeError, Server

OK = httpx.Response(200, content=b"yes")
Answers = Callable[[int], httpx.Response | Exception]


@dataclass
class Network:
    """Answers by host, each called with how often that host was asked before; `ill` fails its check."""

    hosts: dict[str, Answers]
    ill: dict[str, Exception] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    checked: Counter[str] = field(default_factory=Counter)
    at_once: Counter[str] = field(default_factory=Counter)
    most_at_once: Counter[str] = field(default_factory=Counter)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        self.asked[host] += 1
        self.at_once[host] += 1
        self.most_at_once[host] = max(self.most_at_once[host], self.at_once[host])
        await asyncio.sleep(0.01)
        self.at_once[host] -= 1
        answer = self.hosts[host](self.asked[host] - 1)
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)

    async def check(self, replica: Replica) -> None:
        host = httpx.URL(replica.url).host
        self.checked[host] += 1
        if host in self.ill:
            raise self.ill[host]

    def run(self, task: Callable[[Replicas], Awaitable[object]], **settings: object) -> object:
        """Open the hosts as replicas, and do the task with them."""

        async def run() -> object:
            async with open_replicas(self.server(**settings), None, self.check, httpx.MockTransport(self)) as opened:
                await opened.start()
                return await task(opened)

        return asyncio.run(run())

    def server(self, **settings: object) -> Server:
        urls = [f"http://{host}/v1" for host in self.hosts]
        return Server.model_validate({"base_urls": urls, "model": "m", "revision": "1", **settings})

    def ask(self, times: int = 1, num_tokens: int = 1, **settings: object) -> list[object]:
        """The answers, or the errors, to as many requests at once."""
        limits = Limits.of(self.server(**settings), num_tokens)

        async def task(opened: Replicas) -> object:
            asks = (opened.ask({}, num_tokens, limits, read) for _ in range(times))
            return await asyncio.gather(*asks, return_exceptions=True)

        answers = self.run(task, **settings)
        assert isinstance(answers, list)
        return answers


def read(content: bytes) -> str:
    if content != b"yes":
        raise BadReply(f"it said {content.decode()}")
    return "yes"


def always(answer: httpx.Response | Exception) -> Answers:
    return lambda _: answer


def first(*answers: httpx.Response | Exception) -> Answers:
    """These, then good ones."""
    return lambda index: answers[index] if index < len(answers) else OK


@pytest.mark.parametrize("status", [500, 502, 503, 408])
def test_a_passing_fault_is_tried_again(status: int) -> None:
    network = Network({"a": first(httpx.Response(status), httpx.ReadError("reset"))})
    assert network.ask() == ["yes"]
    assert network.asked["a"] == 3


def test_attempts_are_counted_and_the_last_reason_told() -> None:
    network = Network({"a": always(httpx.Response(200, content=b"no"))})
    (error,) = network.ask(max_attempts=2)
    assert isinstance(error, AttemptFailed) and str(error) == "http://a/v1: it said no"
    assert network.asked["a"] == 2


def test_what_is_refused_is_not_tried_again() -> None:
    network = Network({"a": always(httpx.Response(400, text="too long"))})
    (error,) = network.ask()
    assert isinstance(error, Refused) and network.asked["a"] == 1


def test_a_busy_server_is_waited_for_without_counting_attempts() -> None:
    network = Network({"a": first(*[httpx.Response(429)] * 2)})
    assert network.ask(max_attempts=1) == ["yes"]


def test_retry_after_is_honoured_by_all_requests() -> None:
    network = Network({"a": first(httpx.Response(429, headers={"retry-after": "0.7"}))})
    started = time.monotonic()
    assert network.ask(times=3, max_concurrency=1) == ["yes"] * 3
    assert time.monotonic() - started >= 0.7
    assert network.asked["a"] == 4


def test_while_one_is_busy_another_takes_the_work() -> None:
    network = Network({"a": always(httpx.Response(429, headers={"retry-after": "500"})), "b": always(OK)})
    assert network.ask(times=20) == ["yes"] * 20
    assert network.asked["b"] == 20


def test_patience_with_a_busy_server_ends() -> None:
    network = Network({"a": always(httpx.Response(429))})
    (error,) = network.ask(patience_s=0.2)
    assert isinstance(error, Busy)


def test_a_server_that_asks_for_too_much_patience_is_not_waited_for() -> None:
    network = Network({"a": always(httpx.Response(429, headers={"retry-after": "86400"}))})
    answers = network.ask(times=5)
    assert all(isinstance(a, Outage) and "busy, and says to come back in 86" in str(a) for a in answers)


def test_who_waits_behind_a_server_that_asks_for_too_much_patience_does_not_wait_on() -> None:
    network = Network({"a": always(httpx.Response(429, headers={"retry-after": "86400"}))})
    answers = network.ask(times=5, max_concurrency=1)  # those without a slot wait for one, and are told only then
    assert all(isinstance(a, Outage) and "busy, and says to come back in 86" in str(a) for a in answers)
    assert network.asked["a"] == 1


def test_at_the_start_nobody_waits_for_a_server_that_asks_for_too_much_patience() -> None:
    class BusyForLong(Network):
        async def check(self, replica: Replica) -> None:
            await super().check(replica)
            if replica.url == "http://a/v1":
                replica.busy_until = time.monotonic() + 86400
                raise Busy("http://a/v1 is busy")

    assert BusyForLong({"a": always(OK), "b": always(OK)}).ask(times=4) == ["yes"] * 4
    with pytest.raises(RecipeError, match=r"no server of m can be used: http://a/v1 is busy, and says to come back in"):
        BusyForLong({"a": always(OK)}).ask()


def test_a_server_that_refuses_all_requests_is_left_out_while_another_answers() -> None:
    network = Network({"a": always(httpx.Response(401)), "b": always(OK)})
    assert network.ask(times=60, max_concurrency=2, max_attempts=1) == ["yes"] * 60
    assert network.asked == {"a": 2, "b": 60}


def test_where_all_servers_refuse_all_requests_nothing_is_tried_again() -> None:
    network = Network({"a": always(httpx.Response(401)), "b": always(httpx.Response(404))})
    errors = network.ask(times=4, max_concurrency=4)
    assert all(isinstance(error, Outage) and "HTTP 40" in str(error) for error in errors)


def test_a_dead_server_is_left_aside_and_its_work_goes_to_the_other() -> None:
    network = Network({"a": always(httpx.ConnectError("refused")), "b": always(OK)})
    assert network.ask(times=60, max_concurrency=2) == ["yes"] * 60
    assert network.asked == {"a": 2, "b": 60}  # its two slots found it dead


def test_work_is_shared_and_no_server_gets_more_than_its_share() -> None:
    network = Network({"a": always(OK), "b": always(OK)})
    assert network.ask(times=40, max_concurrency=3) == ["yes"] * 40
    assert network.asked == {"a": 20, "b": 20}
    assert network.most_at_once == {"a": 3, "b": 3}


def test_a_server_that_comes_back_is_checked_and_used_again() -> None:
    network = Network({"a": first(httpx.ConnectError("refused"), httpx.ConnectError("refused"))})
    assert network.ask(times=2, max_concurrency=2) == ["yes"] * 2
    assert network.checked["a"] == 2


def test_when_all_are_dead_the_rest_fails_at_once_after_patience() -> None:
    async def task(opened: Replicas) -> object:
        network.ill = {"a": AttemptFailed("still dead")}
        limits = Limits(None, None)
        started = time.monotonic()
        asks = (opened.ask({}, 1, limits, read) for _ in range(50))
        errors = await asyncio.gather(*asks, return_exceptions=True)
        assert time.monotonic() - started < 5
        return errors

    network = Network({"a": always(httpx.ConnectError("refused"))})
    errors = network.run(task, patience_s=0.5)
    assert isinstance(errors, list) and len(errors) == 50
    assert all(isinstance(e, Outage) and "no server was available for 0.5 s (patience_s)" in str(e) for e in errors)


def test_at_the_start_a_server_may_be_away_but_not_all() -> None:
    network = Network({"a": always(OK), "b": always(OK)}, ill={"a": AttemptFailed("http://a/v1 cannot be reached")})
    assert network.ask(times=4) == ["yes"] * 4
    assert network.asked["a"] == 0
    network.ill["b"] = AttemptFailed("http://b/v1 cannot be reached")
    with pytest.raises(RecipeError, match=r"no server of m can be used: http://a/v1 cannot .*; http://b/v1 cannot"):
        network.ask(patience_s=0.01)


def test_at_the_start_one_server_is_waited_for() -> None:
    class Loading(Network):
        async def check(self, replica: Replica) -> None:
            await super().check(replica)
            if self.checked["a"] == 1:
                raise TimedOut("http://a/v1 gave no whole answer")

    assert Loading({"a": always(OK)}).ask(patience_s=5) == ["yes"]


@pytest.mark.parametrize("error", [RecipeError("http://a/v1 is unfit"), Refused("http://a/v1 is unfit")])
def test_an_unfit_server_is_a_fault_of_the_recipe(error: Exception) -> None:
    network = Network({"a": always(OK), "b": always(OK)}, ill={"a": error})
    with pytest.raises(RecipeError, match=r"^http://a/v1 is unfit$"):
        network.ask()
    assert network.checked["a"] == 1


def test_requests_per_minute_are_spread() -> None:
    network = Network({"a": always(OK)})
    started = time.monotonic()
    assert network.ask(times=6, requests_per_minute=600) == ["yes"] * 6
    assert time.monotonic() - started >= 0.5


def test_tokens_per_minute_are_spread_even_if_one_request_exceeds_them() -> None:
    network = Network({"a": always(OK)})
    started = time.monotonic()
    assert network.ask(times=4, num_tokens=2000, tokens_per_minute=600_000) == ["yes"] * 4
    assert time.monotonic() - started >= 0.6
    assert network.ask(num_tokens=2000, tokens_per_minute=100) == ["yes"]
