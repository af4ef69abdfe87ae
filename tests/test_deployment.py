"""What a deployment is made of is accepted by what would read it, as far as that can be had: nothing is built or run.

Readers are the schema of the Compose specification, the classes of dagster-k8s, a linter of Dockerfiles, and the
commands that containers begin with, whose arguments are parsed and not carried out.
"""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import dagster as dg
import pytest
import yaml
from conftest import Project, change
from dagster._cli import cli as dagster_cli
from dagster._daemon.cli import cli as daemon_cli
from dagster_webserver.cli import cli as webserver_cli

from dasd_assets.cli.parser import parse
from dasd_assets.definitions import build_definitions
from dasd_assets.service.batches_run import JOB
from dasd_assets.service.step_pods import CONFIG, VARIABLE, PodError, read_pods
from dasd_assets.viewer.access import Access
from dasd_resources.home import DAGSTER_SETTINGS, DRIVER, HISTORY_VARIABLE, VIEWER
from dasd_resources.storage.place import CATALOG_VARIABLE, DATA_VARIABLE

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
GPU = "nvidia.com/gpu"
HADOLINT = Path(sys.executable).parent / "hadolint"
PROGRAMS = {"dagster": dagster_cli, "dagster-daemon": daemon_cli, "dagster-webserver": webserver_cli}
INSTRUCTION = re.compile(r"^([A-Z]+) (.+)$", re.MULTILINE)


def read(name: str) -> dict[str, Any]:
    document = yaml.safe_load((DEPLOY / name).read_text())
    assert isinstance(document, dict)
    return document


def test_compose_is_of_the_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, DEPLOY / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_compose_publishes_on_loopback_alone_and_the_viewer_with_a_token() -> None:
    services = read("compose.yaml")["services"]
    ports = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert ports == {"webserver": ["127.0.0.1:3000:3000"], "viewer": ["127.0.0.1:3001:3001"]}
    arguments = parse(services["viewer"]["command"][1:])
    access = Access.to(arguments.host, arguments.allow_host)
    assert access.token is not None and not access.accepts_token(None)
    address = urlsplit(access.address(arguments.port))
    assert address._replace(query="").geturl() == f"{VIEWER}/" and access.accepts_host(address.netloc)


def test_every_service_of_compose_finds_the_others() -> None:
    compose = read("compose.yaml")
    services = compose["services"]
    assert set(services) >= {"webserver", "viewer", "daemon", "code", "postgres", "objects", "teacher"}
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        assert {volume.partition(":")[0] for volume in service.get("volumes", ())} <= set(compose["volumes"])
    ours = [service for service in services.values() if "build" in service]
    assert [service["environment"] for service in ours] == [services["code"]["environment"]] * 5
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
    config = job.executor_def.apply_config_mapping({"config": {}}).value["config"]
    steps = config["per_step_k8s_config"]
    assert {"teacher_generations_t060", "student_logprobs", "checkpoint_t060"} <= set(steps)
    assert {"teacher_generations_t060_prefill_parity", "student_logprobs_engine_parity"} <= set(steps)
    assert not {"prompts", "response_verdicts", "sft_dataset_t060"} & set(steps)
    assert {step["container_config"]["resources"]["limits"][GPU] for step in steps.values()} == {8}
    assert GPU not in str(config["step_k8s_config"])


def test_a_run_in_rounds_has_one_pod_with_the_gpus_or_there_is_none(project: Project) -> None:
    vllm = change(change(project.recipe, "teacher.engine", "vllm"), "student.engine", "vllm")
    own = read_pods(DEPLOY / "step_pods.yaml")
    made = build_definitions(vllm, project.home, project.engines, pods=own)
    config = json.loads(made.resolve_job_def(JOB).tags[CONFIG])
    assert config["container_config"] == own["engine"]["container_config"]
    without = {pool: pod for pool, pod in own.items() if pool != JOB}
    each = build_definitions(vllm, project.home, project.engines, pods=without)
    assert JOB not in {job.name for job in each.resolve_all_job_defs()}


