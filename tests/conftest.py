"""A whole pipeline without a model: a deterministic engine and trainer, passed as arguments, over a temporary home."""

import atexit
import gc
import io
import json
import logging
import multiprocessing
import multiprocessing.forkserver
import os
import re
import shutil
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from multiprocessing.context import ForkServerContext
from pathlib import Path
from random import Random

# Before torch is imported. Threads that spin while they wait for one another take the cores from whatever else runs.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import dagster as dg
import polars as pl
import pytest
import reliability
import shared_stores
from filelock import FileLock
from matplotlib.figure import Figure
from PIL import Image
from shared_stores import Storage
from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.engine.interfaces import DBAPIConnection
from tokenizers import Tokenizer

from dasd_assets.audit.files import Fault, tables
from dasd_assets.audit.verify import checks
from dasd_assets.commands.run import bring_up_to_date, materialize_selected
from dasd_assets.definitions import STAGES, Stage, build_definitions
from dasd_assets.rules.pool import pool_params
from dasd_assets.service.batches_run import LEVELS_MADE
from dasd_assets.service.instance import open_instance
from dasd_assets.service.steps import LEVELS, Level
from dasd_resources.demo.questions import QuestionRow, questions, write_rows
from dasd_resources.demo.traces import canonical, steps_of, worked_body
from dasd_resources.home import prepare_home
from dasd_resources.inference.engine import (
    Completion,
    Failure,
    FailureKind,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.sft.checkpoint import LOSSES, RECORD, Progress, Trained, publish
from dasd_resources.sft.trainer import SftJob
from dasd_resources.storage.warehouse import Params, Reading, Warehouse

EXPRESSION = re.compile(r"problem: (.+?) =")
TURN = "<|im_start|>assistant\n"
# The longest first: one that is begun last leaves the other workers with nothing to do. Of the three that are begun at
# once, one alone needs the finished home, which the others find made.
LONGEST = (
    "test_demo_run",
    "test_loads_in_rounds",
    "test_pipeline",
    "test_automation",
    "test_backup",
    "test_parity",
    "test_experiments",
    "test_verify",
    "test_distributed",
    "test_declarations",
    "test_heldout_losses",
    "test_extending",
    "test_openai_engine",
    "test_takedown",
    "test_trainer",
)


@dataclass
class Fake:
    """What fake engines and trainings were asked for, and how they are to behave."""

    generated: list[str] = field(default_factory=list)
    scored: list[str] = field(default_factory=list)
    rescored: list[str] = field(default_factory=list)  # by the parity check
    trained: list[SftJob] = field(default_factory=list)
    away: bool = False  # what fails was never attempted, as no server was there
    silent: bool = False  # end every response at once
    silent_at: float | None = None  # the same at one temperature
    steady: bool = False  # the same, right and short response to a question, whatever the seed
    thinks: Callable[[int], bool] = lambda seed: True  # whether the response of a seed has a thinking part
    fails: Callable[[str], bool] = lambda request_id: False
    kind: FailureKind = "engine_error"  # of what fails
    misreport: Callable[[list[float]], list[float]] = lambda logprobs: logprobs  # what sampling says of its tokens
    misscore: Callable[[list[float]], list[float]] = lambda logprobs: logprobs  # what scoring says, first time
    crash_after: int | None = None  # results, counted over all engines

    def crash_if_due(self) -> None:
        if self.crash_after is not None and len(self.generated) + len(self.scored) >= self.crash_after:
            raise RuntimeError(f"crashed after {self.crash_after} results")

    def failure(self, request_id: str) -> Failure:
        return Failure(request_id, "told to fail", "server_unavailable" if self.away else self.kind)

    def train(self, job: SftJob, on_progress: Callable[[Progress], None]) -> Trained:
        """Publish the parent's weights, with a mark in the configuration, as the real trainer does."""
        if job.destination.exists():
            return Trained.load(job.destination)
        self.trained.append(job)
        shutil.copytree(job.model, job.partial / "weights", ignore=shutil.ignore_patterns(RECORD, LOSSES))
        config = job.partial / "weights" / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "fake_checkpoint": job.checkpoint_id}))
        losses = [Progress(1, 2, 0.75, 1e-3, 10), Progress(2, 2, 0.5, 1e-4, 20)]
        on_progress(losses[-1])
        counts = {"seconds": 0.1, "num_steps": 2, "num_samples": 2, "num_bins": 2}
        record = {**job.record, "checkpoint_id": job.checkpoint_id, **counts}
        trained = publish(job.partial / "weights", job.destination, record, losses)
        job.partial.rmdir()
        return trained


