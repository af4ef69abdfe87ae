"""The catalogue of engines: an engine is one entry, and its name stands nowhere else."""

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
import pytest
from conftest import Fake, FakeEngine, Project, RealProject, change, prompt_rows

from dasd_assets.commands.check import check
from dasd_assets.commands.run import RunFailed
from dasd_assets.records.partitions import batches
from dasd_assets.service.jobs import executor
from dasd_assets.service.staleness import comparison
from dasd_resources.inference.engine import (
    Completion,
    Failure,
    GenerationRequest,
    InferenceEngine,
    Score,
    ScoringRequest,
)
from dasd_resources.inference.engine_catalogue import ENGINES, ApiKey, EngineEntry
from dasd_resources.inference.engines import Engines, PromptedModel
from dasd_resources.inference.kept_loaded import free_kept_engine
from dasd_resources.recipe import Recipe, load_recipe
from dasd_resources.sft.checkpoint import Progress, Trained
from dasd_resources.sft.trainer import SftJob
from dasd_resources.storage.warehouse import Transaction, Warehouse

ROOT = Path(__file__).parents[1]
NAME = "chain_sums"
NUM_BATCHES = 2
WITHOUT_MODEL = (
    "prompts",
    "student_tokens",
    "response_verdicts",
    "sentence_probabilities",
    "sentence_types",
    "response_scores",
)
# Modules that are about one engine, and the catalogue.
OWN_MODULES = ["engine_catalogue.py", *(f"{name}_engine.py" for name in ENGINES), "openai_replies.py", "vllm_log.py"]
# The package of that name, not the engine: its version is recorded, and its tokenizers decide a fingerprint.
PACKAGES = {("stage_training.py", "transformers"), ("engines.py", "transformers"), ("ray_node.py", "transformers")}


class ChainSums(FakeEngine):
    """The fake engine, as an entry of the catalogue loads it."""

    def __init__(self, model: PromptedModel) -> None:
        super().__init__(model, Fake())


class TellingChainSums(ChainSums):
    """Tells of each request before it answers, and gives the failure that it is told, if any.

    asked: of the model's role, the request's id, and what it is asked: `samples at 0.6`, `scores`, `scores again`
    (for a check).
    """

    def __init__(self, model: PromptedModel, asked: Callable[[str, str, str], Failure | None]) -> None:
        super().__init__(model)
        self.model, self.asked = model, asked

    def generate(self, requests: Sequence[GenerationRequest]) -> Iterator[Completion | Failure]:
        for request in requests:
            failed = self.asked(self.model.path.name, request.request_id, f"samples at {request.temperature}")
            yield from [failed] if failed else super().generate([request])

    def score(self, requests: Sequence[ScoringRequest]) -> Iterator[Score | Failure]:
        what = "scores again" if self.model.spec.engine_options else "scores"
        for request in requests:
            failed = self.asked(self.model.path.name, request.request_id, what)
            yield from [failed] if failed else super().score([request])


@pytest.fixture
def loaded() -> list[dict[str, object]]:
    """The engine options of every model that the test's engine has loaded."""
    return []


@pytest.fixture
def entry(loaded: list[dict[str, object]]) -> Iterator[EngineEntry]:
    """An engine that this test adds to the catalogue."""

    def load(model: PromptedModel, api_key: ApiKey) -> InferenceEngine:
        loaded.append(dict(model.spec.engine_options))
        return ChainSums(model)

    ENGINES[NAME] = EngineEntry(
        ui_kind="python",
        load=load,
        holds_gpu_until_exit=False,
        quantisation_options=("num_bits",),
        context_option="longest",
        plain_scoring_options={"one_at_a_time": True},
    )
    yield ENGINES[NAME]
    del ENGINES[NAME]


@contextmanager
def slow_to_load(load: Callable[[PromptedModel, ApiKey], InferenceEngine]) -> Iterator[None]:
    """The test's engine in the catalogue, as one that takes long to load: batches are made in rounds."""
    ENGINES[NAME] = EngineEntry(
        ui_kind="python",
        load=load,
        holds_gpu_until_exit=True,
        quantisation_options=(),
        context_option=None,
        plain_scoring_options={"one_at_a_time": True},
    )
    try:
        yield
    finally:
        del ENGINES[NAME]