@pytest.mark.parametrize("text", ["engine: {container_config: {resourcs: {}}}", "engine: [", "- a"])
def test_pods_that_kubernetes_would_refuse_are_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "pods.yaml").write_text(text)
    with pytest.raises(PodError, match=r"pods.yaml: "):
        read_pods(tmp_path / "pods.yaml")


def test_the_values_of_the_chart_have_what_the_engine_needs() -> None:
    """The keys that we know of; the chart's schema and templates are no part of this project: docs/deployment.md."""
    values = read("helm-values.yaml")
    assert values["runLauncher"]["type"] == "K8sRunLauncher"
    packaged = yaml.safe_load(DAGSTER_SETTINGS.read_text())["concurrency"]
    pools, runs = values["concurrency"]["pools"], values["concurrency"]["runs"]
    in_rounds = JOB in read_pods(
        DEPLOY / "step_pods.yaml"
    )  # a run that keeps its GPUs while another step waits for some
    assert (pools["defaultLimit"] - in_rounds, pools["granularity"]) == tuple(packaged["pools"].values())
    assert runs["maxConcurrentRuns"] == packaged["runs"]["max_concurrent_runs"]
    assert values["postgresql"]["postgresqlScheme"] == DRIVER.partition(":")[0]
    [deployment] = values["dagster-user-deployments"]["deployments"]
    assert deployment["includeConfigInLaunchedRuns"] == {"enabled": True}
    variables = {entry["name"]: entry["value"] for entry in deployment["env"]}
    assert {CATALOG_VARIABLE, DATA_VARIABLE, VARIABLE, "DASD_HOME"} <= set(variables)
    mounted = {mount["name"]: mount["mountPath"] for mount in deployment["volumeMounts"]}
    assert mounted.keys() == {volume["name"] for volume in deployment["volumes"]}
    assert {str(Path(variables[VARIABLE]).parent), variables["DASD_HOME"]} <= set(mounted.values())


def numbers(value: object) -> Iterator[float]:
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from numbers(part)
    elif isinstance(value, int | float):
        yield value


def test_no_value_of_the_chart_is_written_with_an_exponent() -> None:
    """Helm writes 7776000 as 7.776e+06, which Dagster refuses for an integer: such a number is a string."""
    values = read("helm-values.yaml")
    assert max(numbers(values)) < 1e6
    limit = values["dagsterDaemon"]["runMonitoring"]["maxRuntimeSeconds"]
    assert int(limit) == yaml.safe_load(DAGSTER_SETTINGS.read_text())["run_monitoring"]["max_runtime_seconds"]