class FakeEngine:
    """An InferenceEngine that does chain sums by arithmetic; everything it says follows from a request's seed."""

    def __init__(self, model: PromptedModel, fake: Fake) -> None:
        self._tokenizer = Tokenizer.from_file(str(model.path / "tokenizer.json"))
        self._end_of_turn = model.chat.end_of_turn_id
        self._rescores = model.spec.engine_options.get("plain_scoring") is True
        self._fake = fake

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        for request in reversed(requests):  # results may come in any order
            self._fake.crash_if_due()
            self._fake.generated.append(request.request_id)
            if self._fake.fails(request.request_id):
                yield self._fake.failure(request.request_id)
            else:
                yield self._completion(request)

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        for request in reversed(requests):
            self._fake.crash_if_due()
            (self._fake.rescored if self._rescores else self._fake.scored).append(request.request_id)
            logprobs = self._logprobs(request.token_ids[request.num_prompt_tokens :])
            if self._fake.fails(request.request_id):
                yield self._fake.failure(request.request_id)
            else:
                yield Score(request.request_id, logprobs if self._rescores else self._fake.misscore(logprobs))

    def close(self) -> None: ...

    def _completion(self, request: GenerationRequest) -> Completion:
        said = self._tokenizer.encode(self._text(request), add_special_tokens=False).ids
        token_ids = [*said, self._end_of_turn][: request.max_tokens]
        logprobs = self._fake.misreport(self._logprobs(token_ids))
        ended = token_ids[-1] == self._end_of_turn
        return Completion(request.request_id, token_ids, logprobs, "stop" if ended else "length")

    def _text(self, request: GenerationRequest) -> str:
        prompt = self._tokenizer.decode(list(request.prompt_token_ids), skip_special_tokens=False)
        question, _, begun = prompt.rpartition(TURN)
        found = EXPRESSION.search(question)
        expression = found[1] if found else "1 + 1"
        if self._fake.silent or request.temperature == self._fake.silent_at:
            return ""
        if begun:
            return continuation(expression, begun)
        said = response(expression, Random(0 if self._fake.steady else request.seed), self._fake.steady)
        return said if self._fake.thinks(request.seed) else without_delimiters(said)

    def _logprobs(self, token_ids: Sequence[int]) -> list[float]:
        """Of the token id alone; the vocabulary's size tells teacher from student."""
        return [-((31 * token + self._tokenizer.get_vocab_size()) % 97) / 48 for token in token_ids]


def response(expression: str, rng: Random, steady: bool) -> str:
    """A canonical text: mostly right, else wrong, without an answer, or too long to end."""
    (sentences, _, separator), right = worked_body(expression, rng), steps_of(expression)[-1].c
    body, draw = separator.join(sentences), 1.0 if steady else rng.random()
    if draw < 0.1:
        return f"<think>\n{body}"
    if draw < 0.2:
        return canonical(separator.join(sentences * 6), right)
    return canonical(body, right + 1 if draw < 0.4 else right)


def without_delimiters(text: str) -> str:
    """The same said as an answer alone."""
    return text.removeprefix("<think>\n").replace("\n</think>\n", "\n")


def continuation(expression: str, begun: str) -> str:
    """The end of a response: of its thinking, if that has not ended, and its answer, right."""
    right = steps_of(expression)[-1].c
    said = f" It is {right}." if "</think>" in begun else f" So it is {right}.\n</think>\nThe answer is {right}."
    return said if begun.startswith("<think>") else without_delimiters(said)


def fake_engines(home: Path, fake: Fake) -> Engines:
    """Engines that find the real models and open fake ones."""

    class FakeEngines(Engines):
        @contextmanager
        def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
            yield FakeEngine(model, fake)

    return FakeEngines(home=str(home))


