"""The jobs: what each makes, and in which processes."""

from pathlib import Path

import dagster as dg
import pytest
from conftest import change

from dasd_assets.definitions import build_definitions
from dasd_assets.service.jobs import executor
from dasd_resources.recipe import Recipe, load_recipe


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_definitions(load_recipe("demo"), tmp_path_factory.mktemp("home"))


def assets(definitions: dg.Definitions, job: str) -> set[str]:
    keys = definitions.resolve_job_def(job).asset_layer.executable_asset_keys
    return {key.to_user_string() for key in keys}


def test_data_and_training_are_everything_and_share_nothing(definitions: dg.Definitions) -> None:
    data, training = assets(definitions, "data_only"), assets(definitions, "train_only")
    assert {"teacher_model", "prompts", "response_scores", "random_responses", "sft_dataset_t100"} <= data
    assert {"checkpoint_mixed", "mixed_policy_dataset", "evaluations", "benchmark_questions"} <= training
    assert data.isdisjoint(training)
    assert data | training == assets(definitions, "everything")


def test_an_ablation_neither_generates_nor_scores(definitions: dg.Definitions) -> None:
    found = assets(definitions, "ablation")
    assert {"selected_responses_t060", "random_responses", "checkpoint_t100", "evaluations"} <= found
    assert not found & {"teacher_generations_t060", "student_logprobs", "checkpoint_mixed", "student_rollouts"}
    assert definitions.resolve_job_def("ablation").partitions_def is None


def test_blocking_checks_belong_to_the_jobs_and_the_quarantines_does_not(definitions: dg.Definitions) -> None:
    steps = {node.name for node in definitions.resolve_job_def("data_only").nodes}
    checks = {name for name in steps if "parity" in name}
    assert checks
    assert not any("quarantined" in name for name in steps)


def test_steps_share_a_process_unless_one_owns_a_gpu_engine(tmp_path: Path) -> None:
    recipe: Recipe = load_recipe("demo")
    assert executor(recipe, tmp_path).name == "in_process"
    assert executor(change(recipe, "teacher.engine", "vllm"), tmp_path).name == "multiprocess"
