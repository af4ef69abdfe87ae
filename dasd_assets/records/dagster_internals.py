"""The names that we use from Dagster's private modules; no other module imports those.

Where the `dagster` package exports a name, it is used instead. For each of these, tests/test_dagster_internals.py shows
the behaviour that we rely on, so an upgrade of Dagster fails there first.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TypedDict

import alembic.command
import dagster as dg
from alembic.config import Config
from alembic.script import ScriptDirectory
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph, BaseAssetNode
from dagster._core.definitions.repository_definition import SINGLETON_REPOSITORY_NAME
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition
from dagster._core.event_api import PartitionKeyFilter
from dagster._core.events import RunFailureReason
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.execution.step_dependency_config import StepDependencyConfig
from dagster._core.log_manager import (
    get_log_record_event,
    get_log_record_metadata,
    has_log_record_event,
    has_log_record_metadata,
)
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler import DagsterDaemonScheduler
from dagster._core.storage import sql
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log import SqlEventLogStorage
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.tags import (
    AUTO_RETRY_RUN_ID_TAG,
    MAX_RETRIES_TAG,
    PARTITION_NAME_TAG,
    RUN_FAILURE_REASON_TAG,
    WILL_RETRY_TAG,
)
from dagster._serdes import ConfigurableClassData
from dagster._utils.concurrency import ConcurrencyClaimStatus
from sqlalchemy import Engine, NullPool, create_engine

# Words in the command lines of the processes that `dagster dev` starts (tests/test_service.py meets them all).
WEB_UI, DAEMON, CODE_SERVERS = ("dagster_webserver",), ("dagster._daemon",), ("code-server start", "api grpc")

__all__ = [
    "AUTO_RETRY_RUN_ID_TAG",  # on a run that Dagster has started again: the new run's id
    "CODE_SERVERS",
    "DAEMON",
    "MAX_RETRIES_TAG",  # "0" on the runs of `dasd run`: Dagster must not start them again
    "PARTITION_NAME_TAG",  # the batch of a run
    "RUN_FAILURE_REASON_TAG",  # why a run failed: a RunFailureReason, absent where nobody named one
    "WEB_UI",
    "WILL_RETRY_TAG",  # "true" on a failed run that Dagster is about to start again
    "AssetCheckExecutionRecordStatus",  # whether a check passed, in the one query that answers for all batches
    "BaseAssetGraph",  # the type that `Definitions.resolve_asset_graph` returns, for annotations
    "BaseAssetNode",  # the type of its nodes: parents, checks, code version, metadata
    "ConfigurableClassData",  # of the signature by which Dagster makes the scheduler that dagster.yaml names
    "DagsterDaemonScheduler",  # the scheduler that OneService extends; the daemon looks for this class
    "ExecutionPlan",  # of an Executor's signature: OwnedExecutor wraps Dagster's own executors
    "PartitionKeyFilter",  # of the query for a check's earlier outcomes in one batch
    "PlanOrchestrationContext",  # of an Executor's signature; holds the run
    "RetryMode",  # of an Executor's signature
    "RunFailureReason",  # tells a run whose process died from one whose step failed
    "StepDependencyConfig",  # of an Executor's signature
    "UnresolvedAssetJobDefinition",  # the type that `define_asset_job` returns, for annotations
    "get_log_record_event",  # which asset is being made, for the terminal
    "get_log_record_metadata",  # step and message of a line of the run log, for the terminal
    "has_log_record_event",  # tells Dagster's own events from our messages
    "has_log_record_metadata",  # tells messages of a run from those of libraries
    "in_code_location",  # of a run in this process: the web UI's timeline shows those of a code location alone
    "mend_storages",  # of Dagster: cheaper connections and databases, and slots of pools given to whoever waits
]

CODE_LOCATION = "dasd"  # as workspace.yaml and pyproject.toml name it
KEPT_ENGINES = 16  # a process works on the databases of a few runs at a time, and on two for all


class ConnectArgs(TypedDict, total=False):
    """SQLite's options that Dagster sets."""

    timeout: int