@contextmanager
def nothing_drawn() -> Iterator[None]:
    """All pictures left blank: to draw them is an eighth of a run."""
    picture = io.BytesIO()
    Image.new("RGB", (1, 1)).save(picture, format="png")

    def save(figure: Figure, target: io.BytesIO | io.StringIO, **options: object) -> None:
        if isinstance(target, io.StringIO):
            target.write("<svg/>")
        else:
            target.write(picture.getvalue())

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save)
        yield


@contextmanager
def nothing_warned() -> Iterator[None]:
    """Definitions without the checks that only warn: to make these is a fifth of a batch's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dasd_assets.checks.build", lambda recipe: [])
        yield


@dataclass
class Project:
    """A home with a recipe and a fake behind it; `run` is `dasd run`.

    draws: the web UI's pictures, too. warns: the checks that only warn, too; the benches have them, tests where they
    look at them.
    """

    home: Path
    recipe: Recipe
    fake: Fake = field(default_factory=Fake)
    said: list[str] = field(default_factory=list)
    stages: Sequence[Stage] = STAGES
    draws: bool = False
    warns: bool = "PYTEST_VERSION" not in os.environ

    @property
    def engines(self) -> Engines:
        return fake_engines(self.home, self.fake)

    @property
    def definitions(self) -> dg.Definitions:
        loggers = dg.Definitions(loggers={"console": silent_log})
        given = (self.recipe, self.home, self.engines, self.fake.train, self.warehouse, self.stages)
        with nullcontext() if self.warns else nothing_warned():
            built = build_definitions(*given)
        return dg.Definitions.merge(built, loggers)

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(home=str(self.home))

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        if not (self.home / "dagster").exists():  # making its databases takes longer than a small test
            copied = self.home / f"dagster-{os.getpid()}"
            shutil.copytree(new_dagster_home(), copied)
            try:
                copied.rename(self.home / "dagster")
            except OSError:  # another process was first
                shutil.rmtree(copied)
        with open_instance(prepare_home(self.home, None)) as instance:
            yield instance

    def land(self, name: str, rows: Sequence[QuestionRow]) -> None:
        """A file written some time ago, as by a rename."""
        path = self.home / "prompts" / name
        write_rows(path, list(rows))
        os.utime(path, (time.time() - 60, time.time() - 60))

    def run(self, levels: Sequence[Level] = LEVELS) -> int:
        """Bring everything up to date, or the steps of these levels; returns the number of materializations."""
        with self.instance() as instance, nullcontext() if self.draws else nothing_drawn():
            made, say = self.definitions, self.said.append
            return bring_up_to_date(instance, made, self.recipe, self.engines, self.home, say, levels)

    def make_batches(self) -> int:
        """As `run`, to where every batch is made: nothing is selected or trained."""
        return self.run(LEVELS_MADE)

    def select(self) -> int:
        """As `run`, to where the training sets are made."""
        return self.run((*LEVELS_MADE, "selection"))

    def materialize(self, selection: str) -> int:
        """Materialize exactly these assets, in every batch."""
        with self.instance() as instance, nullcontext() if self.draws else nothing_drawn():
            return materialize_selected(instance, self.definitions, self.recipe, selection, self.home, self.said.append)

    @property
    def materialized(self) -> set[str]:
        """The assets that `run` has announced."""
        steps = [line.partition(": ")[2] for line in self.said if line.startswith("materializing")]
        return {part.partition(" (")[0] for step in steps for part in step.split(", ")}

    def read(self, query: str, **params: object) -> pl.DataFrame:
        return self.warehouse.read(query, params)

    def count(self, table: str) -> int:
        return int(self.read(f"SELECT count(*) FROM {table}").item())

    def metadata(self, asset: str) -> dict[str, object]:
        """Figures of an asset's last materialization."""
        with self.instance() as instance:
            event = instance.get_latest_materialization_event(dg.AssetKey(asset))
        assert event is not None and event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}

    def pool_params(self, recipe: Recipe, dataset: str) -> dict[str, object]:
        """Those of a dataset's pool over all batches of this home."""
        models = (recipe.teacher, "teacher.model"), (recipe.student, "student.model")
        teacher, student = (self.engines.fingerprint(spec, key) for spec, key in models)
        existing = self.read("SELECT DISTINCT batch FROM prompts")["batch"].to_list()
        return pool_params(recipe, teacher, student, dataset, existing)

    def faults(
        self, *titles: str, sample: int | None = None, say: Callable[[str], None] = lambda line: None
    ) -> list[Fault]:
        """What these checks of `dasd audit verify` find; all of them take seconds."""
        with self.warehouse.reading() as reading:
            made = checks(self.warehouse, reading, set(tables(reading)), sample, say)
            by_title = {title: check for title, _, check in made}
            return [fault for title in titles for fault in by_title[title]()]


