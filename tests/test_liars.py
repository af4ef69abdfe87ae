"""A server that lies in every way we could think of: each row ends once, with what was sampled or with a reason.

The kinds of lie are drawn per row, and whether it is told again when the row is asked for again. What no client can
see is left out: wrong values that could be right, beyond what the probe compares.
"""

import asyncio
import gzip
import json
import zlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import pytest
from conftest import FakeEngine, Project, change, prompt_rows
from reliability import record
from stub_server import MODEL, Json, Stub, logprob

from dasd_resources.chat import Chat
from dasd_resources.inference.engine import Failure, InferenceEngine, ScoringRequest
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.inference.openai_engine import OpenAIEngine
from dasd_resources.recipe import Model, Recipe, Server, load_recipe

KEY = "sk-very-secret-7f"
SHARE = 0.7  # of rows that are lied about: none of the kinds is left out
SEED = 37
Lie = Callable[[Json], httpx.Response]


def json_lie(edit: Callable[[Json], object]) -> Lie:
    """A well-formed reply with something in it changed."""

    def lie(reply: Json) -> httpx.Response:
        edit(reply["choices"][0])
        return httpx.Response(200, content=json.dumps(reply))

    return lie


def raw_lie(edit: Callable[[bytes], bytes], **headers: str) -> Lie:
    """The reply's bytes changed."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda reply: httpx.Response(200, stream=httpx.ByteStream(edit(json.dumps(reply).encode())), headers=named)


def status_lie(status: int, **headers: str) -> Lie:
    """An error, with all that was sent in it."""
    return lambda reply: httpx.Response(status, headers=headers, text=f"no, Bearer {KEY} {reply}")


def drip(reply: Json) -> httpx.Response:
    async def body() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.05)

    return httpx.Response(200, content=body())


def broken(error: type[httpx.TransportError]) -> Lie:
    def lie(reply: Json) -> httpx.Response:
        raise error(f"{KEY} gone")

    return lie


def swap(ids: list[int]) -> None:
    ids[0], ids[-1] = ids[-1] + 1, ids[0]


def set_first_id(choice: Json, token_id: int) -> None:
    choice["token_ids"][0], choice["logprobs"]["tokens"][0] = token_id, f"token_id:{token_id}"


def set_logprob(value: object) -> Lie:
    return json_lie(lambda c: c["logprobs"]["token_logprobs"].__setitem__(0, value))


ANY_LIES: dict[str, Lie] = {
    "truncated JSON": raw_lie(lambda content: content[: len(content) // 2]),
    "two documents": raw_lie(lambda content: content * 2),
    "not UTF-8": raw_lie(lambda content: b"\xff" + content),
    "empty": raw_lie(lambda content: b""),
    "HTML": raw_lie(lambda content: b"<html>please log in</html>"),
    "an error with 200": raw_lie(lambda content: b'{"error": {"message": "overloaded", "code": 500}}'),
    "deep nesting": raw_lie(lambda content: b"[" * 20_000),
    "endless": raw_lie(lambda content: b" " * 10_000_000),
    "broken gzip": raw_lie(lambda content: gzip.compress(content)[:-9], content_encoding="gzip"),
    "gzip that is none": raw_lie(lambda content: content, content_encoding="gzip"),
    "bomb": raw_lie(lambda content: zlib.compress(bytes(50_000_000)), content_encoding="deflate"),
    "slow drip": drip,
    "reset": broken(httpx.ReadError),
    "no connection": broken(httpx.ConnectError),
    "protocol error": broken(httpx.RemoteProtocolError),
    "redirect": status_lie(307, location=f"http://elsewhere.test/v1?key={KEY}"),
    "401": status_lie(401),
    "400": status_lie(400),
    "500": status_lie(500),
    "no choices": lambda reply: httpx.Response(200, json={"choices": []}),
    "two choices": lambda reply: httpx.Response(200, json={"choices": reply["choices"] * 2}),
    "choices null": lambda reply: httpx.Response(200, json={"choices": None}),
    "other prompt": json_lie(lambda c: swap(c["prompt_token_ids"])),
    "prompt cut": json_lie(lambda c: c["prompt_token_ids"].pop()),
    "no prompt": json_lie(lambda c: c.pop("prompt_token_ids")),
}
GENERATION_LIES: dict[str, Lie] = {
    "one logprob too few": json_lie(lambda c: c["logprobs"]["token_logprobs"].pop()),
    "one token too few": json_lie(lambda c: c["token_ids"].pop()),
    "one token twice": json_lie(lambda c: c["token_ids"].append(c["token_ids"][-1])),
    "other tokens": json_lie(lambda c: swap(c["token_ids"])),
    "no logprobs": json_lie(lambda c: c.update(logprobs=None)),
    "no ids": json_lie(lambda c: c.pop("token_ids")),
    "an id beyond all": json_lie(lambda c: set_first_id(c, 2**40)),
    "a negative id": json_lie(lambda c: set_first_id(c, -1)),
    "NaN": set_logprob(float("nan")),
    "null": set_logprob(None),
    "positive": set_logprob(0.25),
    "infinite": set_logprob(float("inf")),
    "minus infinite": set_logprob(float("-inf")),
    "-9999": set_logprob(-9999.0),
    "a text": set_logprob("-1.0"),
    "other reason": json_lie(lambda c: c.update(finish_reason="abort")),
    "no reason": json_lie(lambda c: c.update(finish_reason=None)),
}
SCORING_LIES: dict[str, Lie] = {
    "no prompt_logprobs": json_lie(lambda c: c.pop("prompt_logprobs")),
    "one position too few": json_lie(lambda c: c["prompt_logprobs"].pop()),
    "positions shifted": json_lie(lambda c: c["prompt_logprobs"].insert(0, c["prompt_logprobs"].pop())),
    "NaN": json_lie(lambda c: one_position(c).update(logprob=float("nan"))),
    "null": json_lie(lambda c: one_position(c).update(logprob=None)),
    "positive": json_lie(lambda c: one_position(c).update(logprob=1e-3)),
    "infinite": json_lie(lambda c: one_position(c).update(logprob=float("-inf"))),
}


def one_position(choice: Json) -> Json:
    [position] = choice["prompt_logprobs"][-1].values()
    assert isinstance(position, dict)
    return position


@dataclass
class Liar:
    """Lies by what a request is about: the same about the same row, once or whenever it is asked for."""

    lies: dict[str, Lie]
    told: dict[str, str] = field(default_factory=dict)  # row -> kind of lie

    def fault(self, request: httpx.Request, reply: Json) -> httpx.Response | None:
        body = json.loads(request.content)
        if ("seed" in body) is not (self.lies.keys() >= GENERATION_LIES.keys()):
            return None  # the parity check's scoring
        row = json.dumps([body.get("seed"), body["prompt"]])
        rng = Random(f"{SEED} {row}")
        kind, lies, again = rng.choice(sorted(self.lies)), rng.random() < SHARE, rng.random() < 0.7
        if not lies or (row in self.told and not again):
            return None
        self.told[row] = kind
        return self.lies[kind](reply)


def server(**settings: object) -> Server:
    part = {"base_urls": ["http://127.0.0.1:1/v1"], "model": MODEL, "revision": "1", "api_key_env": "TEACHER_KEY"}
    return Server.model_validate({**part, "max_attempts": 2, "request_timeout_s": 1.0, "patience_s": 30.0, **settings})


def over(stub: Stub, server: Server) -> closing[OpenAIEngine]:
    return closing(OpenAIEngine(server, stub.chat, KEY, httpx.MockTransport(stub.over_network)))


class LiedTo(Project):
    """A project whose teacher is behind a stub; its student is a fake."""

    stub: Stub

    @property
    def engines(self) -> Engines:
        stub, fake = self.stub, self.fake

        class LyingEngines(Engines):
            def api_key(self, variable: str) -> str | None:
                return KEY

            @contextmanager
            def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
                server = model.spec.server
                with over(stub, server) if server else nullcontext(FakeEngine(model, fake)) as opened:
                    yield opened

        return LyingEngines(home=str(self.home))


@pytest.fixture(scope="module")
def teacher() -> Model:
    return load_recipe("demo").teacher


@pytest.fixture(scope="module")
def chat(teacher: Model) -> Chat:
    return Chat.load(Path(teacher.model), teacher)


@pytest.mark.drill
def test_every_row_a_liar_samples_is_true_or_failed(
    tmp_path: Path, tiny: Recipe, teacher: Model, chat: Chat, capfd: pytest.CaptureFixture[str]
) -> None:
    part = {**teacher.model_dump(), "engine": "openai", "server": server().model_dump()}
    recipe = change(change(tiny, "teacher", part), "generation.num_candidates", 10)
    liar = Liar({**ANY_LIES, **GENERATION_LIES})
    project = LiedTo(tmp_path / "home", recipe)
    project.stub = Stub(chat, liar.fault)
    project.land("a.jsonl", prompt_rows(0, 40))
    project.materialize("teacher_model,held_out_questions,prompts,teacher_generations_t060")
    rows = project.read("SELECT response_id, token_ids, logprobs FROM responses")
    failed = project.read("SELECT request_id, reason FROM failed_requests")
    every = [*rows["response_id"], *failed["request_id"]]
    assert len(every) == len(set(every)) == 400
    for row in rows.iter_rows(named=True):
        assert row["logprobs"] == pytest.approx([logprob(t) for t in row["token_ids"]], rel=1e-6)
    assert failed["reason"].str.contains("http://127.0.0.1:1/v1").all()
    check_no_key(project.home, capfd)
    check_told(liar, failed.height)
    record(
        "lying server, sampling",
        faults=f"{len(liar.lies)} kinds of false, broken or slow replies to seven rows of ten",
        seed=SEED,
        tried=len(liar.told),
        survived=len(liar.told) - failed.height,
        detected=failed.height,
        silent=0,
        command="pytest -m drill tests/test_liars.py -k test_every_row_a_liar_samples_is_true_or_failed",
        note="survived: asked for again, and answered truly; no key in any file or log",
    )


@pytest.mark.drill
def test_every_score_of_a_liar_is_true_or_failed(chat: Chat) -> None:
    liar = Liar({**ANY_LIES, **SCORING_LIES})
    rng = Random(SEED)
    requests = [ScoringRequest(f"s{i}", tuple(rng.randrange(5, 400) for _ in range(12)), 5) for i in range(400)]
    with over(Stub(chat, liar.fault), server()) as engine:
        results = list(engine.score(requests))
    assert Counter(result.request_id for result in results) == Counter(r.request_id for r in requests)
    failed = [result for result in results if isinstance(result, Failure)]
    by_id = {request.request_id: request for request in requests}
    for result in results:
        if not isinstance(result, Failure):
            assert result.logprobs == [logprob(t) for t in by_id[result.request_id].token_ids[5:]]
    assert failed and not any(KEY in result.reason for result in failed)
    check_told(liar, len(failed))
    record(
        "lying server, scoring",
        faults=f"{len(liar.lies)} kinds of false, broken or slow replies to seven rows of ten",
        seed=SEED,
        tried=len(liar.told),
        survived=len(liar.told) - len(failed),
        detected=len(failed),
        silent=0,
        command="pytest -m drill tests/test_liars.py -k test_every_score_of_a_liar_is_true_or_failed",
    )


def check_told(liar: Liar, num_failed: int) -> None:
    """Every kind was told, and no row failed about which nothing was."""
    assert set(liar.told.values()) == set(liar.lies)
    assert 0 < num_failed <= len(liar.told)


def check_no_key(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert KEY not in "".join(capfd.readouterr())
    stored = [file for file in home.rglob("*") if file.is_file()]
    assert stored and not any(KEY.encode() in file.read_bytes() for file in stored)