def on_engine(recipe: Recipe) -> Recipe:
    """Teacher, student and both parity checks on the test's engine."""
    for path in ("teacher.engine", "student.engine", "parity.teacher.engine", "parity.student.engine"):
        recipe = change(recipe, path, NAME)
    return recipe


@pytest.fixture
def own(project: Project, entry: EngineEntry) -> RealProject:
    return RealProject(project.home, on_engine(project.recipe))


def test_an_engine_defined_here_samples_scores_and_checks(own: RealProject, loaded: list[dict[str, object]]) -> None:
    own.land("a.jsonl", prompt_rows(0, 9))
    own.make_batches()
    assert own.read("SELECT DISTINCT engine FROM responses")["engine"].to_list() == [NAME]
    assert own.read("SELECT DISTINCT engine FROM student_logprobs")["engine"].to_list() == [NAME]
    assert own.count("responses") == 36
    assert {} in loaded and {"one_at_a_time": True} in loaded
    with own.instance() as instance:
        for asset, name in (("teacher_generations_t060", "prefill_parity"), ("student_logprobs", "engine_parity")):
            key = dg.AssetCheckKey(dg.AssetKey(asset), name)
            [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
            evaluation = record.event.dagster_event.asset_check_evaluation_data
            assert evaluation.passed
            assert evaluation.metadata["rescored_by"].value == f"{NAME} in float32, one sequence at a time"


class KeepingProject(RealProject):
    """The same, where models stay loaded from step to step."""

    @property
    def engines(self) -> Engines:
        return Engines(home=str(self.home), keep_loaded_seconds=600.0)


class SlowWarehouse(Warehouse):
    """One where all that needs no model takes so long that an idle model is freed meanwhile."""

    @contextmanager
    def commit(self, origin: str) -> Iterator[Transaction]:
        if any(f'"{asset}"' in origin for asset in WITHOUT_MODEL):
            free_kept_engine()
        with super().commit(origin) as transaction:
            yield transaction


class SlowProject(KeepingProject):
    """The same, over such a warehouse."""

    @property
    def warehouse(self) -> Warehouse:
        return SlowWarehouse(home=str(self.home))


@dataclass
class Untrained(Fake):
    def train(self, job: SftJob, on_progress: Callable[[Progress], None]) -> Trained:
        raise RuntimeError("all batches are made")


def test_of_many_batches_each_model_is_loaded_once_to_work_and_once_to_be_checked(
    own: RealProject, entry: EngineEntry
) -> None:
    """Made batch by batch, the teacher alone would be loaded four times for each; and an idle model is freed."""
    loads = Counter[tuple[str, bool]]()

    def load(model: PromptedModel, api_key: ApiKey) -> InferenceEngine:
        loads[model.path.name, bool(model.spec.engine_options)] += 1
        return ChainSums(model)

    ENGINES[NAME] = replace(entry, load=load, holds_gpu_until_exit=True)
    project = SlowProject(own.home, own.recipe, Untrained())
    for number in range(NUM_BATCHES):
        project.land(f"{number}.jsonl", prompt_rows(3 * number, 3 * number + 3))
    with pytest.raises(RunFailed, match="all batches are made"):
        project.run()
    free_kept_engine()
    assert loads == {(role, checks): 1 for role in ("teacher", "student") for checks in (False, True)}
    scored = project.read("SELECT batch, count(*) AS number FROM response_scores GROUP BY batch")
    assert scored.height == NUM_BATCHES and scored["number"].min() > 0
    with project.instance() as instance:
        left = comparison(instance, project.definitions, batches(instance), {}).found
    assert not [one for one in left if one.batch], "the checks have passed, and nothing of a batch is left to make"


def test_an_entry_says_what_the_web_ui_and_the_executor_show(own: RealProject, entry: EngineEntry) -> None:
    kinds = own.definitions.resolve_asset_graph().get(dg.AssetKey("student_logprobs")).kinds
    assert kinds == {"ducklake", "python"}
    assert executor(own.recipe, own.home).name == "in_process"
    ENGINES[NAME] = replace(entry, holds_gpu_until_exit=True)
    assert executor(own.recipe, own.home).name == "multiprocess"
    demo = load_recipe("demo")
    assert executor(demo, own.home).name == "in_process"
    assert executor(change(demo, "parity.student.engine", NAME), own.home).name == "multiprocess"


def test_an_entry_says_what_the_preflight_asks(own: RealProject, entry: EngineEntry) -> None:
    def look(name: str, quick: bool = True) -> str:
        return next(
            f"{f.status}: {f.message}" for f in check(own.recipe, own.home, own.engines, quick) if f.check == name
        )

    own.land("a.jsonl", prompt_rows(0, 9))
    assert look("teacher").startswith("ok")
    assert look("teacher logprobs", quick=False).endswith("apart on average")
    own.recipe = change(own.recipe, "teacher.engine_options", {"longest": 200})
    assert "exceed the context of 200" in look("teacher context")
    ENGINES[NAME] = replace(entry, served_context=lambda engine: 100)
    assert "exceed the context of 100" in look("teacher logprobs", quick=False)
    ENGINES[NAME] = replace(entry, package="no_such_package", install="pip install it")
    assert look("teacher") == f"failed: engine {NAME} is not installed: pip install it, or another engine"


def test_an_entry_says_what_enters_the_fingerprint(own: RealProject) -> None:
    def fingerprint(**options: object) -> str:
        spec = own.recipe.teacher.model_copy(update={"engine_options": options})
        return own.engines.find(spec, "teacher.model").fingerprint

    assert fingerprint() == fingerprint(num_bits=None) == fingerprint(quantization="fp8")
    assert fingerprint(num_bits=4) != fingerprint()


def test_a_served_engine_neither_runs_a_student_nor_rescores(own: RealProject, entry: EngineEntry) -> None:
    ENGINES[NAME] = replace(entry, served=True)
    demo = load_recipe("demo")
    with pytest.raises(ValueError, match=f"engine: {NAME} needs a server part"):
        change(demo, "teacher.engine", NAME)
    with pytest.raises(ValueError, match="cannot re-score; must be one of own, vllm, transformers"):
        change(demo, "parity.teacher.engine", NAME)
    server = {"base_urls": ["http://a.test/v1"], "model": "m", "revision": "1"}
    with pytest.raises(ValueError, match=f"server is for engine: openai or {NAME}; this model runs on vllm"):
        change(demo, "teacher", {**demo.teacher.model_dump(), "engine": "vllm", "server": server})
    with pytest.raises(ValueError, match=r"student\.engine must be vllm or transformers: its checkpoints"):
        change(demo, "student", {**demo.student.model_dump(), "engine": NAME, "server": server})


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="no such engine; must be one of vllm, transformers, openai"):
        change(load_recipe("demo"), "teacher.engine", NAME)
    with pytest.raises(ValueError, match="cannot re-score; must be one of own, vllm, transformers"):
        change(load_recipe("demo"), "parity.teacher.engine", NAME)