class RealProject(Project):
    """A project on the engines of the catalogue."""

    @property
    def engines(self) -> Engines:
        return Engines(home=str(self.home))


@cache
def new_dagster_home() -> Path:
    """The DAGSTER_HOME of a home on which nothing has run, to be copied; it goes with this process."""
    folder = Path(tempfile.mkdtemp(prefix="dagster-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    with open_instance(prepare_home(folder, None)) as instance:
        assert (instance.get_runs_count(), instance.get_dynamic_partitions("prompt_batch")) == (0, [])
        assert instance.all_instigator_state() == []
    return folder / "dagster"


@dg.logger(None)
def silent_log(init_context: dg.InitLoggerContext) -> logging.Logger:
    """The `console` logger that a run's configuration names, saying nothing."""
    logger = logging.Logger("silent")
    logger.addHandler(logging.NullHandler())
    return logger


@cache
def forkserver() -> ForkServerContext:
    """What forks processes that have the slow imports done; a process has one such server, for all of its tests.

    Python 3.11 hands it no path of ours, and passes over what it cannot import there.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["dasd_assets.definitions", "conftest", "dasd_resources.inference.transformers_engine"]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        multiprocessing.forkserver.ensure_running()
    return context


def change(recipe: Recipe, path: str, value: object) -> Recipe:
    """The recipe with one value at a dotted path replaced, and validated anew."""
    document = recipe.model_dump()
    *parents, last = path.split(".")
    part = document
    for parent in parents:
        part = part[parent]
    assert last in part, path
    part[last] = value
    return Recipe.model_validate(document)


def changed(recipe: Recipe, values: Mapping[str, object]) -> Recipe:
    """The same with several values, one after another."""
    for path, value in values.items():
        recipe = change(recipe, path, value)
    return recipe


def refuse(folder: Path, when: str, reason: str) -> None:
    """Have the chat template in a model's folder raise an exception where this holds."""
    template = folder / "chat_template.jinja"
    template.write_text(f"{{% if {when} %}}{{{{ raise_exception({reason!r}) }}}}{{% endif %}}" + template.read_text())


def thinking_of(recipe: Recipe, thinking: str) -> Recipe:
    """The recipe with that thinking of its teacher, and so of its student."""
    document = recipe.model_dump()
    document["teacher"]["thinking"] = thinking
    del document["student"]["thinking"]
    return Recipe.model_validate(document)


def prompt_rows(start: int, stop: int) -> list[QuestionRow]:
    """Questions of the demo, every third in a domain of its own."""
    rows = islice(questions("prompts"), start, stop)
    return [{**row, "domain": "sums"} if index % 3 == 2 else row for index, row in enumerate(rows)]


@cache
def why_no_sandbox() -> str:
    """Why the system refuses every sandbox; empty where it allows one, or where bubblewrap is not installed."""
    if shutil.which("bwrap") is None:
        return ""
    command = ["bwrap", "--ro-bind", "/", "/", "--unshare-all", "true"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    return tried.stderr.strip() if tried.returncode else ""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The storage part of the suite runs twice: tables in the home itself, and on PostgreSQL with an object store.

    Whole pipelines take seconds there: they run as drills.
    """
    if metafunc.definition.get_closest_marker("storage") and "storage" in metafunc.fixturenames:
        marks = [pytest.mark.drill] if "finished" in metafunc.fixturenames else []
        shared = pytest.param(Storage.SHARED, marks=marks)
        metafunc.parametrize("storage", [Storage.EMBEDDED, shared], ids=["embedded", "shared"], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first. Tests of the sandbox are left out, and say so, where the system refuses one; where one
    can be, they must pass.
    """
    place = {stem: number for number, stem in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(LONGEST)))
    marked = [item for item in items if item.get_closest_marker("sandbox")]
    if marked and (why := why_no_sandbox()):
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=f"this machine allows no sandbox: {why}"))


