"""From a model named in the recipe to its verified files, its tokenizer, and a loaded engine."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Self, TypeVar

from dagster import ConfigurableResource
from pydantic import PrivateAttr

from dasd_resources.chat import Chat
from dasd_resources.content_hash import content_hash
from dasd_resources.file_hashes import cached_hash
from dasd_resources.inference.engine import (
    Completion,
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.engine_catalogue import ENGINES
from dasd_resources.inference.engine_processes import EngineProcesses
from dasd_resources.inference.engine_worker import Load
from dasd_resources.inference.engine_workers import EngineWorkers
from dasd_resources.inference.gpus import divide, visible_gpus
from dasd_resources.inference.kept_loaded import kept_engine, make_room
from dasd_resources.inference.model_files import context_length, find_model, fingerprint, prompting_fingerprint
from dasd_resources.packages import pip_install
from dasd_resources.recipe import Model, RayCluster, RecipeError, Server

# Part of the key under which a fingerprint is cached; raised when it is made otherwise of files and prompting, so that
# the cached ones are made anew. It decides no row: the fingerprint itself does.
FINGERPRINT_CACHE_FORMAT = "3"
LOG_FOLDER = "logs"  # of the home
SECONDS_BY_HAND = 5.0  # for which a person waits for a server
# Requests that an engine is given at once, and tokens of their prompts, of which 16 M take 600 MB. While the last of a
# part are answered the engine has ever less to do: of 256 side by side that costs some 5 % of its time at 16,384.
REQUESTS_AT_ONCE, TOKENS_AT_ONCE = 16_384, 16_000_000
# Several threads find models (`Engines.apart`), and two that first import transformers at the same moment see half of
# it: its modules load lazily.
_LOADING = Lock()
Result = TypeVar("Result", bound=Completion | Score | Failure)


@dataclass(frozen=True)
class PromptedModel:
    """A model as this recipe prompts it; `fingerprint` covers weights, tokenizer, chat template and system prompt.

    It also covers the quantisation that the recipe asks of the engine, if any, and the model it stands for. For weights
    behind a server, their declared revision and the id they are served under stand in. logs: the folder for what an
    engine prints.
    """

    path: Path
    fingerprint: str
    chat: Chat
    spec: Model
    logs: Path | None = field(default=None, compare=False)

    @property
    def context(self) -> int:
        """Most tokens that it takes here, prompt included; the recipe may lower what the files allow."""
        entry = ENGINES[self.spec.engine]
        limit = self.spec.engine_options.get(entry.context_option) if entry.context_option else None
        if isinstance(limit, int) and limit > 0:
            return min(limit, context_length(self.path))
        return context_length(self.path, original=entry.original_context)

    @property
    def by_hand(self) -> "PromptedModel":
        """The same for a person who waits: servers of which none is available are given up after a few seconds."""
        if self.spec.server is None:
            return self
        server = self.spec.server.model_copy(update={"patience_s": min(self.spec.server.patience_s, SECONDS_BY_HAND)})
        return replace(self, spec=self.spec.model_copy(update={"server": server}))


class Engines(ConfigurableResource):
    """Finds models and loads them, one at a time; nothing is loaded until a step asks.

    keep_loaded_seconds: for which a model that runs here stays loaded for the next step that asks for it.
    """

    home: str
    keep_loaded_seconds: float = 0.0
    _processes: EngineProcesses | None = PrivateAttr(default=None)

    def find(self, spec: Model, key: str) -> PromptedModel:
        """The files of a model; raises RecipeError naming `key` (`teacher.model`) where they cannot be used."""
        path = find_model(spec.model, key)
        if spec.server is not None:
            return self._find_served(spec, spec.server, path, key)
        if ENGINES[spec.engine].absent:
            return self._find_absent(spec, path, key)
        files = fingerprint(path, self.cache)
        chat = _chat(path, files, spec, key)
        known = [files, chat.template_version, *_quantisation(spec), *_replaced(chat), *_stands_for(spec)]
        return PromptedModel(path, content_hash(known)[:16], chat, spec, Path(self.home) / LOG_FOLDER)

    def fingerprint(self, spec: Model, key: str) -> str:
        """`find(…).fingerprint`, without loading the tokenizer, which takes seconds, where it is cached."""
        path = find_model(spec.model, key)
        weightless = spec.server is not None or ENGINES[spec.engine].absent
        files = (prompting_fingerprint if weightless else fingerprint)(path, self.cache)
        # What no fingerprint depends on.
        unused = {"replicas", "ray", "scoring_server", *(() if spec.stands_for else ("stands_for",))}
        described = spec.model_dump(mode="json", exclude=unused)
        made_of = [FINGERPRINT_CACHE_FORMAT, files, described, _installed("transformers")]
        name = f"fingerprint of {content_hash(made_of)}"
        return cached_hash(self.cache, (name, 0, 0), lambda: self.find(spec, key).fingerprint)

    @property
    def cache(self) -> Path:
        """Where hashes of files, and what follows from them, are kept."""
        return Path(self.home) / "fingerprints.sqlite"

    def api_key(self, variable: str) -> str | None:
        """The server's key in an environment variable: None here, as only the code location reads the environment."""
        return None

    def _find_served(self, spec: Model, server: Server, path: Path, key: str) -> PromptedModel:
        chat = _chat(path, prompting_fingerprint(path, self.cache), spec, key)
        known = [server.model, server.revision, chat.tokenizer_hash, chat.stop_token_ids, chat.template_version]
        return PromptedModel(path, content_hash([*known, *_stands_for(spec)])[:16], chat, spec)

    def _find_absent(self, spec: Model, path: Path, key: str) -> PromptedModel:
        chat = _chat(path, prompting_fingerprint(path, self.cache), spec, key)
        known = [chat.tokenizer_hash, chat.stop_token_ids, chat.template_version, *_stands_for(spec)]
        return PromptedModel(path, content_hash(known)[:16], chat, spec)

    @contextmanager
    def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
        """The model loaded in the engine its recipe names; on leaving it is freed, or kept for the next step."""
        if self._processes is not None and model.spec.ray is None:
            with self._processes.open(self.loader(model)) as engine:
                yield engine
            return
        entry = ENGINES[model.spec.engine]
        if self.keep_loaded_seconds and not entry.served and not entry.absent:
            key = content_hash([str(model.path), model.fingerprint, model.spec.model_dump(mode="json")])
            load, seconds = partial(self._load, model), self.keep_loaded_seconds
            with kept_engine(Path(self.home), key, load, seconds) as engine:
                yield engine
            return
        if not entry.served and not entry.absent:
            make_room(Path(self.home))
        with closing(self._load(model)) as engine:
            yield engine

    @contextmanager
    def apart(self, num: int, num_threads: int) -> Iterator[Self]:
        """The same meanwhile, but up to `num` models may be open at once, each in a process of so many threads.

        For models that run here, without a GPU. With `num` 1 it is no other: models are opened in this process.
        """
        if num == 1:
            yield self
            return
        make_room(Path(self.home))
        apart, processes = self.model_copy(), EngineProcesses(num, num_threads)
        apart._processes = processes
        try:
            yield apart
        finally:
            processes.end()

    def generate(
        self, model: PromptedModel, requests: Iterable[GenerationRequest | Failure], at_once: int = REQUESTS_AT_ONCE
    ) -> Iterator[Completion | Failure]:
        """Completions as they finish, and what comes in a request's place; with nothing to do, nothing is loaded.

        requests: any number; `at_once` of them for each replica are taken, and answered, before the next are. The model
        stays loaded.
        """
        with ExitStack() as loaded:
            engine: InferenceEngine | None = None
            for part, refused in in_parts(requests, at_once * model.spec.replicas):
                yield from refused
                if part:
                    engine = engine or loaded.enter_context(self.open(model))
                    yield from once_each(part, engine.generate(part))

    def score(self, model: PromptedModel, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        """Scores as they finish; with nothing to do, nothing is loaded."""
        if requests:
            with self.open(model) as engine:
                yield from once_each(requests, engine.score(requests))

    def _load(self, model: PromptedModel) -> InferenceEngine:
        spec = model.spec
        if spec.ray is not None:
            return self._load_on_ray(model, spec.ray)
        if spec.replicas == 1:
            return ENGINES[spec.engine].load(model, self.api_key)
        gpus = divide(visible_gpus(), spec.replicas, spec.num_gpus_each)
        return EngineWorkers(self.loader(model), gpus)

    def loader(self, model: PromptedModel) -> Load:
        """What a process of its own, here or on a node of Ray's, loads the engine with."""
        logs = model.logs if model.spec.ray is None else None  # of an actor, Ray keeps what is printed
        return partial(_load_replica, model.path, model.fingerprint, model.spec, logs)

    def _load_on_ray(self, model: PromptedModel, cluster: RayCluster) -> InferenceEngine:
        require_ray()
        from dasd_resources.inference.ray_cluster import needs  # Ray takes a second, and few recipes name it
        from dasd_resources.inference.ray_replicas import Placing, RayReplicas

        spec, placing = model.spec, Placing(cluster.address, needs(model.spec, cluster), cluster.patience_s)
        return RayReplicas(self.loader(model), spec.replicas, placing, model.path, ENGINES[spec.engine].package)


def require_ray() -> None:
    """Raise RecipeError where Ray is not installed."""
    if find_spec("ray") is None:
        raise RecipeError(f"engine: ray needs Ray: {pip_install('dasd[ray]')}, on every node, or remove ray")


def _load_replica(path: Path, fingerprint: str, spec: Model, logs: Path | None) -> InferenceEngine:
    """The engine in a process of its own, where the tokenizer is loaded anew: not all of them can be pickled."""
    model = PromptedModel(path, fingerprint, Chat.load(path, spec), spec, logs)
    return ENGINES[spec.engine].load(model, lambda variable: None)  # served models, which have keys, have no replicas


_installed = cache(version)  # reading a package's metadata takes 10 ms, and every look at a model asks


def _quantisation(spec: Model) -> list[object]:
    """The quantisation an engine applies to the weights: other values, so another model."""
    chosen = ENGINES[spec.engine].quantisation(spec.engine_options)
    return [chosen] if chosen else []


def _stands_for(spec: Model) -> list[object]:
    """What tells rows of imported responses from those of the model itself: the model that wrote them."""
    return [{"stands_for": spec.stands_for}] if spec.stands_for else []


def in_parts(
    requests: Iterable[GenerationRequest | Failure], at_once: int, num_tokens: int = TOKENS_AT_ONCE
) -> Iterator[tuple[list[GenerationRequest], list[Failure]]]:
    """The requests, so many at a time or of about so many tokens; and the failures that came among them.

    A prompt that is the one before it, as an object, takes no memory of its own.
    """
    part, refused, total = list[GenerationRequest](), list[Failure](), 0
    for request in requests:
        if isinstance(request, Failure):
            refused.append(request)
        else:
            prompt = request.prompt_token_ids
            total += 0 if part and part[-1].prompt_token_ids is prompt else len(prompt)
            part.append(request)
        if len(part) + len(refused) == at_once or total >= num_tokens:
            yield part, refused
            part, refused, total = [], [], 0
    yield part, refused


def once_each(
    requests: Sequence[GenerationRequest] | Sequence[ScoringRequest], results: Iterator[Result]
) -> Iterator[Result | Failure]:
    """The results, and a Failure for every request that came to none; RuntimeError for one that was not requested."""
    pending = {request.request_id for request in requests}
    for result in results:
        if result.request_id not in pending:
            raise RuntimeError(f"the engine returned a second or unrequested result for {result.request_id}")
        pending.remove(result.request_id)
        yield result
    message = "the engine ended without a result for it"
    yield from (Failure(request_id, message, "no_result") for request_id in sorted(pending))


def _replaced(chat: Chat) -> list[object]:
    """What tells rows made with tokenizer.json's own tokens from those of the wrong class that a folder names."""
    return [chat.origin.source] if chat.origin.replaces_class else []


def _chat(path: Path, files: str, spec: Model, key: str) -> Chat:
    try:
        with _LOADING:
            return _loaded_chat(path, files, spec.model_dump_json())
    except RecipeError as error:
        raise RecipeError(f"{key}: {error}") from error.__cause__


@lru_cache(maxsize=16)
def _loaded_chat(path: Path, files: str, spec: str) -> Chat:
    """Read once as long as the files' fingerprint stays: it covers tokenizer and template. spec: Model as JSON."""
    return Chat.load(path, Model.model_validate_json(spec))