def instructions(*kinds: str) -> Iterator[str]:
    """What follows each instruction of these kinds in the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    return (rest for kind, rest in INSTRUCTION.findall(text) if kind in kinds)


def test_what_comes_from_the_hub_stays_in_the_home_that_all_have_mounted() -> None:
    image = dict(pair.split("=", 1) for rest in instructions("ENV") for pair in rest.split())
    assert Path(image["HF_HOME"]).is_relative_to(image["DASD_HOME"])
    assert [image["DASD_HOME"]] == list(instructions("VOLUME"))
    assert f"home:{image['DASD_HOME']}" in read("compose.yaml")["services"]["code"]["volumes"]
    [deployment] = read("helm-values.yaml")["dagster-user-deployments"]["deployments"]
    assert {"name": "home", "mountPath": image["DASD_HOME"]} in deployment["volumeMounts"]


def test_an_image_for_gpus_has_the_package_of_layer_kernels() -> None:
    files = (ROOT / "Dockerfile", ROOT / "docs" / "deployment.md", DEPLOY / "helm-values.yaml")
    for file in files:
        advised = [extras for extras in re.findall(r"EXTRAS=([\w,-]+)", file.read_text()) if "vllm" in extras]
        assert advised and all("kernels" in extras.split(",") for extras in advised), file


def check_command(command: Sequence[str]) -> None:
    """Raise unless the program is one that the image has, and takes these arguments."""
    program, *arguments = command
    if program == "python":
        assert arguments[0] == "-m" and importlib.util.find_spec(arguments[1]), command
    elif program == "dasd":
        parse(arguments)
    else:
        check_arguments(PROGRAMS[program], arguments)


def check_arguments(program: click.Command, arguments: Sequence[str]) -> None:
    while isinstance(program, click.Group):
        program, arguments = program.commands[arguments[0]], arguments[1:]
    program.make_context(program.name, list(arguments))


@pytest.mark.skipif(not HADOLINT.exists(), reason="there is no hadolint for this machine")
def test_the_dockerfile_passes_its_linter() -> None:
    done = subprocess.run([HADOLINT, "Dockerfile"], cwd=ROOT, capture_output=True)
    assert (done.returncode, done.stdout.decode()) == (0, "")


def test_all_that_the_image_is_built_from_is_there() -> None:
    left_out = (ROOT / ".dockerignore").read_text().split()
    copied = [source for rest in instructions("COPY") for source in rest.split()[:-1]]
    assert {"dasd", "dasd_assets", "dasd_resources", "constraints.txt"} < set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert not [pattern for pattern in left_out if fnmatch(source, pattern)], source
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["readme"] in copied  # or the package cannot be built
    arguments = dict(rest.split("=", 1) for rest in instructions("ARG"))
    compose = read("compose.yaml")["x-dasd"]["build"]["args"]
    assert compose.keys() <= arguments.keys()
    advised = re.findall(r"EXTRAS=([\w,-]+)", (ROOT / "Dockerfile").read_text())
    named = {arguments["EXTRAS"], compose["EXTRAS"], *advised}
    assert set(",".join(named).split(",")) <= project["optional-dependencies"].keys()


def test_containers_begin_with_commands_that_there_are() -> None:
    [command] = instructions("CMD")
    check_command(json.loads(command))
    compose = read("compose.yaml")
    ours = [service for service in compose["services"].values() if "build" in service]
    for service in ours:
        check_command(service["command"])
        if "test" in service.get("healthcheck", {}):
            assert service["healthcheck"]["test"][0] == "CMD"
            check_command(service["healthcheck"]["test"][1:])
    copied = {rest.split()[0]: rest.split()[-1] for rest in instructions("COPY")}
    for service in ours:
        given = service["command"]
        if "--workspace" in given:
            assert copied["deploy/workspace.yaml"] == given[given.index("--workspace") + 1]
    [deployment] = read("helm-values.yaml")["dagster-user-deployments"]["deployments"]
    check_command(["dagster", "api", "grpc", "-h", "0.0.0.0", "-p", "4000", *deployment["dagsterApiGrpcArgs"]])
    with pytest.raises(click.NoSuchOption):
        check_command(["dagster-daemon", "run", "--workspaces", "deploy/workspace.yaml"])


def test_the_containers_of_the_chart_may_write_to_the_home() -> None:
    """A claim belongs to root: its group is made the image's."""
    values = read("helm-values.yaml")
    [deployment] = values["dagster-user-deployments"]["deployments"]
    [user] = instructions("USER")
    group = int(user.partition(":")[2])
    runs = values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"]["podSpecConfig"]
    assert deployment["podSecurityContext"] == runs["securityContext"] == {"fsGroup": group}
    image = f"{deployment['image']['repository']}:{deployment['image']['tag']}"
    assert [container["image"] for container in deployment["initContainers"]] == [image]
    settings = next(volume["configMap"] for volume in deployment["volumes"] if "configMap" in volume)
    docs = (ROOT / "docs" / "deployment.md").read_text()
    for variable in (entry for entry in deployment["env"] if entry["value"].startswith("/etc/dasd/")):
        named = rf"create configmap {settings['name']} .*--from-file=\S*{Path(variable['value']).name}"
        assert re.search(named, docs), variable
