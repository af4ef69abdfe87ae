"""Preflight: a sound recipe passes; every fault is found by the look that is for it, without stopping the others."""

import json
import shutil
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import httpx
import polars as pl
import pytest
from conftest import FakeEngine, Project, change, prompt_rows
from stub_server import MODEL, Stub

from dasd_assets.cli import main
from dasd_assets.commands.check import PreflightResult, check
from dasd_assets.commands.check.landed import Prompts
from dasd_assets.commands.check.machine import disk, most_examples
from dasd_assets.commands.check.outcome import CheckFailed, CheckWarning
from dasd_assets.commands.check.training import gpu_processes, kernels_here, launcher
from dasd_assets.records.declaration import ENGINE_POOL
from dasd_assets.records.wording import size_of
from dasd_resources.inference.engine import Completion, Failure, InferenceEngine, Score
from dasd_resources.inference.engines import SECONDS_BY_HAND, Engines, PromptedModel
from dasd_resources.inference.gpus import visible_gpus
from dasd_resources.inference.model_files import count_weights
from dasd_resources.inference.openai_engine import OpenAIEngine
from dasd_resources.recipe import Landing, Recipe
from dasd_resources.storage.upkeep import table_sizes


def findings(project: Project, engines: Engines | None = None, quick: bool = False) -> dict[str, PreflightResult]:
    return {found.check: found for found in check(project.recipe, project.home, engines or project.engines, quick)}


def failed(found: dict[str, PreflightResult]) -> dict[str, str]:
    return {name: finding.message for name, finding in found.items() if finding.status == "failed"}


