"""deploy/ is accepted by what would read it: the schema of the Compose specification, the classes of dagster-k8s."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from conftest import Project

from dasd_assets.definitions import build_definitions
from dasd_assets.service.step_pods import VARIABLE, PodError, pod_settings, read_pods
from dasd_resources.home import DAGSTER_SETTINGS, DRIVER, HISTORY_VARIABLE
from dasd_resources.storage.place import CATALOG_VARIABLE, DATA_VARIABLE

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
GPU = "nvidia.com/gpu"


def read(name: str) -> dict[str, Any]:
    document = yaml.safe_load((DEPLOY / name).read_text())
    assert isinstance(document, dict)
    return document


def test_compose_is_of_the_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, DEPLOY / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_service_of_compose_finds_the_others() -> None:
    compose = read("compose.yaml")
    services = compose["services"]
    assert set(services) >= {"webserver", "daemon", "code", "postgres", "objects", "teacher"}
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert {volume.partition(":")[0] for volume in service.get("volumes", ())} <= set(compose["volumes"])
    ours = [service for service in services.values() if "build" in service]
    assert [service["environment"] for service in ours] == [services["code"]["environment"]] * 4
    environment = services["code"]["environment"]
    assert {CATALOG_VARIABLE, DATA_VARIABLE, HISTORY_VARIABLE, "PGPASSWORD"} < set(environment)
    [location] = read("workspace.yaml")["load_from"]
    assert location["grpc_server"]["host"] in services
    assert str(location["grpc_server"]["port"]) in services["code"]["command"]
    databases = {environment[name].rpartition("/")[2] for name in (CATALOG_VARIABLE, HISTORY_VARIABLE)}
    assert databases == {services["postgres"]["environment"]["POSTGRES_DB"], "dagster"}


def test_no_password_is_written_down() -> None:
    for file in DEPLOY.iterdir():
        for line in file.read_text().splitlines():
            name, _, value = line.partition(":")
            if "PASSWORD" in name or "SECRET" in name:
                assert value.strip().startswith("${"), line


def test_steps_with_a_model_get_the_gpus(project: Project) -> None:
    pods = read_pods(DEPLOY / "step_pods.yaml")
    made = build_definitions(project.recipe, project.home, project.engines, pods=pods)
    job = made.resolve_job_def("everything")
    assert job.executor_def.name == "step_pods"
    dg.validate_run_config(job)
    config = pod_settings(pods, [asset for asset in made.assets or () if isinstance(asset, dg.AssetsDefinition)])
    steps = config["per_step_k8s_config"]
    assert {"teacher_generations_t060", "student_logprobs", "checkpoint_t060"} <= set(steps)
    assert not {"prompts", "response_verdicts", "sft_dataset_t060"} & set(steps)
    assert {step["container_config"]["resources"]["limits"][GPU] for step in steps.values()} == {8}
    assert GPU not in str(config["step_k8s_config"])


@pytest.mark.parametrize("text", ["engine: {container_config: {resourcs: {}}}", "engine: [", "- a"])
def test_pods_that_kubernetes_would_refuse_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text(text)
    with pytest.raises(PodError, match=r"pods.yaml: "):
        read_pods(tmp_path / "pods.yaml")


def test_the_values_of_the_chart_have_what_the_engine_needs() -> None:
    """By hand, as the chart cannot be had here: docs/deployment.md."""
    values = read("helm-values.yaml")
    assert values["runLauncher"]["type"] == "K8sRunLauncher"
    packaged = yaml.safe_load(DAGSTER_SETTINGS.read_text())["concurrency"]
    pools, runs = values["concurrency"]["pools"], values["concurrency"]["runs"]
    assert (pools["defaultLimit"], pools["granularity"]) == tuple(packaged["pools"].values())
    assert runs["maxConcurrentRuns"] == packaged["runs"]["max_concurrent_runs"]
    assert values["postgresql"]["postgresqlScheme"] == DRIVER.partition(":")[0]
    [deployment] = values["dagster-user-deployments"]["deployments"]
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    variables = {entry["name"]: entry["value"] for entry in deployment["env"]}
    assert {CATALOG_VARIABLE, DATA_VARIABLE, VARIABLE, "DASD_HOME"} <= set(variables)
    mounted = {mount["name"]: mount["mountPath"] for mount in deployment["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in deployment["volumes"]}
    assert {str(Path(variables[VARIABLE]).parent), variables["DASD_HOME"]} <= set(mounted.values())
