"""A completions server without a model: its replies follow from seed and ids alone, and it can be told to misbehave.

It stands in for the network (`httpx.MockTransport(stub)`), or answers on a socket of its own (`listening`).
"""

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Event, Lock, Thread
from typing import Any

import httpx

from dasd_resources.chat import Chat
from dasd_resources.inference.openai_engine import PROBE

MODEL = "teacher-as-served"
Json = dict[str, Any]
Fault = Callable[[httpx.Request, Json], httpx.Response | None]
ENCODING = "x-encoding"  # what an answer says its body is compressed with; sent as it is
BROKEN = "x-broken"  # of an answer whose connection ends before all of its body is out


def logprob(token_id: int) -> float:
    """What the stub takes for a token's raw logprob."""
    return -((31 * token_id) % 97) / 8 - 0.01


def sampled(body: Json) -> list[int]:
    """What it samples: seldom a stop id, which ends it."""
    rng, token_ids = Random(body["seed"]), list[int]()
    stops = body["stop_token_ids"]
    while len(token_ids) < body["max_tokens"]:
        token_ids.append(stops[0] if stops and rng.random() < 0.1 else rng.randrange(100, 300))
        if token_ids[-1] in stops:
            break
    return token_ids


@dataclass
class Stub:
    """`fault` sees every request to complete that is no probe, and what would be answered, and may answer instead."""

    chat: Chat
    fault: Fault = lambda request, reply: None
    tempered: bool = False
    change_probe: Callable[[Json], object] = lambda reply: None
    models: Json = field(default_factory=lambda: {"data": [{"id": MODEL, "max_model_len": 512}]})
    delay_s: float = 0.0
    requests: list[httpx.Request] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self._lock = Lock()

    async def over_network(self, request: httpx.Request) -> httpx.Response:
        """For `httpx.MockTransport`."""
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(self.delay_s)
            return self(request)
        finally:
            self.at_once -= 1

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.requests.append(request)
        if request.url.path.endswith("/models"):
            return httpx.Response(200, json=self.models)
        body = json.loads(request.content)
        reply = {"choices": [self._score(body) if "prompt_logprobs" in body else self._completion(body)]}
        if is_probe(self.chat, body):
            self.change_probe(reply)
        elif answer := self.fault(request, reply):
            return answer
        return httpx.Response(200, content=events(reply["choices"][0]) if body["stream"] else json.dumps(reply))

    @property
    def asked(self) -> list[Json]:
        """The bodies of what was to be completed, probes apart."""
        bodies = [json.loads(r.content) for r in self.requests if r.url.path.endswith("/completions")]
        return [body for body in bodies if not is_probe(self.chat, body)]

    def _completion(self, body: Json) -> Json:
        prompt, token_ids = body["prompt"], sampled(body)
        scale = body["temperature"] if self.tempered else 1.0
        return {
            "finish_reason": "stop" if token_ids[-1] in body["stop_token_ids"] else "length",
            "prompt_token_ids": self.chat.prompt_ids(PROBE) if isinstance(prompt, str) else prompt,
            "token_ids": token_ids,
            "logprobs": {
                "tokens": [f"token_id:{t}" for t in token_ids],
                "token_logprobs": [logprob(t) / scale for t in token_ids],
            },
        }

    def _score(self, body: Json) -> Json:
        scored = [{str(t): {"logprob": logprob(t), "rank": 1}} for t in body["prompt"]]
        return {"finish_reason": "length", "prompt_token_ids": body["prompt"], "prompt_logprobs": [None, *scored[1:]]}


def events(choice: Json) -> str:
    """A completion as vLLM streams it: two tokens an event, the prompt's ids in the first, the reason in the last."""
    said = []
    for start in range(0, len(choice["token_ids"]), 2):
        two = slice(start, start + 2)
        is_last = start + 2 >= len(choice["token_ids"])
        part = {
            "finish_reason": choice["finish_reason"] if is_last else None,
            "token_ids": choice["token_ids"][two],
            "logprobs": {name: values[two] for name, values in choice["logprobs"].items()},
            **({} if start else {"prompt_token_ids": choice["prompt_token_ids"]}),
        }
        said.append(f"data: {json.dumps({'choices': [part]})}\n\n")
    return "".join([*said, "data: [DONE]\n\n"])


def is_probe(chat: Chat, body: Json) -> bool:
    """Whether a body is of the engine's check."""
    start = chat.prompt_ids(PROBE)
    return body["prompt"] == chat.prompt(PROBE) or body["prompt"][: len(start)] == start


@contextmanager
def listening(stub: Stub) -> Iterator[str]:
    """The stub on a port of loopback: its base URL. A header `x-broken` ends an answer halfway through its body, and
    `x-encoding` is sent as its `content-encoding`.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(b"")

        def do_POST(self) -> None:
            self._answer(self.rfile.read(int(self.headers["content-length"])))

        def _answer(self, content: bytes) -> None:
            self.close_connection = ended.is_set()
            if self.close_connection:
                return
            headers = dict(self.headers.items())
            answer = stub(httpx.Request(self.command, f"http://stub{self.path}", headers=headers, content=content))
            self.send_response(answer.status_code)
            self.send_header("content-length", str(len(answer.content)))
            if ENCODING in answer.headers:
                self.send_header("content-encoding", answer.headers[ENCODING])
            self.end_headers()
            broken = answer.headers.get(BROKEN)
            self.wfile.write(answer.content[: len(answer.content) // 2] if broken else answer.content)
            if broken == "hang":
                ended.wait()
            self.close_connection = bool(broken) or ended.is_set()

        def log_message(self, *args: object) -> None: ...

    ended = Event()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1"
        finally:
            ended.set()
            server.shutdown()