def test_a_sound_recipe_passes(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    found = findings(project)
    assert {finding.status for finding in found.values()} == {"ok"}
    assert found["prompts"].message.startswith("9 in ")
    assert "for 36 responses of at most 200 tokens and the training sets" in found["disk"].message
    assert found["teacher logprobs"].message.startswith("8 tokens sampled and scored again, 0 nats")
    assert found["teacher thinking"].message == "3 of 3 answers have a thinking part"
    assert "student thinking" not in found
    assert not (project.home / "catalog.sqlite").exists()


def test_quick_loads_no_engine(project: Project) -> None:
    found = findings(project, quick=True)
    assert project.fake.generated == project.fake.scored == []
    assert {name for name in found if name.endswith("logprobs")} == set()
    assert found["prompts"].status == "warning"


@pytest.mark.parametrize(
    ("path", "value", "look", "message"),
    [
        ("teacher.model", "/nowhere", "teacher", "no folder /nowhere"),
        ("generation.max_tokens", 10**6, "teacher context", "generation.max_tokens 1,000,000 and the longest prompt"),
        ("training.max_length", 10**6, "student context", "training.max_length 1,000,000 exceeds the context"),
        ("training.launcher", ["no-such-launcher"], "launcher", "no command no-such-launcher"),
        (
            "training.attn_implementation",
            "flash_attention_2",
            "attention",
            f"need flash_attn: {sys.executable} -m pip install 'dasd[flash-attn]' --no-build-isolation, or",
        ),
        ("training.attn_implementation", "flash_attention_3", "attention", "need flash_attn_interface"),
        ("generation.num_candidates", 10**9, "disk", "make room"),
        ("evaluation.benchmarks", [{"name": "x", "path": "/no.jsonl", "max_tokens": 9}], "benchmark x", "no such file"),
    ],
)
def test_each_fault_is_found_and_nothing_else(
    project: Project, path: str, value: object, look: str, message: str
) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    project.recipe = change(project.recipe, path, value)
    (found,) = failed(findings(project, quick=True)).items()
    assert found[0] == look
    assert message in found[1]


def test_room_is_needed_for_a_training_while_it_runs(project: Project) -> None:
    """Three saves of its state; of 9 responses of 200 tokens the file, and ids and labels in Arrow."""
    project.land("a.jsonl", prompt_rows(0, 9))
    assert not project.recipe.training.packing
    num_weights = count_weights(Path(project.recipe.student.model))
    expected = size_of(3 * 12 * num_weights + 9 * 200 * (4 + 8))
    assert f"{expected} while the largest stage trains" in findings(project, quick=True)["disk"].message


def test_what_the_home_has_already_takes_no_more_room(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    student = project.engines.find(project.recipe.student, "student.model")
    landed = Prompts(9, None, frozenset({"general"}))

    def is_enough(free: int) -> bool:
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
        try:
            return bool(disk(project.recipe, project.home, student, landed))
        except CheckFailed:
            return False

    total = bisect_left(range(2**40), True, key=is_enough)
    weights = project.home / "checkpoints" / "one" / "model.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    scored = {"batch": "b", "student_fingerprint": "s", "engine": "e", "dtype": "float32", "logprobs": [-0.5]}
    with project.warehouse.commit("test") as transaction:
        rows = pl.DataFrame([{"response_id": str(number), **scored} for number in range(20)])
        transaction.replace("student_logprobs", {}, rows)
    sizes = {row["table_name"]: row["num_bytes"] for row in table_sizes(project.warehouse).iter_rows(named=True)}
    left = total - len(b"weights") - sizes["student_logprobs"]
    assert sizes["student_logprobs"] > 0
    assert is_enough(left) and not is_enough(left - 1)


def test_no_more_is_trained_on_than_the_policy_and_the_budgets_let_through(project: Project) -> None:
    landed = Prompts(9, None, frozenset({"general", "math"}))
    assert most_examples(project.recipe, "t060", landed) == 9
    several = change(project.recipe, "selection.policy", "top_k")
    assert most_examples(several, "t060", landed) == 9 * several.generation.num_candidates
    budgets = {"t060": {"general": 3, "math": 4, "code": 5}, "t100": {"general": 3}}
    limited = change(several, "selection.budgets", budgets)
    assert most_examples(limited, "t060", landed) == 7
    assert most_examples(limited, "t100", landed) == 9 * several.generation.num_candidates


def test_it_is_said_which_of_the_experiments_that_a_recipe_names_it_cannot_make(project: Project) -> None:
    project.recipe = change(project.recipe, "experiments", ["table_7", "one_procedure"])
    found = findings(project, quick=True)["experiments"]
    assert found.status == "warning" and found.message.startswith("one_procedure.yaml: arms.random.0.matching: ")
    project.recipe = change(project.recipe, "experiments", ["table_7"])
    assert findings(project, quick=True)["experiments"] == PreflightResult("experiments", "ok", "table_7")


def test_a_benchmarks_own_longest_question_counts_and_no_landed_prompt(project: Project) -> None:
    """An answer to a held-out question fits, whatever has landed; and a long held-out one does not, whatever has."""
    project.land("a.jsonl", [{**prompt_rows(0, 1)[0], "question": "1 + 1 = " * 2000}])
    found = findings(project, quick=True)
    assert "generation.max_tokens 200 and the longest prompt's" in failed(found)["teacher context"]
    assert found["student context"].status == "warning"
    assert "a rollout may have 768 tokens" in found["student context"].message

    held_out = project.home / "long.jsonl"
    held_out.write_text(json.dumps({**prompt_rows(0, 1)[0], "question": "1 + 1 = " * 2000}))
    benchmark = {"name": "long", "path": str(held_out), "max_tokens": 9}
    project.recipe = change(project.recipe, "evaluation.benchmarks", [benchmark])
    project.land("a.jsonl", prompt_rows(0, 9))
    found = findings(project, quick=True)
    assert set(failed(found)) == {"teacher context", "student context"}
    assert "long's max_tokens 9 and its longest question's" in found["student context"].message


def test_responses_too_long_to_be_scored_are_doubtful(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    project.recipe = change(project.recipe, "filters.apply", "after_selection")
    assert findings(project, quick=True)["student context"].status == "ok"
    project.recipe = change(project.recipe, "generation.max_tokens", 10**6)
    found = findings(project, quick=True)["student context"]
    assert found.status == "warning"
    assert found.message.endswith("such responses cannot be scored")


@pytest.mark.parametrize(("engine", "status"), [("transformers", "ok"), ("vllm", "warning")])
def test_a_sequence_as_long_as_the_context_is_scored_by_transformers_alone(
    project: Project, engine: str, status: str
) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    for path, value in {"student.engine": engine, "filters.apply": "after_selection"}.items():
        project.recipe = change(project.recipe, path, value)
    student = project.engines.find(project.recipe.student, "student.model")
    prompt = max(len(student.chat.prompt_ids(row["question"])) for row in prompt_rows(0, 9))
    project.recipe = change(project.recipe, "generation.max_tokens", student.context - prompt)
    found = findings(project, quick=True)["student context"]
    assert found.status == status
    assert status == "ok" or f"{prompt} and 1 that scoring needs for itself exceed the context of" in found.message


def test_what_is_not_read_is_a_warning(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 3))
    (project.home / "prompts" / "b.JSONL").write_text("{}")
    found = findings(project, quick=True)["prompts"]
    assert found.status == "warning"
    assert found.message.endswith(
        "1 not read ('b.JSONL': its suffix must be in lower case: rename it to end in .jsonl)"
    )
    project.materialize("teacher_model")
    assert any("1 not read ('b.JSONL': its suffix" in line for line in project.said)


def test_a_mapping_is_compared_with_the_first_rows_of_the_files_it_fits(project: Project) -> None:
    project.land("mapped.jsonl", [{"problem": "1 + 1?", "answer": "2", "info": {"year": 1}}])
    for columns, message in (
        ({"where": "mapped*", "question": "problem", "metadata": ["info.year"]}, None),
        (
            {"where": "mapped*", "question": ["text", "problem"], "metadata": ["info.month"]},
            "1 rows has info.month; their",
        ),
        (
            {"where": "mapped*", "question": "problm"},
            "none of the first 1 rows has problm; their keys are ['answer', 'inf",
        ),
        ({"where": "other*", "ready": "gsm8k"}, "landing.columns.0 fits no landed file: other*"),
    ):
        project.recipe = project.recipe.model_copy(update={"landing": Landing.model_validate({"columns": columns})})
        found = findings(project, quick=True)
        assert found["columns"].status == ("ok" if message is None else "warning"), found["columns"].message
        assert (message or "1 files are mapped") in found["columns"].message


def test_an_engine_option_may_lower_the_context(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    teacher = {**project.recipe.teacher.model_dump(), "engine": "vllm", "engine_options": {"max_model_len": 200}}
    project.recipe = change(project.recipe, "teacher", teacher)
    found = failed(findings(project, quick=True))
    assert found.keys() - {"teacher"} == {"teacher context"}  # `teacher` too where vLLM is not installed
    assert "exceed the context of 200" in found["teacher context"]


def test_the_gpus_of_all_replicas_are_counted(project: Project) -> None:
    project.recipe = change(project.recipe, "student.replicas", 99)
    found = findings(project, quick=True)
    assert "teacher GPUs" not in found
    if visible_gpus():
        assert failed(found)["student GPUs"].startswith("replicas: 99, each on 1 GPU, exceed the ")
    else:
        assert found["student GPUs"].status == "warning"
        assert found["student GPUs"].message == "99 are wanted, and there is none here"


def test_a_budget_for_a_domain_that_did_not_land_is_doubtful(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    project.recipe = change(project.recipe, "selection.budgets", {"t060": {"sums": 3, "maths": 4}, "t100": {"sums": 3}})
    found = findings(project, quick=True)["budgets"]
    assert found.status == "warning"
    assert found.message.startswith("selection.budgets names maths, of which nothing has landed; there are ")
    project.recipe = change(project.recipe, "selection.budgets", {"t060": {"sums": 3}, "t100": {"sums": 3}})
    assert findings(project, quick=True)["budgets"].message.startswith("all of ")
    for key, value in (("questions_per_domain", {"maths": 3}), ("instructions", {"maths": "Box it."})):
        other = change(project.recipe, f"generation.{key}", value)
        found = findings(replace(project, recipe=other), quick=True)["budgets"]
        assert found.message.startswith(f"generation.{key} names maths, of which nothing has landed; there are ")


def test_a_dataset_without_a_budget_is_doubtful_where_another_has_one(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    project.recipe = change(project.recipe, "selection.budgets", {"t060": {"sums": 3, "math": 3}})
    found = findings(project, quick=True)["budgets"]
    assert found.status == "warning"
    assert found.message.startswith("t100 has no budget: all its responses are kept. ")
    project.recipe = change(project.recipe, "selection.budgets", {})
    assert findings(project, quick=True)["budgets"].status == "ok"


def test_rollouts_beyond_the_context_are_doubtful(project: Project) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    project.recipe = change(project.recipe, "mixed_policy.length_cap", 1000.0)
    found = findings(project, quick=True)["student context"]
    assert found.status == "warning"
    assert found.message.startswith("a rollout may have 512,000 tokens (mixed_policy.length_cap times")


def test_rejected_prompts_are_counted_with_the_first_reasons(project: Project) -> None:
    folder = project.home / "prompts"
    folder.mkdir(parents=True)
    good = json.dumps(prompt_rows(0, 1)[0])
    (folder / "a.jsonl").write_text("\n".join([good, *["{}"] * 5, "nonsense"]))
    message = findings(project, quick=True)["prompts"].message
    assert message.startswith("1 in ")
    assert "6 rejected: a.jsonl:2: question is missing" in message
    assert message.count("a.jsonl:") == 3


def faulty(project: Project, kind: str) -> Engines:
    """Engines whose student fails in one way."""

    class Faulty(FakeEngine):
        def generate(self, requests):  # type: ignore[no-untyped-def]
            for result in super().generate(requests):
                yield Failure("check", "out of memory") if kind == "fails" else result

        def score(self, requests):  # type: ignore[no-untyped-def]
            for result in super().score(requests):
                assert isinstance(result, Score)
                yield replace(result, logprobs=[p - 1 for p in result.logprobs]) if kind == "lies" else result

        def _completion(self, request):  # type: ignore[no-untyped-def]
            made = super()._completion(request)
            return Completion(made.request_id, made.token_ids, made.logprobs[:-1], "stop") if kind == "lacks" else made

    class FaultyEngines(Engines):
        @contextmanager
        def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
            if kind == "is absent":
                raise ConnectionError("connection refused")
            yield Faulty(model, project.fake)

    return FaultyEngines(home=str(project.home))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("fails", "it generated nothing: out of memory"),
        ("lies", "1 nats apart on average: more than 0.3"),
        ("lacks", "8 tokens but 7 logprobs"),
        ("is absent", "ConnectionError: connection refused"),
    ],
)
def test_an_engine_is_asked_for_logprobs(project: Project, kind: str, message: str) -> None:
    found = failed(findings(project, faulty(project, kind)))
    assert set(found) == {"teacher logprobs", "student logprobs"}
    assert all(message in reason for reason in found.values())


def served(project: Project) -> Engines:
    """The student on a fake engine, the teacher behind a server that takes 512 tokens."""

    class ServedEngines(Engines):
        @contextmanager
        def open(self, model: PromptedModel) -> Iterator[InferenceEngine]:
            if model.spec.server is None:
                yield FakeEngine(model, project.fake)
                return
            assert model.spec.server.patience_s <= SECONDS_BY_HAND
            transport = httpx.MockTransport(Stub(model.chat).over_network)
            with closing(OpenAIEngine(model.spec.server, model.chat, None, transport)) as engine:
                yield engine

    return ServedEngines(home=str(project.home))


@pytest.mark.parametrize("max_tokens", [200, 600])
def test_a_servers_context_is_compared_with_what_is_asked_of_it(project: Project, max_tokens: int) -> None:
    project.land("a.jsonl", prompt_rows(0, 9))
    server = {"base_urls": ["http://a.test/v1"], "model": MODEL, "revision": "1"}
    teacher = {**project.recipe.teacher.model_dump(), "engine": "openai", "server": server}
    project.recipe = change(change(project.recipe, "teacher", teacher), "generation.max_tokens", max_tokens)
    found = findings(project, served(project))["teacher logprobs"]
    if max_tokens == 200:
        assert found.status == "ok"
        assert "; 512 tokens, of which " in found.message
    else:
        assert found.status == "failed"
        assert found.message.startswith("generation.max_tokens 600 and the longest prompt's ")
        assert found.message.endswith(" exceed the context of 512")


def test_whose_tokenizer_is_in_use_is_said(project: Project, tmp_path: Path) -> None:
    assert findings(project, quick=True)["teacher tokenizer"].message == "tokenizer.json's own"
    teacher = tmp_path / "model"
    shutil.copytree(project.recipe.teacher.model, teacher)
    config = teacher / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tokenizer_class": "LlamaTokenizer"}))
    project.recipe = change(project.recipe, "teacher.model", str(teacher))
    found = findings(project, quick=True)["teacher tokenizer"]
    assert found.status == "ok"
    assert found.message.startswith("tokenizer.json in place of its class: LlamaTokenizer cuts ")
    file = teacher / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "normalizer": {"type": "NFKC"}}))
    found = findings(project, quick=True)["teacher tokenizer"]
    assert found.status == "warning"
    assert "; its normalizer rewrites " in found.message


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("DASD_HOME", str(tmp_path))
    assert main(["check", "--recipe", "demo", "--quick"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 25
    assert all(line.startswith(("ok ", "warning ")) for line in lines)
    assert main(["check", "--recipe", "dasd-4b", "--quick", "--json"]) == 1
    found = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["teacher"]["status"] == "failed"
    assert found["disk"]["status"] == "unknown"  # the student is not here


def test_a_home_has_a_run_for_each_model_that_was_loaded_in_the_engine_slot(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.land("a.jsonl", prompt_rows(0, 3))
    monkeypatch.setenv("DASD_HOME", str(project.home))
    with project.instance() as instance:
        assert main(["check", "--recipe", "demo", "--json", "--quick"]) == 0
        assert instance.get_runs() == []
        capsys.readouterr()
        assert main(["check", "--recipe", "demo", "--json"]) == 0
        assert {run.job_name: run.status for run in instance.get_runs()} == {"check": dg.DagsterRunStatus.SUCCESS}
        assert instance.get_runs_count() == 2
        assert instance.event_log_storage.get_concurrency_info(ENGINE_POOL).claimed_slots == []
    found = {finding["check"]: finding for finding in json.loads(capsys.readouterr().out)}
    assert found["teacher logprobs"]["status"] == found["student logprobs"]["status"] == "ok"


@pytest.mark.sandbox
def test_the_sandbox_is_tried_where_a_question_needs_one(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.land("a.jsonl", prompt_rows(0, 3))
    assert "sandbox" not in findings(project, quick=True)
    tests = json.dumps({"inputs": ["4"], "outputs": ["8"]})
    project.land("b.jsonl", [{"question": "Double it.", "verifier": "code", "reference_answer": tests}])
    found = findings(project, quick=True)["sandbox"]
    assert (found.status, found.message[:25]) == ("ok", "a program ran in it; 10 s"), found
    project.recipe = change(project.recipe, "verification.sandbox", "unsafe")
    found = findings(project, quick=True)["sandbox"]
    assert (found.status, found.message[:30]) == ("warning", "verification.sandbox is unsafe")
    task = {"reference_answer": "1 + 2", "metadata": {"numbers": [1, 2], "target": 3}}
    project.land("c.jsonl", [{"question": "Come to 3.", "verifier": "reasoning_gym:countdown", **task}])
    monkeypatch.setattr("dasd_resources.verifiers.catalogue.PRELOAD", ("no_such_module",))
    found = findings(project, quick=True)["sandbox"]
    assert found.status == "failed" and "No module named 'no_such_module'" in found.message


@pytest.mark.parametrize(
    ("command", "processes"),
    [
        ("accelerate launch --num_processes 8", 8),
        ("accelerate launch --num-processes=8 --use_fsdp", 8),
        ("accelerate launch --num_processes 16 --num_machines 2", 8),
        ("accelerate launch --cpu --num_processes 8", 1),
        ("torchrun --nproc-per-node 4", 4),
        ("torchrun --nproc_per_node=gpu", 1),
        ("accelerate launch", 1),
        ("python", 1),
    ],
)
def test_a_launchers_processes_take_a_gpu_each(command: str, processes: int) -> None:
    assert gpu_processes(command.split()) == processes


def test_kernels_are_fetched_or_refused(tmp_path: Path) -> None:
    fetched: list[Path] = []
    assert kernels_here(tmp_path, True, fetched.append) == "in the hub's cache"
    assert fetched == [tmp_path]

    def offline(model: Path) -> None:
        raise ConnectionError("no route")

    with pytest.raises(CheckFailed, match=r"cannot be fetched \(ConnectionError: no route\).* use_kernels: false"):
        kernels_here(tmp_path, True, offline)
    assert "run dasd check there" in kernels_here(tmp_path, False, offline)


def test_a_strategy_shows_its_settings(tmp_path: Path, tiny: Recipe) -> None:
    strategy = {"strategy": "fsdp2", "gpus_per_node": 2}
    training = tiny.training.model_copy(update=strategy)
    found = findings(Project(tmp_path, tiny.model_copy(update={"training": training})), quick=True)["launcher"]
    assert found.status == "failed"
    assert "gpus_per_node is 2, and there are 0 GPUs here" in found.message
    assert "fsdp2, 2 processes: 1 node of 2 GPUs; accelerate launch with {compute_environment" in found.message
    assert "fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP" in found.message


def test_bins_that_hold_more_than_the_batch_are_a_warning(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dasd_assets.commands.check.training.visible_gpus", lambda: [str(gpu) for gpu in range(32)])
    packed = {"packing": True, "batch_counts": "samples", "global_batch_size": 64, "group_by_length": False}
    strategy = {"strategy": "fsdp2", "gpus_per_node": 32, "per_device_batch_size": 1}
    recipe = tiny.model_copy(update={"training": tiny.training.model_copy(update=packed | strategy)})
    with pytest.raises(CheckWarning, match=r"32 bins, so training.global_batch_size 64 .* no more than 2.0 samples"):
        launcher(recipe)


def test_more_processes_than_gpus_are_a_failure(tmp_path: Path, tiny: Recipe) -> None:
    training = tiny.training.model_copy(update={"launcher": ("python", "--num_processes", "8")})
    found = findings(Project(tmp_path, tiny.model_copy(update={"training": training})), quick=True)["launcher"]
    assert found.status == "failed"
    assert "starts 8 processes here, each on a GPU of its own, and there are 0" in found.message


def test_what_cannot_be_known_is_not_called_well(tmp_path: Path, tiny: Recipe) -> None:
    absent = tiny.student.model_copy(update={"model": "someone/not-here"})
    (benchmark, *_) = tiny.evaluation.benchmarks
    gone = benchmark.model_copy(update={"path": str(tmp_path / "gone.jsonl")})
    evaluation = tiny.evaluation.model_copy(update={"benchmarks": (gone,)})
    found = findings(
        Project(tmp_path, tiny.model_copy(update={"student": absent, "evaluation": evaluation})), quick=True
    )
    assert (found["student"].status, found[f"benchmark {gone.name}"].status) == ("failed", "failed")
    assert (found["disk"].status, found["teacher context"].status) == ("unknown", "unknown")
    assert "its file is at fault" in found["teacher context"].message