@contextmanager
def in_code_location(instance: dg.DagsterInstance, job: dg.JobDefinition) -> Iterator[None]:
    """Runs of the job that this process begins in the block are of the service's code location, as its own runs are.

    `execute_in_process` names none, and the web UI's timeline leaves out a run without one. The name alone is stored:
    nothing can be loaded by it, so nothing starts such a run again.
    """
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(CODE_LOCATION), SINGLETON_REPOSITORY_NAME)
    create = instance.create_run_for_job
    origin = RemoteJobOrigin(repository, job.name)
    instance.create_run_for_job = partial(create, remote_job_origin=origin)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del instance.create_run_for_job  # type: ignore[method-assign]


def mend_storages() -> None:
    """Mend what Dagster's storages do badly; to be called before any is opened. Further calls do nothing more."""
    _keep_database_engines()
    _keep_migration_scripts()
    SqlEventLogStorage.claim_concurrency_slot = _claim_slot  # type: ignore[method-assign, assignment]
    InstanceConcurrencyContext.interval_to_next_pending_claim_check = _seconds_to_next_claim  # type: ignore[method-assign, assignment]


_dagsters_claim = SqlEventLogStorage.claim_concurrency_slot


def _claim_slot(
    storage: SqlEventLogStorage, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
) -> ConcurrencyClaimStatus:
    """Dagster's, which gives a freed slot to whoever waits at that moment, and never looks again.

    A step that found the slot taken, and began to wait just after it was freed, waited for ever (seen once, of two
    runs of one batch at once). Should two steps be given one slot, the second still waits: a claim takes a free row.
    """
    status = _dagsters_claim(storage, concurrency_key, run_id, step_key, priority)
    if status.is_claimed or status.is_assigned or not storage.has_unassigned_slots(concurrency_key):
        return status
    storage.assign_pending_steps([concurrency_key])
    return _dagsters_claim(storage, concurrency_key, run_id, step_key, priority)


def _seconds_to_next_claim(context: InstanceConcurrencyContext) -> float:
    """Dagster's is never above 0, so that a run that waits for a slot takes a whole core."""
    times = context._pending_timeouts.values()
    return max(0.0, min(times) - time.time()) if times else 0.0


def _keep_database_engines() -> None:
    """Let Dagster's SQLite storages use an engine of SQLAlchemy again, where they make one for every connection.

    A new engine compiles every statement anew: a batch of nine assets opens 625 connections, and a third of its run's
    CPU time was that. Connections themselves are opened and closed as before (NullPool).
    """
    for module in (sqlite_event_log, sqlite_run_storage):
        vars(module)["create_engine"] = _create_engine


def _create_engine(url: str, *, poolclass: type[NullPool], connect_args: ConnectArgs | None = None) -> Engine:
    assert poolclass is NullPool, "an engine that keeps connections must not be shared"
    return _kept_engine(url, (connect_args or {}).get("timeout"))


@lru_cache(maxsize=KEPT_ENGINES)
def _kept_engine(url: str, timeout: int | None) -> Engine:
    return create_engine(url, poolclass=NullPool, connect_args={} if timeout is None else {"timeout": timeout})


class KeptScripts:
    """Alembic's ScriptDirectory, as far as Dagster uses it: a process loads the forty migrations once.

    Dagster loads them twice for every database that it makes, and every run has one of its own: 0.03 s of CPU time.
    """

    @staticmethod
    @lru_cache(maxsize=3)
    def from_config(config: Config) -> ScriptDirectory:
        """The migrations of a configuration; Dagster keeps one each for runs, events and schedules."""
        return ScriptDirectory.from_config(config)


def _keep_migration_scripts() -> None:
    for module in (alembic.command, sql):
        vars(module)["ScriptDirectory"] = KeptScripts
