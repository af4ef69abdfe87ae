"""In Kubernetes, a pod for each step: what it gets follows from the step's pool, as a file of the cluster's says.

The file (DASD_STEP_PODS; deploy/step_pods.yaml) names pools, and `default` for steps of none; each value is what
Dagster calls `dagster-k8s/config`. It may name the job `batches_in_rounds`, too, all of which then runs in one pod.
Never run in a cluster by us: docs/deployment.md.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import yaml

from dasd_resources.errors import UserError

VARIABLE, DEFAULT, CONFIG = "DASD_STEP_PODS", "default", "dagster-k8s/config"
Pods = Mapping[str, Mapping[str, Any]]  # pool, or job -> dagster-k8s/config


class PodError(UserError, ValueError):
    """A file of pods that cannot be used; the message says where."""

    exit_code = 2


def read_pods(file: Path) -> Pods:
    """The pods of the pools. Raises PodError for what `dagster-k8s` does not accept."""
    from dagster_k8s.job import UserDefinedDagsterK8sConfig  # half a second, and only clusters have it

    try:
        pods = yaml.safe_load(file.read_text())
        for pool in pods:
            UserDefinedDagsterK8sConfig.from_dict(pods[pool])
    except Exception as error:  # of YAML, of Dagster's checks, of the Kubernetes models
        raise PodError(f"{file}: {' '.join(str(error).split())}") from None
    return dict(pods)


def executor_in_pods(pods: Pods, assets: Iterable[dg.AssetsDefinition]) -> dg.ExecutorDefinition:
    """Dagster's executor of a pod for each step, told what the step of each asset or check gets."""
    from dagster_k8s import k8s_job_executor

    return k8s_job_executor.configured(pod_settings(pods, assets), name="step_pods")


def pod_settings(pods: Pods, assets: Iterable[dg.AssetsDefinition]) -> dict[str, Any]:
    """The executor's settings: what steps get, and what those of a named pool get besides."""
    pools = {asset.op.name: asset.op.pool or DEFAULT for asset in assets if isinstance(asset.op, dg.OpDefinition)}
    steps = {step: dict(pods[pool]) for step, pool in pools.items() if pool != DEFAULT and pool in pods}
    return {"step_k8s_config": dict(pods.get(DEFAULT, {})), "per_step_k8s_config": steps}


def job_tags(pods: Pods | None, job: str) -> dict[str, Any]:
    """The tags by which a job's runs get the pod that the file names for it; none if it names none."""
    return {CONFIG: dict(pods[job])} if pods and job in pods else {}