def test_a_recipe_is_validated_without_loading_an_engine() -> None:
    code = """if True:
        import sys
        from dasd_resources.recipe import load_recipe
        load_recipe("dasd-4b")
        print(sorted({"torch", "vllm", "httpx", "dagster", "transformers", "numpy"} & set(sys.modules)))"""
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    assert done.stdout.strip() == "[]"


def literals(path: Path) -> Iterator[str]:
    """The strings of a module without its docstrings, parts of f-strings included."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = [node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in statements:
            yield node.value


def names_in(text: str) -> set[str]:
    """The engines that a string names: it is the name, or speaks of `engine: name`."""
    return {name for name in ENGINES if text == name or re.search(rf"engine:? {name}\b", text)}


def test_every_engines_module_has_its_entry() -> None:
    modules = (ROOT / "dasd_resources" / "inference").glob("*_engine.py")
    assert {path.stem.removesuffix("_engine") for path in modules} == set(ENGINES)


def test_no_module_but_an_engines_own_names_an_engine() -> None:
    modules = [path for package in ("dasd_assets", "dasd_resources") for path in (ROOT / package).rglob("*.py")]
    assert {"rescoring.py", "jobs.py", "contexts.py", "model_settings.py"} <= {path.name for path in modules}
    found = {
        (path.name, name)
        for path in modules
        if path.name not in OWN_MODULES
        for text in literals(path)
        for name in names_in(text)
    }
    assert found <= PACKAGES


def test_the_guard_finds_names_in_comparisons_and_messages(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""engine: vllm"""\nif spec.engine == "vllm":\n    raise ValueError(f"engine: openai is {1}")\n')
    assert [names_in(text) for text in literals(module) if names_in(text)] == [{"vllm"}, {"openai"}]