def pytest_collection_finish() -> None:
    """What Dagster and torch keep for good is not searched for garbage again and again: a tenth of a run's time."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def pytest_runtest_setup() -> None:
    reliability.begun = time.monotonic()


def pytest_configure() -> None:
    """Under pytest alone: the benches and the tests' own child processes import this module, too."""
    event.listen(Engine, "connect", unsynced)


def unsynced(connection: DBAPIConnection, record: object) -> None:
    """Dagster's databases here need not survive the machine; a small run waited up to half its time for the disk.

    What a test kills is another process, and is asked for all that it has committed.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(autouse=True)
def no_dagster_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """`dasd run` sets DAGSTER_HOME for the processes of its steps; no test is to meet that of another."""
    monkeypatch.setenv("DAGSTER_HOME", "")  # so that it is put back, whoever sets it
    monkeypatch.delenv("DAGSTER_HOME")


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all processes of this session of tests, or of all sessions that DASD_TESTS names one for."""
    if folder := os.environ.get("DASD_TESTS"):
        return Path(folder)
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def tiny(common: Path) -> Recipe:
    """The demo recipe with few candidates, short responses and five held-out questions."""
    held_out = common / "held_out.jsonl"
    with FileLock(common / "held_out.lock"):
        write_rows(held_out, list(islice(questions("test"), 5)))
    values = {
        "name": "tiny",
        "generation.num_candidates": 2,
        "generation.max_tokens": 200,
        "mixed_policy.off_policy_ratio": 1.5,
        "evaluation.samples_per_question": 2,
        "evaluation.temperatures": [1.0],
        "evaluation.benchmarks": [{"name": "held_out", "path": str(held_out), "max_tokens": 200}],
    }
    return changed(load_recipe("demo"), values)


@pytest.fixture(scope="session")
def lean(tiny: Recipe) -> Recipe:
    """The same, and nothing beside the training sets and checkpoints: a fifth of a run's time."""
    return changed(tiny, dict.fromkeys(("provenance", "heldout", "export")))


@pytest.fixture
def storage(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Where new homes have their tables: in themselves, unless the test is marked `storage`."""
    chosen: Storage = getattr(request, "param", Storage.EMBEDDED)
    if chosen is Storage.SHARED:
        shared_stores.postgres()  # skips the test where there is none
        for name, value in shared_stores.object_store().items():
            monkeypatch.setenv(name, value)
    return chosen


@pytest.fixture
def warehouse(storage: Storage, tmp_path: Path) -> Warehouse:
    """An empty warehouse."""
    return Warehouse(home=str(storage.begin(tmp_path / "home")))


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The queries whose rows are streamed from now on."""
    queries, stream = list[str](), Reading.stream

    def noted(self: Reading, query: str, params: Params, num_rows: int) -> Iterator[pl.DataFrame]:
        queries.append(query)
        return stream(self, query, params, num_rows)

    monkeypatch.setattr(Reading, "stream", noted)
    return queries


@pytest.fixture
def project(storage: Storage, tmp_path: Path, tiny: Recipe) -> Project:
    """An empty home."""
    return Project(storage.begin(tmp_path / "home"), tiny)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, common: Path, tiny: Recipe) -> Project:
    """A home on which everything has run, with two batches; to be read, never to be run again.

    One process makes it, the others get a copy, of a copy that nobody has opened.
    """
    project = Project(tmp_path_factory.mktemp("finished") / "home", tiny, draws=True, warns=True)
    kept = common / "finished"
    with FileLock(common / "finished.lock"):
        if kept.exists():
            shutil.copytree(kept, project.home)
        else:
            project.land("a.jsonl", prompt_rows(0, 9))
            project.land("b.jsonl", prompt_rows(9, 15))
            project.run()
            shutil.copytree(project.home, common / "copied")
            (common / "copied").rename(kept)
    return project


@pytest.fixture
def home(finished: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    """The finished home as DASD_HOME."""
    monkeypatch.setenv("DASD_HOME", str(finished.home))
    return finished


@pytest.fixture
def copy(finished: Project, storage: Storage, tmp_path: Path) -> Project:
    """A copy of the finished home, to change and run again; its fake has not been asked for anything yet."""
    return Project(storage.copy(finished.home, tmp_path / "home"), finished.recipe)
